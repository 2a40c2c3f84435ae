"""The doctor on JAX's devices and the GPUs' driver."""

import os

import jax
import pytest

from nin_jax.doctor import machine
from nin_jax.doctor.devices import devices_check, driver_check
from nin_jax.doctor.machine import Devices
from nin_jax.doctor.processes import Gpu, Nvidia
from tests.support.doctor_fakes import ONE_GPU, is_ok, warns


@pytest.mark.parametrize(
    ("nvidia", "plugin", "environ", "found"),
    [
        (None, None, {}, "cpu, 2 cores"),
        (Nvidia(), 12, {}, "cpu, 2 cores"),
        (ONE_GPU, 12, {"JAX_PLATFORMS": "cpu"}, "JAX_PLATFORMS=cpu asks for"),
        (ONE_GPU, 12, {"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES= asks for"),
    ],
)
def test_a_cpu_is_what_jax_should_find(nvidia, plugin, environ, found):
    devices = Devices("cpu", "cpu, 2 cores")
    assert is_ok(devices_check(devices, nvidia, plugin, environ), found)


@pytest.mark.parametrize(
    ("plugin", "environ", "advice"),
    [
        (None, {}, "pip install -e '.[cuda12]'"),
        (12, {"JAX_PLATFORMS": "cuda,cpu"}, "plugin for CUDA 12 failed"),
        (13, {"CUDA_VISIBLE_DEVICES": "0"}, "plugin for CUDA 13 failed"),
    ],
)
def test_a_gpu_that_jax_does_not_find(plugin, environ, advice):
    check = devices_check(Devices("cpu", "cpu"), ONE_GPU, plugin, environ)
    assert warns(check, "there is a GPU", advice)


def test_a_gpu_that_jax_finds():
    assert is_ok(devices_check(Devices("gpu", "gpu, 1 x H100"), ONE_GPU, 12, {}), "H100")


def test_no_device_at_all():
    devices = Devices(None, error="RuntimeError: no cuda")
    assert warns(devices_check(devices, None, None, {}), "RuntimeError: no cuda", "install")
    check = devices_check(devices, None, None, {"JAX_PLATFORMS": "cuda"})
    assert warns(check, "unset JAX_PLATFORMS, now cuda")


def test_jax_fails_and_the_environment_is_as_before(monkeypatch):
    seen = []

    def fail() -> None:
        seen.append(os.environ[machine.PREALLOCATE])
        raise RuntimeError("Unable to initialize backend\nlong story")

    monkeypatch.setattr(jax, "devices", fail)
    monkeypatch.setenv(machine.PREALLOCATE, "true")
    error = "RuntimeError: Unable to initialize backend"
    assert machine.read_devices() == Devices(None, error=error)
    assert os.environ[machine.PREALLOCATE] == "true"
    monkeypatch.delenv(machine.PREALLOCATE)
    machine.read_devices()
    assert machine.PREALLOCATE not in os.environ
    assert seen == ["false", "false"]  # the doctor leaves the GPU's memory to others


@pytest.mark.parametrize(
    ("nvidia", "plugin", "good", "text"),
    [
        (None, None, True, "not available"),
        (Nvidia(), 12, True, "no GPU"),
        (ONE_GPU, 12, True, "580.65.06, NVIDIA H100"),
        (ONE_GPU, 13, True, "580.65.06"),
        (Nvidia((Gpu("K80", "470.82", None, None),)), None, True, "470.82"),
        (Nvidia((Gpu("K80", "470.82", None, None),)), 12, False, "525 or newer"),
        (Nvidia((Gpu("A100", "550.54", None, None),)), 13, False, "580 or newer"),
        (Nvidia(error="couldn't communicate"), 12, False, "couldn't communicate"),
    ],
)
def test_the_driver(nvidia, plugin, good, text):
    assert (is_ok if good else warns)(driver_check(nvidia, plugin), text)
