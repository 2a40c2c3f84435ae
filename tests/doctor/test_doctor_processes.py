"""The doctor asks torch and nvidia-smi, and survives whatever they do."""

import importlib.metadata
import importlib.util
import signal
import subprocess

import pytest

from nin_jax.doctor import packages, processes
from nin_jax.doctor.processes import Gpu, Nvidia
from tests.support.doctor_fakes import CUDA_TORCH

TIMES_OUT = subprocess.TimeoutExpired("torch", 120.0)


@pytest.fixture
def torch_says(monkeypatch, tmp_path):
    """Installs a torch that is these lines of Python."""

    def install(code: str) -> None:
        (tmp_path / "torch.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
        monkeypatch.setattr(packages, "installed_version", lambda package: "9.9")

    return install


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (
            "raise ImportError('libcudart.so.13: cannot open\\nmore')",
            "ImportError: libcudart.so.13",
        ),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise AssertionError", "AssertionError"),
        ("import os; os.abort()", "SIGABRT"),
        ("import os; os._exit(4)", "exit code 4"),
        ("import os; os._exit(0)", "ended the process"),
        ("print('{')", "AttributeError"),
    ],
)
def test_a_torch_that_is_broken_costs_nothing_but_a_line(torch_says, code, error):
    torch_says(code)
    torch = processes.read_torch()
    assert torch is not None
    assert torch.version == "9.9"
    assert error in torch.error
    assert "more" not in torch.error


def test_a_torch_that_hangs(torch_says, monkeypatch):
    torch_says("")

    def hang(command: list[str]) -> None:
        raise TIMES_OUT

    monkeypatch.setattr(processes, "_run", hang)
    torch = processes.read_torch()
    assert torch is not None
    assert "timed out" in torch.error


def test_torch_tells_its_libraries(torch_says):
    torch_says(
        "from types import SimpleNamespace as S\n"
        "print('hello')\n"
        "__version__, version = '2.13.0', S(cuda='13.0')\n"
        "backends = S(cudnn=S(version=lambda: 91002, allow_tf32=True))\n"
        "get_float32_matmul_precision = lambda: 'highest'\n"
    )
    assert processes.read_torch() == CUDA_TORCH


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_the_installed_torch_answers():
    torch = processes.read_torch()
    assert torch is not None
    assert torch.error == ""
    assert torch.version is not None
    assert torch.version.startswith(importlib.metadata.version("torch"))  # "2.13.0" of 2.13.0+cu130
    assert torch.matmul_precision == "highest"
    assert torch.cudnn_tf32 is True


def smi(code: int, out: str, err: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess(["nvidia-smi"], code, out, err)


def test_nvidia_smi_is_read():
    lines = "NVIDIA H100, 80GB, 580.65.06, 71680, 81920\nGB10, 580.95, [N/A], [N/A]\n"
    first, second = processes.parse_nvidia(smi(0, lines)).gpus
    assert first == Gpu("NVIDIA H100, 80GB", "580.65.06", 70 * 2**30, 80 * 2**30)
    assert second == Gpu("GB10", "580.95", None, None)
    assert processes.parse_nvidia(smi(0, "")) == Nvidia()
    assert (
        processes.parse_nvidia(smi(0, "No devices were found\n")).error == "No devices were found"
    )
    assert (
        processes.parse_nvidia(smi(9, "\nfailed, so, and, so\nmore")).error == "failed, so, and, so"
    )
    assert processes.parse_nvidia(smi(9, "", "no library\n")).error == "no library"
    assert processes.parse_nvidia(smi(-signal.SIGSEGV, "")).error == "SIGSEGV"


def test_nvidia_smi_is_asked(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert processes.read_nvidia() is None
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'H100, 580.1, 1, 2'\n")
    program.chmod(0o755)
    assert processes.read_nvidia() == Nvidia((Gpu("H100", "580.1", 2**20, 2 * 2**20),))
    program.write_text("#!/no/such/shell\n")
    broken = processes.read_nvidia()
    assert broken is not None
    assert "FileNotFoundError" in broken.error
