"""The doctor on data, memory and disk, and scripts/doctor.py as a whole on simulated machines."""

import importlib.util
import json
import os
from pathlib import Path

import jax
import pytest

from nin_jax.data import download, idx
from nin_jax.data.built_in import official_sets
from nin_jax.doctor import checks, facts, report
from nin_jax.doctor.facts import Devices, Gpu, Nvidia
from tests.support.doctor_fakes import CUDA_TORCH, GPU, ONE_GPU, by_name, is_ok, warns
from tests.support.small_archives import make_official
from tests.support.synthetic_idx import change, fashion, no_network_no_home, write_files

__all__ = ["fashion", "no_network_no_home"]  # fixtures

TOPICS = ["versions", "devices", "CUDA", "preallocation", "precision", "compilation cache"]
TOPICS += ["data", "memory and disk"]


@pytest.mark.usefixtures("no_network_no_home")
def test_intact_data(fashion, tmp_path, monkeypatch):
    write_files(tmp_path / "data" / "fashion-mnist", fashion)
    found = by_name(report.data_checks(tmp_path / "data"))
    assert list(found) == ["folder", *idx.IDX_SETS, *official_sets()]
    assert is_ok(found["folder"], str(tmp_path / "data"))
    assert is_ok(found["fashion_mnist"], "official MD5s", str(tmp_path / "data" / "fashion-mnist"))
    assert is_ok(found["mnist"], "not found", idx.IDX_SETS["mnist"].url)
    monkeypatch.setenv("NIN_DATA_DIR", str(tmp_path / "data"))
    assert by_name(report.data_checks(None)) == found
    write_files(download.user_folder() / "fashion-mnist", fashion)
    monkeypatch.delenv("NIN_DATA_DIR")
    check = by_name(report.data_checks(None))["fashion_mnist"]
    assert is_ok(check, str(download.user_folder()))


@pytest.mark.usefixtures("no_network_no_home")
def test_files_of_one_dataset_do_not_count_as_damage_to_another(fashion, tmp_path):
    write_files(tmp_path, fashion)  # mnist and kmnist are looked for here too
    found = by_name(report.data_checks(tmp_path))
    assert is_ok(found["fashion_mnist"])
    assert is_ok(found["mnist"], "not found")


@pytest.mark.usefixtures("no_network_no_home")
def test_no_data(tmp_path):
    found = by_name(report.data_checks(None))
    assert all(is_ok(check) for check in found.values())
    assert is_ok(found["fashion_mnist"], "not found", "downloads it")
    assert not download.user_folder().exists()
    given = by_name(report.data_checks(tmp_path / "none"))
    assert warns(given["folder"], "is not a folder")
    assert warns(given["fashion_mnist"], "not found", idx.IDX_SETS["fashion_mnist"].url)


@pytest.mark.usefixtures("no_network_no_home")
def test_damaged_data(fashion, tmp_path, monkeypatch):
    first, second, third, fourth = idx.FILE_NAMES
    change(monkeypatch, "mnist", md5={third: idx.IDX_SETS["fashion_mnist"].md5[third]})
    md5 = {**idx.IDX_SETS["fashion_mnist"].md5, third: "0" * 32}
    change(monkeypatch, "fashion_mnist", md5=md5, contents_md5={})
    folder = write_files(tmp_path / "fashion-mnist", fashion)
    (folder / first).write_bytes(fashion[first][:-1])
    (folder / second).unlink()
    check = report.dataset_check("fashion_mnist", tmp_path, True)
    assert warns(check, f"{first} is damaged, {second} is missing, {third} is MNIST's")
    assert warns(check, idx.IDX_SETS["fashion_mnist"].url)
    assert fourth not in check.found
    check = report.dataset_check("fashion_mnist", tmp_path, False)
    assert warns(check, "the next run downloads it")


@pytest.mark.usefixtures("no_network_no_home")
def test_archives(tmp_path, monkeypatch):
    made = make_official(monkeypatch, "svhn")
    first, second = made.files
    write_files(tmp_path / "svhn", made.files)
    write_files(tmp_path, {"cifar-10-python.tar.gz": b"of use to another program"})
    found = by_name(report.data_checks(tmp_path))
    assert is_ok(found["svhn"], "2 files with the official checksums", str(tmp_path / "svhn"))
    assert is_ok(found["cifar10"], "not found", "put it there from")
    (tmp_path / "svhn" / second).write_bytes(made.files[first])
    assert warns(by_name(report.data_checks(tmp_path))["svhn"], f"{second}' is damaged", "get it")


def test_states_of_a_file(fashion, tmp_path, monkeypatch):
    path = tmp_path / idx.FILE_NAMES[0]

    def state() -> str:
        return idx.state_of(idx.IDX_SETS["fashion_mnist"], tmp_path, path.name)

    assert state() == "missing"
    path.write_bytes(fashion[path.name])
    assert state() == "intact"
    change(monkeypatch, "fashion_mnist", limit=10)
    assert state() == "damaged"

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "read_bytes", refuse)
    change(monkeypatch, "fashion_mnist", limit=10**6)
    assert state() == "unreadable"


def test_enough_memory_and_disk(tmp_path):
    assert is_ok(report.memory_check(2**30, 2**30), "1.0 GiB free", "about 1.0 GiB")
    assert is_ok(report.memory_check(None, 2**30), "not available free")
    assert is_ok(report.gpu_memory_check(ONE_GPU, 2**30), "70.0 GiB free of 80.0 GiB")
    assert is_ok(report.gpu_memory_check(None, 2**30), "not available")
    unknown = Nvidia((Gpu("GB10", "580", None, None),))
    assert is_ok(report.gpu_memory_check(unknown, 2**30), "not available free")
    assert is_ok(report.disk_check(tmp_path, 2**30, 2**20), "1.0 GiB free", "1.0 MiB")
    assert is_ok(report.disk_check(tmp_path, None, 2**20), "not available free")


def test_too_little_memory_and_disk(tmp_path, monkeypatch):
    assert warns(report.memory_check(2**29, 2**30), "512.0 MiB free", "smaller batch")
    assert warns(report.memory_check(0, 1), "0.0 MiB free")
    small = Nvidia((Gpu("H100", "580", 2**20, 2**30), GPU))
    assert warns(report.gpu_memory_check(small, 2**21), "1.0 MiB free", "--micro-batch-size")
    assert warns(report.disk_check(tmp_path, 0, 1), "0.0 MiB free", "free some space")
    file = tmp_path / "file"
    file.write_text("")
    assert warns(report.disk_check(file, 2**30, 1), "is a file", "another folder")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert warns(report.disk_check(tmp_path, 2**30, 1), "not writable", "another folder")


def test_the_needs_of_a_run(monkeypatch):
    params = 4 * 2_225_510  # bytes of nin15 in float32
    # The momentum of every parameter, and one more moment of each bias.
    assert 4 * 2 * params < report.checkpoint_bytes() < 4 * 2.01 * params
    whole_batch = report.step_memory().total_bytes
    assert 2.5 * 2**30 < whole_batch < 3.5 * 2**30
    assert 3 * params < report.step_bytes() < 0.1 * whole_batch  # a CPU uses micro-batches

    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(report, "default_micro_batch_size", fail)
    assert report.step_bytes() == whole_batch


@pytest.fixture
def healthy(monkeypatch, no_network_no_home):
    """A machine without a problem: no torch, no nvidia-smi, no settings."""
    for name in ("JAX_PLATFORMS", "NVIDIA_TF32_OVERRIDE", facts.PREALLOCATE, *checks.FRACTIONS):
        monkeypatch.delenv(name, raising=False)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: None if name == "torch" else find(name, *more),
    )
    monkeypatch.setattr(facts, "read_nvidia", lambda: None)
    monkeypatch.setattr(facts, "read_available_memory", lambda: 2**34)
    monkeypatch.setattr(facts, "read_free_disk", lambda folder: 2**34)


@pytest.mark.usefixtures("healthy")
def test_a_machine_with_a_gpu_and_both_frameworks(monkeypatch, tmp_path):
    wheels = {"jax-cuda12-plugin": "0.1", "nvidia-cudnn-cu12": "9.8.0.87"}
    version_of = facts.installed_version
    monkeypatch.setattr(facts, "read_nvidia", lambda: ONE_GPU)
    monkeypatch.setattr(facts, "read_devices", lambda: Devices("gpu", "gpu, 1 x NVIDIA H100"))
    monkeypatch.setattr(facts, "read_torch", lambda: CUDA_TORCH)
    monkeypatch.setattr(
        facts, "installed_version", lambda name: wheels.get(name) or version_of(name)
    )
    findings = report.examine(None, tmp_path)
    names = {c.name for found in findings.values() for c in found if c.status == "warning"}
    assert names == {"jax-cuda12-plugin", "CUDA", "cuDNN", "JAX's memory", "torch TF32"}
    memory = by_name(findings["memory and disk"])
    assert is_ok(memory["host memory"], "about 750.0 MiB")  # a step uses the GPU's memory
    assert is_ok(memory["GPU memory"], "70.0 GiB free", "at least 2.9 GiB")


@pytest.mark.usefixtures("healthy")
def test_without_a_gpu_a_step_uses_host_memory(tmp_path):
    memory = by_name(report.examine(None, tmp_path)["memory and disk"])
    needed = checks.format_size(report.PROCESS_BYTES + report.step_bytes())
    assert needed in memory["host memory"].found


@pytest.mark.usefixtures("healthy")
def test_json(script, tmp_path):
    outcome = script("doctor", "--format", "json", "--strict")
    assert outcome.code == 0, outcome
    findings = json.loads(outcome.out)
    assert list(findings) == TOPICS
    for found in findings.values():
        for check in found:
            assert list(check) == ["name", "found", "status", "advice"]
            assert check["status"] == "ok", check
            assert check["found"]
    versions = {check["name"]: check["found"] for check in findings["versions"]}
    assert versions["torch"] == "not installed"
    assert versions["jax"] == jax.__version__
    assert list((tmp_path / "cwd").iterdir()) == []


@pytest.mark.usefixtures("healthy")
def test_only_strict_exits_with_1_on_a_warning(script, tmp_path, monkeypatch):
    monkeypatch.setenv(facts.PREALLOCATE, "off")
    monkeypatch.setattr(facts, "read_nvidia", lambda: ONE_GPU)
    outcome = script("doctor", "--workdir", tmp_path / "file" / "run")
    assert outcome.code == 0, outcome
    assert "2 warnings." in outcome.out
    assert "'.[cuda12]'" in outcome.out  # not read as markup
    assert "there is a GPU" in outcome.out
    outcome = script("doctor", "--strict", "--format", "json")
    assert outcome.code == 1
    assert outcome.err == ""
    json.loads(outcome.out)


@pytest.mark.usefixtures("healthy")
def test_markdown_of_the_folders_that_are_named(script, fashion, tmp_path, monkeypatch):
    write_files(tmp_path / "da|ta", fashion)
    asked = []
    monkeypatch.setattr(facts, "read_free_disk", lambda folder: asked.append(folder))
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
