"""The doctor on what is installed: versions, torch, CUDA and cuDNN."""

import pytest
from packaging.requirements import Requirement

from nin_jax.doctor import packages, processes, software
from nin_jax.doctor.packages import Libraries
from nin_jax.doctor.processes import Torch
from tests.support.doctor_fakes import CPU_TORCH, CUDA_TORCH, is_ok, warns


def test_versions_are_held_against_their_bounds():
    bounds = [("nin_jax", Requirement(text)) for text in ("jax>=0.10,<0.12", "rich>=14", "tyro>1")]
    versions = {"nin_jax": "0.1.0", "jax": "0.12.1", "rich": "15.0.0rc1"}
    python, own, old, fine, missing = software.version_checks(bounds, versions.get, "3.11.7")
    assert is_ok(python, "3.11.7")
    assert is_ok(own, "0.1.0")
    assert warns(old, "0.12.1, but nin_jax needs", "pip install 'jax<0.12,>=0.10'")
    assert is_ok(fine, "15.0.0rc1")
    assert warns(missing, "not installed", "pip install 'tyro>1'")


def test_a_project_that_is_not_installed():
    _, own = software.version_checks([], {}.get)
    assert warns(own, "pip install -e .")


def test_a_version_that_is_none_is_a_mismatch():
    assert warns(software.version_check("jax", Requirement("jaxlib>=0.10"), "unknown"), "unknown")


def test_this_project_and_jax_name_their_bounds(monkeypatch):
    named = {needed.name for who, needed in software.read_bounds(None) if who == "nin_jax"}
    assert {"jax", "flax", "rich"} <= named
    assert "torch" not in named
    assert [needed.name for who, needed in software.read_bounds(None) if who == "jax"] == ["jaxlib"]
    monkeypatch.setattr(packages, "installed_version", lambda package: "1.0")
    names = [needed.name for who, needed in software.read_bounds(12) if who == "jax"]
    assert names == ["jaxlib", "jax-cuda12-plugin"]


def test_jaxs_plugin_bounds_its_cudnn(monkeypatch):
    needs = {
        ("jax-cuda12-plugin", "with-cuda"): [
            Requirement("nvidia-cudnn-cu12>=9.8,<10"),
            Requirement("nvidia-nccl-cu12>=2"),
        ]
    }
    monkeypatch.setattr(packages, "read_requirements", lambda *key: needs.get(key, []))
    monkeypatch.setattr(packages, "installed_version", {"nvidia-cudnn-cu12": "9.1.0.70"}.get)
    ((who, needed),) = software.read_bounds(12)
    assert warns(
        software.version_check(who, needed, "9.1.0.70"), "jax-cuda12-plugin needs <10,>=9.8"
    )
    monkeypatch.setattr(packages, "installed_version", {}.get)  # CUDA of the system's
    assert software.read_bounds(12) == []


def test_requirements_of_what_is_not_installed():
    assert packages.read_requirements("no-such-package") == []
    assert packages.installed_version("no-such-package") is None


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
def test_torch_is_judged(torch, good, text):
    check = software.torch_check(torch, Requirement("torch==2.13.0"))
    assert (is_ok if good else warns)(check, text)


def test_torch_without_a_bound():
    assert is_ok(software.torch_check(Torch("1.0"), None), "1.0")


def test_the_tests_own_torch_is_bounded():
    assert str(software.torch_bound()).startswith("torch==")


@pytest.mark.parametrize(
    ("ours", "theirs", "cuda_good", "cudnn_good"),
    [
        (None, None, True, True),
        (Libraries("12.9.79", "9.10.2.21"), None, True, True),
        (None, Libraries("13.0", "9.13.0"), True, True),
        (Libraries("12.9.79", "9.10.2.21"), Libraries("12.8", "9.10.1"), True, True),
        (Libraries("12.9.79", "9.10.2.21"), Libraries("12.8", "9.1.0"), True, False),
        (Libraries("12.9.79", "9.10.2.21"), Libraries("12.8", "8.10.2"), True, False),
        (Libraries("12.9.79", "9.10.2.21"), Libraries("13.0", "9.10.2"), False, True),
        (Libraries("12", None), Libraries("12.8", "9.1.0"), True, True),
        (Libraries("12", "9.1.0"), Libraries(None, None), True, True),
    ],
)
def test_clashes_of_jax_and_torch(ours, theirs, cuda_good, cudnn_good):
    cuda, cudnn = software.cuda_checks(ours, theirs)
    assert is_ok(cuda) if cuda_good else warns(cuda, "share one folder", "CUDA 12"), cuda
    assert is_ok(cudnn) if cudnn_good else warns(cudnn, "one cuDNN", "anew"), cudnn


def test_what_is_not_known_of_libraries_is_said():
    cuda, cudnn = software.cuda_checks(Libraries("12", None), None)
    assert cuda.found == "JAX 12, torch none"
    assert cudnn.found == "JAX not available, torch none"


@pytest.mark.parametrize(
    ("wheels", "plugin", "libraries"),
    [
        ({}, None, None),
        ({"jax-cuda12-plugin": "0.10.2"}, 12, Libraries("12", None)),
        (
            {
                "jax-cuda12-plugin": "0.10.2",
                "nvidia-cuda-runtime-cu12": "12.9.79",
                "nvidia-cudnn-cu12": "9.10.2.21",
                "nvidia-cudnn-cu13": "9.13.0.50",
            },
            12,
            Libraries("12.9.79", "9.10.2.21"),
        ),
        (
            {"jax-cuda13-plugin": "0.10.2", "nvidia-cuda-runtime": "13.0.96"},
            13,
            Libraries("13.0.96", None),
        ),
        (  # torch's wheel, for another CUDA
            {"jax-cuda12-plugin": "0.10.2", "nvidia-cuda-runtime": "13.0.96"},
            12,
            Libraries("12", None),
        ),
    ],
)
def test_jaxs_libraries_by_its_wheels(wheels, plugin, libraries):
    assert packages.read_plugin(wheels.get) == plugin
    assert packages.jax_libraries(plugin, wheels.get) == libraries


def test_torchs_libraries():
    assert processes.torch_libraries(None) is None
    assert processes.torch_libraries(CPU_TORCH) is None
    assert processes.torch_libraries(CUDA_TORCH) == Libraries("13.0", "9.10.2")
    assert processes.torch_libraries(Torch("2.13.0", error="OSError")) == Libraries(None, None)
    assert processes.cudnn_text(8907) == "8.9.7"
    assert processes.cudnn_text(90100) == "9.1.0"
