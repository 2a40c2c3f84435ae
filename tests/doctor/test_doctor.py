"""scripts/doctor.py: whole examinations, on machines that are made up."""

import importlib.util
import json

import jax
import pytest

from nin_jax.doctor import examine, machine, packages, processes, settings, space
from nin_jax.doctor.check import size
from nin_jax.doctor.machine import Devices
from tests.support.doctor_fakes import CUDA_TORCH, ONE_GPU, by_name, is_ok
from tests.support.synthetic_idx import fashion, no_network_no_home, write_files

__all__ = ["fashion", "no_network_no_home"]  # fixtures


@pytest.fixture
def healthy(monkeypatch, no_network_no_home):
    """No torch, no nvidia-smi, no settings: a machine without a fault."""
    for name in ("JAX_PLATFORMS", "NVIDIA_TF32_OVERRIDE", machine.PREALLOCATE, *settings.FRACTIONS):
        monkeypatch.delenv(name, raising=False)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: None if name == "torch" else find(name, *more),
    )
    monkeypatch.setattr(processes, "read_nvidia", lambda: None)
    monkeypatch.setattr(machine, "read_available_memory", lambda: 2**34)
    monkeypatch.setattr(machine, "read_free_disk", lambda folder: 2**34)


@pytest.mark.usefixtures("healthy")
def test_a_machine_with_a_gpu_and_both_frameworks(monkeypatch, tmp_path):
    wheels = {"jax-cuda12-plugin": "0.1", "nvidia-cudnn-cu12": "9.8.0.87"}
    version_of = packages.installed_version
    monkeypatch.setattr(processes, "read_nvidia", lambda: ONE_GPU)
    monkeypatch.setattr(machine, "read_devices", lambda: Devices("gpu", "gpu, 1 x NVIDIA H100"))
    monkeypatch.setattr(processes, "read_torch", lambda: CUDA_TORCH)
    monkeypatch.setattr(
        packages, "installed_version", lambda name: wheels.get(name) or version_of(name)
    )
    findings = examine(None, tmp_path)
    names = {c.name for checks in findings.values() for c in checks if c.status == "warning"}
    assert names == {"jax-cuda12-plugin", "CUDA", "cuDNN", "JAX's share", "torch TF32"}
    memory = by_name(findings["memory and disk"])
    assert is_ok(memory["host memory"], "about 750.0 MiB")  # a step takes none of the host's
    assert is_ok(memory["GPU memory"], "70.0 GiB free", "at least 2.9 GiB")


@pytest.mark.usefixtures("healthy")
def test_a_machine_without_a_gpu_computes_in_the_hosts_memory(tmp_path):
    memory = by_name(examine(None, tmp_path)["memory and disk"])
    assert size(space.PROCESS_BYTES + space.step_bytes()) in memory["host memory"].found


TOPICS = ["versions", "devices", "CUDA", "preallocation", "precision", "compilation cache"]
TOPICS += ["data", "memory and disk"]


@pytest.mark.usefixtures("healthy")
def test_prints_json(script, tmp_path):
    outcome = script("doctor", "--format", "json", "--strict")
    assert outcome.code == 0, outcome
    findings = json.loads(outcome.out)
    assert list(findings) == TOPICS
    for checks in findings.values():
        for check in checks:
            assert list(check) == ["name", "found", "status", "advice"]
            assert check["status"] == "ok", check
            assert check["found"]
    versions = {check["name"]: check["found"] for check in findings["versions"]}
    assert versions["torch"] == "not installed"
    assert versions["jax"] == jax.__version__
    assert list((tmp_path / "cwd").iterdir()) == []


@pytest.mark.usefixtures("healthy")
def test_a_warning_counts_only_when_strict(script, tmp_path, monkeypatch):
    monkeypatch.setenv(machine.PREALLOCATE, "off")
    monkeypatch.setattr(processes, "read_nvidia", lambda: ONE_GPU)
    outcome = script("doctor", "--workdir", tmp_path / "file" / "run")
    assert outcome.code == 0, outcome
    assert "2 warnings." in outcome.out
    assert "'.[cuda12]'" in outcome.out  # and not taken for markup
    assert "there is a GPU" in outcome.out
    outcome = script("doctor", "--strict", "--format", "json")
    assert outcome.code == 1
    assert outcome.err == ""
    json.loads(outcome.out)


@pytest.mark.usefixtures("healthy")
def test_looks_where_it_is_told(script, fashion, tmp_path, monkeypatch):
    write_files(tmp_path / "da|ta", fashion)
    asked = []
    monkeypatch.setattr(machine, "read_free_disk", lambda folder: asked.append(folder))
    outcome = script(
        *("doctor", "--format", "markdown", "--data-dir", tmp_path / "da|ta"),
        *("--workdir", tmp_path / "runs"),
    )
    assert outcome.code == 0, outcome
    assert asked == [tmp_path / "runs"]
    assert "No warnings." in outcome.out
    assert "official MD5s" in outcome.out
    rows = [line for line in outcome.out.splitlines() if line.startswith("|")]
    assert {row.replace(r"\|", "").count("|") for row in rows} == {6}
    assert sum(row.startswith("| versions ") for row in rows) == 1


def test_refuses_what_is_wrong(script):
    for arguments, text in ((["--format", "xml"], "--format"), (["--strickt"], "--strickt")):
        outcome = script("doctor", *arguments)
        assert outcome.code == 2
        assert outcome.err.startswith("error: ")
        assert outcome.err.count("\n") == 1
        assert text in outcome.err
        assert outcome.out == ""
