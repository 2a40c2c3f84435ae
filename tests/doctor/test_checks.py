"""The doctor judges versions, CUDA, devices, drivers and the settings of JAX and torch."""

import os
import platform
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from nin_jax.doctor import checks, facts
from nin_jax.doctor.facts import Devices, Gpu, Libraries, Nvidia, Torch
from tests.support.doctor_fakes import CPU_TORCH, CUDA_TORCH, ONE_GPU, is_ok, warns

OLD, NEW = checks.FRACTIONS


def test_versions_are_compared_with_their_bounds(monkeypatch):
    bounds = [("nin_jax", Requirement(text)) for text in ("jax>=0.10,<0.12", "rich>=14", "tyro>1")]
    versions = {"nin_jax": "0.1.0", "jax": "0.12.1", "rich": "15.0.0rc1"}
    monkeypatch.setattr(facts, "installed_version", versions.get)
    python, own, too_new, fine, missing = checks.version_checks(bounds)
    assert is_ok(python, platform.python_version())
    assert is_ok(own, "0.1.0")
    assert warns(too_new, "0.12.1, but nin_jax needs", "pip install 'jax<0.12,>=0.10'")
    assert is_ok(fine, "15.0.0rc1")
    assert warns(missing, "not installed", "pip install 'tyro>1'")
    assert warns(checks.version_check("jax", Requirement("jaxlib>=0.10"), "unknown"), "unknown")


def test_this_project_is_not_installed(monkeypatch):
    monkeypatch.setattr(facts, "installed_version", {}.get)
    assert warns(checks.version_checks([])[1], "not installed", "pip install -e .")


@pytest.mark.parametrize(
    ("torch", "good", "text"),
    [
        (None, True, "not installed"),
        (CPU_TORCH, True, "2.13.0+cpu"),
        (Torch("2.12.0"), False, "nin_jax[test] needs ==2.13.0"),
        (Torch("2.13.0", error="ImportError: no libcudart"), False, "ImportError: no libcudart"),
        (Torch(None, error="OSError"), False, "version not available; OSError"),
    ],
)
def test_torchs_version(torch, good, text):
    check = checks.torch_check(torch, Requirement("torch==2.13.0"))
    assert (is_ok if good else warns)(check, text)


def test_any_torch_is_fine_without_a_bound():
    assert is_ok(checks.torch_check(Torch("2.12.0"), None), "2.12.0")


JAX_12 = Libraries("12.9.79", "9.10.2.21")


@pytest.mark.parametrize(
    ("of_jax", "of_torch", "cuda_good", "cudnn_good"),
    [
        (None, None, True, True),
        (JAX_12, None, True, True),
        (None, Libraries("13.0", "9.13.0"), True, True),
        (JAX_12, Libraries("12.8", "9.10.1"), True, True),
        (JAX_12, Libraries("12.8", "9.1.0"), True, False),
        (JAX_12, Libraries("12.8", "8.10.2"), True, False),
        (JAX_12, Libraries("13.0", "9.10.2"), False, True),
        (Libraries("12", None), Libraries("12.8", "9.1.0"), True, True),
        (Libraries("12", "9.1.0"), Libraries(None, None), True, True),
    ],
)
def test_libraries_of_jax_and_torch_that_conflict(of_jax, of_torch, cuda_good, cudnn_good):
    cuda, cudnn = checks.cuda_checks(of_jax, of_torch)
    assert is_ok(cuda) if cuda_good else warns(cuda, "same folder", "CUDA 12"), cuda
    assert is_ok(cudnn) if cudnn_good else warns(cudnn, "one cuDNN", "reinstall"), cudnn


def test_unknown_libraries_are_not_available():
    cuda, cudnn = checks.cuda_checks(Libraries("12", None), None)
    assert cuda.found == "JAX 12, torch none"
    assert cudnn.found == "JAX not available, torch none"


@pytest.mark.parametrize(
    ("nvidia", "plugin", "environ", "found"),
    [
        (None, None, {}, "cpu, 2 cores"),
        (Nvidia(), 12, {}, "cpu, 2 cores"),
        (ONE_GPU, 12, {"JAX_PLATFORMS": "cpu"}, "because JAX_PLATFORMS=cpu is set"),
        (ONE_GPU, 12, {"CUDA_VISIBLE_DEVICES": ""}, "because CUDA_VISIBLE_DEVICES= is set"),
    ],
)
def test_jax_uses_the_cpu_for_a_reason(nvidia, plugin, environ, found):
    devices = Devices("cpu", "cpu, 2 cores")
    assert is_ok(checks.devices_check(devices, nvidia, plugin, environ), found)


@pytest.mark.parametrize(
    ("plugin", "environ", "advice"),
    [
        (None, {}, "pip install -e '.[cuda12]'"),
        (12, {"JAX_PLATFORMS": "cuda,cpu"}, "plugin for CUDA 12 failed"),
        (13, {"CUDA_VISIBLE_DEVICES": "0"}, "plugin for CUDA 13 failed"),
    ],
)
def test_jax_does_not_find_the_gpu(plugin, environ, advice):
    check = checks.devices_check(Devices("cpu", "cpu"), ONE_GPU, plugin, environ)
    assert warns(check, "there is a GPU", advice)


def test_jax_finds_the_gpu():
    assert is_ok(checks.devices_check(Devices("gpu", "gpu, 1 x H100"), ONE_GPU, 12, {}), "H100")


def test_jax_finds_no_device():
    devices = Devices(None, error="RuntimeError: no cuda")
    check = checks.devices_check(devices, None, None, {})
    assert warns(check, "RuntimeError: no cuda", "reinstall JAX")
    check = checks.devices_check(devices, None, None, {"JAX_PLATFORMS": "cuda"})
    assert warns(check, "unset JAX_PLATFORMS, now cuda")


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
    assert (is_ok if good else warns)(checks.driver_check(nvidia, plugin), text)


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, "on, 75% of a GPU's memory (the default)"),
        ({facts.PREALLOCATE: "false"}, "off, up to 75%"),
        ({facts.PREALLOCATE: "0", OLD: ".5"}, "off, up to 50%"),
        ({facts.PREALLOCATE: "true", NEW: "0.125"}, "on, 12.5%"),
        ({OLD: ""}, "on, 75%"),
    ],
)
def test_valid_preallocation_settings(environ, found):
    assert is_ok(checks.preallocation_check(environ, True, None), found)
    assert is_ok(checks.preallocation_check(environ, False, CUDA_TORCH), found, "no GPU in use")
    assert is_ok(checks.preallocation_check(environ, True, CPU_TORCH), found)


@pytest.mark.parametrize(
    ("environ", "advice"),
    [
        ({facts.PREALLOCATE: "off"}, "reads 'off' as true"),
        ({OLD: "half"}, "an invalid fraction"),
        ({OLD: "75"}, "up to 1"),
        ({OLD: "1.5"}, "up to 1"),
        ({NEW: "0"}, "above 0"),
        ({NEW: "nan"}, "above 0"),
        ({OLD: "0.5", NEW: "0.5"}, f"unset {OLD}"),
    ],
)
def test_preallocation_settings_that_jax_misreads(environ, advice):
    assert warns(checks.preallocation_check(environ, False, None), advice)


def test_preallocation_leaves_torch_little_memory():
    check = checks.preallocation_check({}, True, CUDA_TORCH)
    assert warns(check, f"{facts.PREALLOCATE}=false")
    assert is_ok(checks.preallocation_check({facts.PREALLOCATE: "false"}, True, CUDA_TORCH))


@pytest.mark.parametrize(
    ("precision", "on_gpu", "good", "found"),
    [
        (None, False, True, "not set: float32 on a CPU"),
        (None, True, True, "not set: TF32"),
        ("high", True, True, "high: TF32"),
        ("highest", True, True, "highest"),
        ("BF16_BF16_F32_X6", True, True, "BF16_BF16_F32_X6"),
        ("bfloat16", False, False, "bfloat16"),
        ("BF16_BF16_F32", True, False, "digits"),
        ("F16_F16_F16", True, False, "digits"),
        ("ANY_F8_ANY_F8_F32", True, False, "digits"),
    ],
)
def test_jaxs_precision(precision, on_gpu, good, found):
    check = checks.precision_checks(precision, {}, on_gpu, None)[0]
    assert (is_ok if good else warns)(check, found)
    assert ("TF32" in check.found) == (on_gpu and precision in (None, "high"))


@pytest.mark.parametrize(
    ("value", "good", "found"),
    [(None, True, "not set"), ("0", True, "no TF32"), ("1", False, "or unset it")],
)
def test_nvidias_override(value, good, found):
    environ = {} if value is None else {"NVIDIA_TF32_OVERRIDE": value}
    check = checks.precision_checks(None, environ, True, None)[1]
    assert (is_ok if good else warns)(check, found)


@pytest.mark.parametrize(
    ("precision", "on_gpu", "torch", "good", "text"),
    [
        (None, True, None, True, "not installed"),
        (None, True, Torch("2.13.0", error="OSError"), True, "not available"),
        (None, False, CUDA_TORCH, True, "highest, in cuDNN on"),
        (None, True, CPU_TORCH, True, "highest, in cuDNN on"),
        ("highest", True, CUDA_TORCH, True, "highest"),
        (None, True, Torch("2.13.0", "13.0", 91002, "high", False), True, "in cuDNN off"),
        (None, True, CUDA_TORCH, False, "only JAX rounds"),
        ("float32", True, Torch("2.13.0", "13.0", 91002, "high"), False, "only torch rounds"),
    ],
)
def test_the_precisions_of_jax_and_torch_differ(precision, on_gpu, torch, good, text):
    check = checks.precision_checks(precision, {}, on_gpu, torch)[2]
    assert (is_ok if good else warns)(check, text)


def test_a_usable_compilation_cache(tmp_path):
    check = checks.cache_check(str(tmp_path), 3, 5 * 2**20)
    assert is_ok(check, str(tmp_path), "3 files, 5.0 MiB")
    assert is_ok(checks.cache_check(str(tmp_path / "new"), 0, 0), "0 files")
    assert is_ok(checks.cache_check(None, None, None), "off")
    assert is_ok(checks.cache_check("gs://a/b", None, None), "not available, not available")


def test_an_unusable_compilation_cache(tmp_path, monkeypatch):
    assert warns(checks.cache_check(str(tmp_path), 9, 11 * 2**30), "11.0 GiB", "delete it")
    (tmp_path / "file").write_text("")
    assert warns(checks.cache_check(str(tmp_path / "file"), 0, 0), "is a file", "CACHE_DIR")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert warns(checks.cache_check(str(tmp_path), 0, 0), "not writable", "CACHE_DIR")

    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    monkeypatch.setattr(Path, "is_dir", refuse)
    assert warns(checks.cache_check(str(tmp_path), None, None), "Permission denied")
