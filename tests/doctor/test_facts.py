"""The doctor reads facts, and survives whatever packages, torch, nvidia-smi and JAX do."""

import importlib.metadata
import importlib.util
import os
import signal
import subprocess
from pathlib import Path

import jax
import pytest
from packaging.requirements import Requirement

from nin_jax.doctor import facts
from nin_jax.doctor.facts import Devices, Gpu, Libraries, Nvidia, Torch
from tests.support.doctor_fakes import CPU_TORCH, CUDA_TORCH

TIMES_OUT = subprocess.TimeoutExpired("torch", 120.0)


def test_bounds_come_from_this_project_and_jax(monkeypatch):
    bounds = facts.read_bounds(None)
    required = {requirement.name for who, requirement in bounds if who == "nin_jax"}
    assert {"jax", "flax", "rich"} <= required
    assert "torch" not in required
    assert [requirement.name for who, requirement in bounds if who == "jax"] == ["jaxlib"]
    bound = facts.read_torch_bound()
    assert bound is not None
    assert str(bound).startswith("torch==")
    monkeypatch.setattr(facts, "installed_version", lambda package: "1.0")
    names = [requirement.name for who, requirement in facts.read_bounds(12) if who == "jax"]
    assert names == ["jaxlib", "jax-cuda12-plugin"]


def test_jaxs_plugin_bounds_its_cudnn(monkeypatch):
    cudnn, nccl = Requirement("nvidia-cudnn-cu12>=9.8,<10"), Requirement("nvidia-nccl-cu12>=2")
    required = {("jax-cuda12-plugin", "with-cuda"): [cudnn, nccl]}
    monkeypatch.setattr(facts, "read_requirements", lambda *key: required.get(key, []))
    monkeypatch.setattr(facts, "installed_version", {"nvidia-cudnn-cu12": "9.1.0.70"}.get)
    assert facts.read_bounds(12) == [("jax-cuda12-plugin", cudnn)]
    monkeypatch.setattr(facts, "installed_version", {}.get)  # CUDA comes from the system
    assert facts.read_bounds(12) == []


def test_a_package_that_is_not_installed():
    assert facts.read_requirements("no-such-package") == []
    assert facts.installed_version("no-such-package") is None


PLUGIN_12, PLUGIN_13 = {"jax-cuda12-plugin": "0.10.2"}, {"jax-cuda13-plugin": "0.10.2"}
CUDNN_12, CUDNN_13 = {"nvidia-cudnn-cu12": "9.10.2.21"}, {"nvidia-cudnn-cu13": "9.13.0.50"}
RUNTIME_12, RUNTIME_13 = {"nvidia-cuda-runtime-cu12": "12.9.79"}, {"nvidia-cuda-runtime": "13.0.96"}


@pytest.mark.parametrize(
    ("wheels", "plugin", "libraries"),
    [
        ({}, None, None),
        (PLUGIN_12, 12, Libraries("12", None)),
        (PLUGIN_12 | RUNTIME_12 | CUDNN_12 | CUDNN_13, 12, Libraries("12.9.79", "9.10.2.21")),
        (PLUGIN_13 | RUNTIME_13, 13, Libraries("13.0.96", None)),
        (PLUGIN_12 | RUNTIME_13, 12, Libraries("12", None)),  # torch's wheel, for another CUDA
    ],
)
def test_jaxs_libraries_come_from_its_wheels(monkeypatch, wheels, plugin, libraries):
    monkeypatch.setattr(facts, "installed_version", wheels.get)
    assert facts.read_plugin() == plugin
    assert facts.jax_libraries(plugin) == libraries


def test_torchs_libraries():
    assert facts.torch_libraries(None) is None
    assert facts.torch_libraries(CPU_TORCH) is None
    assert facts.torch_libraries(CUDA_TORCH) == Libraries("13.0", "9.10.2")
    assert facts.torch_libraries(Torch("2.13.0", error="OSError")) == Libraries(None, None)
    assert facts.format_cudnn(8907) == "8.9.7"
    assert facts.format_cudnn(90100) == "9.1.0"


@pytest.fixture
def fake_torch(monkeypatch, tmp_path):
    """Install a torch that consists of the given lines of Python."""

    def install(code: str) -> None:
        (tmp_path / "torch.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
        monkeypatch.setattr(facts, "installed_version", lambda package: "9.9")

    return install


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("raise ImportError('libcudart.so.13: not found\\nmore')", "ImportError: libcudart.so.13"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise AssertionError", "AssertionError"),
        ("import os; os.abort()", "SIGABRT"),
        ("import os; os._exit(4)", "exit code 4"),
        ("import os; os._exit(0)", "ended the process"),
        ("print('{')", "AttributeError"),
    ],
)
def test_a_broken_torch_is_one_line(fake_torch, code, error):
    fake_torch(code)
    torch = facts.read_torch()
    assert torch is not None
    assert torch.version == "9.9"
    assert error in torch.error
    assert "more" not in torch.error


def test_a_torch_that_hangs(fake_torch, monkeypatch):
    fake_torch("")

    def hang(*_: object, **__: object) -> None:
        raise TIMES_OUT

    monkeypatch.setattr(subprocess, "run", hang)
    torch = facts.read_torch()
    assert torch is not None
    assert "timed out" in torch.error


def test_torch_reports_its_libraries(fake_torch):
    fake_torch(
        "from types import SimpleNamespace as S\n"
        "print('hello')\n"
        "__version__, version = '2.13.0', S(cuda='13.0')\n"
        "backends = S(cudnn=S(version=lambda: 91002, allow_tf32=True))\n"
        "get_float32_matmul_precision = lambda: 'highest'\n"
    )
    assert facts.read_torch() == CUDA_TORCH


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_the_installed_torch_answers():
    torch = facts.read_torch()
    assert torch is not None
    assert torch.error == ""
    assert torch.version is not None
    assert torch.version.startswith(importlib.metadata.version("torch"))  # "2.13.0" of 2.13.0+cu130
    assert torch.matmul_precision == "highest"
    assert torch.cudnn_tf32 is True


@pytest.mark.parametrize(
    ("code", "out", "err", "nvidia"),
    [
        (
            *(0, "NVIDIA H100, 80GB, 580.1, 71680, 81920\nGB10, 580.95, [N/A], [N/A]\n", ""),
            Nvidia(
                (
                    Gpu("NVIDIA H100, 80GB", "580.1", 70 * 2**30, 80 * 2**30),
                    Gpu("GB10", "580.95", None, None),
                )
            ),
        ),
        (0, "", "", Nvidia()),
        (0, "No devices were found\n", "", Nvidia(error="No devices were found")),
        (9, "\nfailed, so, and, so\nmore", "", Nvidia(error="failed, so, and, so")),
        (9, "", "no library\n", Nvidia(error="no library")),
        (-signal.SIGSEGV, "", "", Nvidia(error="SIGSEGV")),
    ],
)
def test_nvidia_smis_output_is_parsed(code, out, err, nvidia):
    done = subprocess.CompletedProcess(["nvidia-smi"], code, out, err)
    assert facts.parse_nvidia(done) == nvidia


def test_nvidia_smi_is_run(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert facts.read_nvidia() is None
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'H100, 580.1, 1, 2'\n")
    program.chmod(0o755)
    assert facts.read_nvidia() == Nvidia((Gpu("H100", "580.1", 2**20, 2 * 2**20),))
    program.write_text("#!/no/such/shell\n")
    broken = facts.read_nvidia()
    assert broken is not None
    assert "FileNotFoundError" in broken.error


def test_jax_fails_and_the_environment_is_restored(monkeypatch):
    seen = []

    def fail() -> None:
        seen.append(os.environ[facts.PREALLOCATE])
        raise RuntimeError("Unable to initialize backend\nlong story")

    monkeypatch.setattr(jax, "devices", fail)
    monkeypatch.setenv(facts.PREALLOCATE, "true")
    error = "RuntimeError: Unable to initialize backend"
    assert facts.read_devices() == Devices(None, error=error)
    assert os.environ[facts.PREALLOCATE] == "true"
    monkeypatch.delenv(facts.PREALLOCATE)
    facts.read_devices()
    assert facts.PREALLOCATE not in os.environ
    assert seen == ["false", "false"]  # the doctor must not take the GPU's memory


def test_the_cache_is_measured(tmp_path, monkeypatch):
    settings = {"jax_enable_compilation_cache": True, "jax_compilation_cache_dir": str(tmp_path)}
    monkeypatch.setattr(facts, "jax_setting", settings.get)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "one").write_bytes(bytes(1000))
    (tmp_path / "two").write_bytes(bytes(24))
    assert facts.read_cache() == (str(tmp_path), 2, 1024)

    def refuse(*_: object, onerror, **__: object):
        onerror(PermissionError())

    monkeypatch.setattr(os, "walk", refuse)
    assert facts.read_cache() == (str(tmp_path), None, None)
    settings["jax_compilation_cache_dir"] = "gs://a/b"
    assert facts.read_cache() == ("gs://a/b", None, None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    del settings["jax_compilation_cache_dir"]
    assert facts.read_cache() == (str(tmp_path / "none" / "nin_jax" / "xla"), 0, 0)
    settings["jax_enable_compilation_cache"] = False
    assert facts.read_cache() == (None, None, None)


def test_memory_and_disk_are_read(tmp_path, monkeypatch):
    path = tmp_path / "meminfo"
    assert facts.read_available_memory(path) is None
    path.write_text("MemTotal: 9 kB\nMemFree: 5 kB\nMemAvailable:   7 kB\n")
    assert facts.read_available_memory(path) == 7 * 1024
    path.write_text("MemTotal: 9 kB\n")
    assert facts.read_available_memory(path) is None
    assert (facts.read_free_disk(tmp_path) or 0) > 0
    assert facts.read_free_disk(tmp_path / "not" / "yet") is not None

    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    assert facts.read_free_disk(tmp_path) is None
