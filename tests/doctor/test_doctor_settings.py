"""The doctor on JAX's settings: preallocation, precision, compilation cache."""

import os
from pathlib import Path

import pytest

from nin_jax.doctor import machine, settings
from nin_jax.doctor.processes import Torch
from tests.support.doctor_fakes import CPU_TORCH, CUDA_TORCH, is_ok, warns

OLD, NEW = settings.FRACTIONS


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, "on, 75% of a GPU's memory (the default)"),
        ({machine.PREALLOCATE: "false"}, "off, up to 75%"),
        ({machine.PREALLOCATE: "0", OLD: ".5"}, "off, up to 50%"),
        ({machine.PREALLOCATE: "true", NEW: "0.125"}, "on, 12.5%"),
        ({OLD: ""}, "on, 75%"),
    ],
)
def test_preallocation_as_it_is_set(environ, found):
    assert is_ok(settings.preallocation_check(environ, True, None), found)
    assert is_ok(settings.preallocation_check(environ, False, CUDA_TORCH), found, "no GPU in use")
    assert is_ok(settings.preallocation_check(environ, True, CPU_TORCH), found)


@pytest.mark.parametrize(
    ("environ", "advice"),
    [
        ({machine.PREALLOCATE: "off"}, "takes 'off' for true"),
        ({OLD: "half"}, "a share that cannot be read"),
        ({OLD: "75"}, "up to 1"),
        ({OLD: "1.5"}, "up to 1"),
        ({NEW: "0"}, "above 0"),
        ({NEW: "nan"}, "above 0"),
        ({OLD: "0.5", NEW: "0.5"}, f"unset {OLD}"),
    ],
)
def test_preallocation_that_jax_takes_otherwise(environ, advice):
    assert warns(settings.preallocation_check(environ, False, None), advice)


def test_preallocation_leaves_torch_little():
    check = settings.preallocation_check({}, True, CUDA_TORCH)
    assert warns(check, f"{machine.PREALLOCATE}=false")
    assert is_ok(settings.preallocation_check({machine.PREALLOCATE: "false"}, True, CUDA_TORCH))


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
    check = settings.precision_checks(precision, {}, on_gpu, None)[0]
    assert (is_ok if good else warns)(check, found)
    assert ("TF32" in check.found) == (on_gpu and precision in (None, "high"))


@pytest.mark.parametrize(
    ("value", "good", "found"),
    [(None, True, "not set"), ("0", True, "no TF32"), ("1", False, "else unset it")],
)
def test_nvidias_override(value, good, found):
    environ = {} if value is None else {"NVIDIA_TF32_OVERRIDE": value}
    assert (is_ok if good else warns)(
        settings.precision_checks(None, environ, True, None)[1], found
    )


@pytest.mark.parametrize(
    ("precision", "on_gpu", "torch", "good", "text"),
    [
        (None, True, None, True, "not installed"),
        (None, True, Torch("2.13.0", error="OSError"), True, "not available"),
        (None, False, CUDA_TORCH, True, "highest, in cuDNN on"),
        (None, True, CPU_TORCH, True, "highest, in cuDNN on"),
        ("highest", True, CUDA_TORCH, True, "highest"),
        (None, True, Torch("2.13.0", "13.0", 91002, "high", False), True, "in cuDNN off"),
        (None, True, CUDA_TORCH, False, "JAX alone rounds"),
        ("float32", True, Torch("2.13.0", "13.0", 91002, "high"), False, "torch alone rounds"),
    ],
)
def test_torchs_precision_against_jaxs(precision, on_gpu, torch, good, text):
    check = settings.precision_checks(precision, {}, on_gpu, torch)[2]
    assert (is_ok if good else warns)(check, text)


def test_a_cache_that_can_be_written(tmp_path):
    check = settings.cache_check(str(tmp_path), 3, 5 * 2**20)
    assert is_ok(check, str(tmp_path), "3 files, 5.0 MiB")
    assert is_ok(settings.cache_check(str(tmp_path / "new"), 0, 0), "0 files")
    assert is_ok(settings.cache_check(None, None, None), "off")
    assert is_ok(settings.cache_check("gs://a/b", None, None), "not available, not available")


def test_a_cache_that_cannot_be_used(tmp_path, monkeypatch):
    assert warns(settings.cache_check(str(tmp_path), 9, 11 * 2**30), "11.0 GiB", "delete it")
    (tmp_path / "file").write_text("")
    assert warns(settings.cache_check(str(tmp_path / "file"), 0, 0), "is a file", "CACHE_DIR")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert warns(settings.cache_check(str(tmp_path), 0, 0), "not writable", "CACHE_DIR")


def test_a_cache_that_cannot_even_be_seen(tmp_path, monkeypatch):
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    monkeypatch.setattr(Path, "is_dir", refuse)
    assert warns(settings.cache_check(str(tmp_path), None, None), "Permission denied")
    assert machine.read_free_disk(tmp_path) is None


def test_the_cache_is_weighed(tmp_path, monkeypatch):
    settings = {"jax_enable_compilation_cache": True, "jax_compilation_cache_dir": str(tmp_path)}
    monkeypatch.setattr(machine, "jax_setting", settings.get)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "one").write_bytes(bytes(1000))
    (tmp_path / "two").write_bytes(bytes(24))
    assert machine.read_cache() == (str(tmp_path), 2, 1024)

    def refuse(*_: object, onerror, **__: object):
        onerror(PermissionError())

    monkeypatch.setattr(os, "walk", refuse)
    assert machine.read_cache() == (str(tmp_path), None, None)
    settings["jax_compilation_cache_dir"] = "gs://a/b"
    assert machine.read_cache() == ("gs://a/b", None, None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    del settings["jax_compilation_cache_dir"]
    folder = machine.read_cache()[0]
    assert folder is not None
    assert folder.endswith("xla")
    settings["jax_enable_compilation_cache"] = False
    assert machine.read_cache() == (None, None, None)
