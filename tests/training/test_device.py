"""The device that JAX uses, and memory that glibc keeps between steps."""

import ctypes
import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import pytest

from nin_jax.training import device

# A thread of its own, as XLA's: glibc maps so large a block anew each time for it.
FAULTS_OF_A_LATER_BLOCK = """
import ctypes, resource, threading
from nin_jax.training.device import keep_freed_memory

if {keep}:
    keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

def blocks():
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        block = libc.malloc(96 * 2**20)
        libc.memset(block, 1, 96 * 2**20)
        libc.free(block)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=blocks)
thread.start()
thread.join()
"""


@pytest.mark.skipif(
    sys.platform != "linux" or os.path.exists(device.NVIDIA_DRIVER), reason="a setting of glibc"
)
def test_freed_memory_is_kept():
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    faults = {}
    for keep in (False, True):
        code = FAULTS_OF_A_LATER_BLOCK.format(keep=keep)
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, check=True, capture_output=True, env=environment)
        faults[keep] = int(done.stdout)
    assert faults[True] < 100 < faults[False]  # 24,576 pages of 4 KiB


def test_settings_of_the_user_stay_and_a_gpu_needs_none(monkeypatch, tmp_path):
    made = []
    library = SimpleNamespace(mallopt=lambda *option: made.append(option))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(device.sys, "platform", "linux")
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    device.keep_freed_memory()
    assert made == []
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_")
    monkeypatch.setattr(device, "NVIDIA_DRIVER", os.devnull)
    device.keep_freed_memory()
    assert made == []
    monkeypatch.setattr(device, "NVIDIA_DRIVER", str(tmp_path / "none"))
    device.keep_freed_memory()
    assert len(made) == 3


@pytest.mark.parametrize(("platform", "library"), [("darwin", None), ("linux", SimpleNamespace())])
def test_other_systems_are_left_alone(monkeypatch, platform, library):
    monkeypatch.setattr(device.sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    device.keep_freed_memory()


def test_auto_undoes_an_earlier_choice_and_keeps_the_users():
    before = jax.config.values["jax_default_device"]
    try:
        device.select_device("cpu")
        assert jax.config.values["jax_default_device"] == jax.local_devices(backend="cpu")[0]
        device.select_device("auto")
        assert jax.config.values["jax_default_device"] is None
        jax.config.update("jax_default_device", "cpu")
        device.select_device("auto")
        assert jax.config.values["jax_default_device"] == "cpu"
        device.select_device("cpu")
        device.select_device("cpu")
        device.select_device("auto")
        assert jax.config.values["jax_default_device"] == "cpu"
    finally:
        jax.config.update("jax_default_device", before)
