"""scripts/doctor.py: every check's good and bad case, on machines that are made up."""

import importlib.metadata
import importlib.util
import json
import os
import signal
import subprocess
from pathlib import Path

import jax
import pytest
from packaging.requirements import Requirement
from synthetic_idx import change, fashion, no_network_no_home, write_files

from nin_jax import doctor, idx, machine
from nin_jax.machine import Devices, Gpu, Libraries, Nvidia, Torch

__all__ = ["fashion", "no_network_no_home"]  # fixtures

GPU = Gpu("NVIDIA H100", "580.65.06", 70 * 2**30, 80 * 2**30)
ONE_GPU = Nvidia((GPU,))
CUDA_TORCH = Torch("2.13.0", "13.0", 91002, "highest", True)
CPU_TORCH = Torch("2.13.0+cpu", None, None, "highest", True)
TIMES_OUT = subprocess.TimeoutExpired("torch", 120.0)


def is_ok(check: doctor.Check, *texts: str) -> bool:
    return check.status == "ok" and all(text in check.found + check.advice for text in texts)


def warns(check: doctor.Check, *texts: str) -> bool:
    """It says what is found and what to do, in the words given."""
    said = all(text in f"{check.found} {check.advice}" for text in texts)
    return check.status == "warning" and bool(check.found) and bool(check.advice) and said


# Versions


def test_versions_are_held_against_their_bounds():
    bounds = [("nin_jax", Requirement(text)) for text in ("jax>=0.10,<0.12", "rich>=14", "tyro>1")]
    versions = {"nin_jax": "0.1.0", "jax": "0.12.1", "rich": "15.0.0rc1"}
    python, own, old, fine, missing = doctor.version_checks(bounds, versions.get, "3.11.7")
    assert is_ok(python, "3.11.7")
    assert is_ok(own, "0.1.0")
    assert warns(old, "0.12.1, but nin_jax needs", "pip install 'jax<0.12,>=0.10'")
    assert is_ok(fine, "15.0.0rc1")
    assert warns(missing, "not installed", "pip install 'tyro>1'")


def test_a_project_that_is_not_installed():
    _, own = doctor.version_checks([], {}.get)
    assert warns(own, "pip install -e .")


def test_a_version_that_is_none_is_a_mismatch():
    assert warns(doctor.version_check("jax", Requirement("jaxlib>=0.10"), "unknown"), "unknown")


def test_this_project_and_jax_name_their_bounds(monkeypatch):
    named = {needed.name for who, needed in doctor.read_bounds(None) if who == "nin_jax"}
    assert {"jax", "flax", "rich"} <= named
    assert "torch" not in named
    assert [needed.name for who, needed in doctor.read_bounds(None) if who == "jax"] == ["jaxlib"]
    monkeypatch.setattr(machine, "installed_version", lambda package: "1.0")
    names = [needed.name for who, needed in doctor.read_bounds(12) if who == "jax"]
    assert names == ["jaxlib", "jax-cuda12-plugin"]


def test_jaxs_plugin_bounds_its_cudnn(monkeypatch):
    needs = {
        ("jax-cuda12-plugin", "with-cuda"): [
            Requirement("nvidia-cudnn-cu12>=9.8,<10"),
            Requirement("nvidia-nccl-cu12>=2"),
        ]
    }
    monkeypatch.setattr(machine, "read_requirements", lambda *key: needs.get(key, []))
    monkeypatch.setattr(machine, "installed_version", {"nvidia-cudnn-cu12": "9.1.0.70"}.get)
    ((who, needed),) = doctor.read_bounds(12)
    assert warns(doctor.version_check(who, needed, "9.1.0.70"), "jax-cuda12-plugin needs <10,>=9.8")
    monkeypatch.setattr(machine, "installed_version", {}.get)  # CUDA of the system's
    assert doctor.read_bounds(12) == []


def test_requirements_of_what_is_not_installed():
    assert machine.read_requirements("no-such-package") == []
    assert machine.installed_version("no-such-package") is None


# torch


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
    check = doctor.torch_check(torch, Requirement("torch==2.13.0"))
    assert (is_ok if good else warns)(check, text)


def test_torch_without_a_bound():
    assert is_ok(doctor.torch_check(Torch("1.0"), None), "1.0")


def test_the_tests_own_torch_is_bounded():
    assert str(doctor._torch_bound()).startswith("torch==")


@pytest.fixture
def torch_says(monkeypatch, tmp_path):
    """Installs a torch that is these lines of Python."""

    def install(code: str) -> None:
        (tmp_path / "torch.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
        monkeypatch.setattr(machine, "installed_version", lambda package: "9.9")

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
    torch = machine.read_torch()
    assert torch is not None
    assert torch.version == "9.9"
    assert error in torch.error
    assert "more" not in torch.error


def test_a_torch_that_hangs(torch_says, monkeypatch):
    torch_says("")

    def hang(command: list[str]) -> None:
        raise TIMES_OUT

    monkeypatch.setattr(machine, "_run", hang)
    torch = machine.read_torch()
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
    assert machine.read_torch() == CUDA_TORCH


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_the_installed_torch_answers():
    torch = machine.read_torch()
    assert torch is not None
    assert torch.error == ""
    assert torch.version is not None
    assert torch.version.startswith(importlib.metadata.version("torch"))  # "2.13.0" of 2.13.0+cu130
    assert torch.matmul_precision == "highest"
    assert torch.cudnn_tf32 is True


# Devices


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
    assert is_ok(doctor.devices_check(devices, nvidia, plugin, environ), found)


@pytest.mark.parametrize(
    ("plugin", "environ", "advice"),
    [
        (None, {}, "pip install -e '.[cuda12]'"),
        (12, {"JAX_PLATFORMS": "cuda,cpu"}, "plugin for CUDA 12 failed"),
        (13, {"CUDA_VISIBLE_DEVICES": "0"}, "plugin for CUDA 13 failed"),
    ],
)
def test_a_gpu_that_jax_does_not_find(plugin, environ, advice):
    check = doctor.devices_check(Devices("cpu", "cpu"), ONE_GPU, plugin, environ)
    assert warns(check, "there is a GPU", advice)


def test_a_gpu_that_jax_finds():
    assert is_ok(doctor.devices_check(Devices("gpu", "gpu, 1 x H100"), ONE_GPU, 12, {}), "H100")


def test_no_device_at_all():
    devices = Devices(None, error="RuntimeError: no cuda")
    assert warns(doctor.devices_check(devices, None, None, {}), "RuntimeError: no cuda", "install")
    check = doctor.devices_check(devices, None, None, {"JAX_PLATFORMS": "cuda"})
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
    assert (is_ok if good else warns)(doctor.driver_check(nvidia, plugin), text)


def smi(code: int, out: str, err: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess(["nvidia-smi"], code, out, err)


def test_nvidia_smi_is_read():
    lines = "NVIDIA H100, 80GB, 580.65.06, 71680, 81920\nGB10, 580.95, [N/A], [N/A]\n"
    first, second = machine.parse_nvidia(smi(0, lines)).gpus
    assert first == Gpu("NVIDIA H100, 80GB", "580.65.06", 70 * 2**30, 80 * 2**30)
    assert second == Gpu("GB10", "580.95", None, None)
    assert machine.parse_nvidia(smi(0, "")) == Nvidia()
    assert machine.parse_nvidia(smi(0, "No devices were found\n")).error == "No devices were found"
    assert (
        machine.parse_nvidia(smi(9, "\nfailed, so, and, so\nmore")).error == "failed, so, and, so"
    )
    assert machine.parse_nvidia(smi(9, "", "no library\n")).error == "no library"
    assert machine.parse_nvidia(smi(-signal.SIGSEGV, "")).error == "SIGSEGV"


def test_nvidia_smi_is_asked(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.read_nvidia() is None
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'H100, 580.1, 1, 2'\n")
    program.chmod(0o755)
    assert machine.read_nvidia() == Nvidia((Gpu("H100", "580.1", 2**20, 2 * 2**20),))
    program.write_text("#!/no/such/shell\n")
    broken = machine.read_nvidia()
    assert broken is not None
    assert "FileNotFoundError" in broken.error


# CUDA and cuDNN


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
    cuda, cudnn = doctor.cuda_checks(ours, theirs)
    assert is_ok(cuda) if cuda_good else warns(cuda, "share one folder", "CUDA 12"), cuda
    assert is_ok(cudnn) if cudnn_good else warns(cudnn, "one cuDNN", "anew"), cudnn


def test_what_is_not_known_of_libraries_is_said():
    cuda, cudnn = doctor.cuda_checks(Libraries("12", None), None)
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
    assert machine.read_plugin(wheels.get) == plugin
    assert machine.jax_libraries(plugin, wheels.get) == libraries


def test_torchs_libraries():
    assert machine.torch_libraries(None) is None
    assert machine.torch_libraries(CPU_TORCH) is None
    assert machine.torch_libraries(CUDA_TORCH) == Libraries("13.0", "9.10.2")
    assert machine.torch_libraries(Torch("2.13.0", error="OSError")) == Libraries(None, None)
    assert machine.cudnn_text(8907) == "8.9.7"
    assert machine.cudnn_text(90100) == "9.1.0"


# The environment

OLD, NEW = doctor.FRACTIONS


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
    assert is_ok(doctor.preallocation_check(environ, True, None), found)
    assert is_ok(doctor.preallocation_check(environ, False, CUDA_TORCH), found, "no GPU in use")
    assert is_ok(doctor.preallocation_check(environ, True, CPU_TORCH), found)


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
    assert warns(doctor.preallocation_check(environ, False, None), advice)


def test_preallocation_leaves_torch_little():
    check = doctor.preallocation_check({}, True, CUDA_TORCH)
    assert warns(check, f"{machine.PREALLOCATE}=false")
    assert is_ok(doctor.preallocation_check({machine.PREALLOCATE: "false"}, True, CUDA_TORCH))


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
    check = doctor.precision_checks(precision, {}, on_gpu, None)[0]
    assert (is_ok if good else warns)(check, found)
    assert ("TF32" in check.found) == (on_gpu and precision in (None, "high"))


@pytest.mark.parametrize(
    ("value", "good", "found"),
    [(None, True, "not set"), ("0", True, "no TF32"), ("1", False, "else unset it")],
)
def test_nvidias_override(value, good, found):
    environ = {} if value is None else {"NVIDIA_TF32_OVERRIDE": value}
    assert (is_ok if good else warns)(doctor.precision_checks(None, environ, True, None)[1], found)


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
    check = doctor.precision_checks(precision, {}, on_gpu, torch)[2]
    assert (is_ok if good else warns)(check, text)


# The cache


def test_a_cache_that_can_be_written(tmp_path):
    check = doctor.cache_check(str(tmp_path), 3, 5 * 2**20)
    assert is_ok(check, str(tmp_path), "3 files, 5.0 MiB")
    assert is_ok(doctor.cache_check(str(tmp_path / "new"), 0, 0), "0 files")
    assert is_ok(doctor.cache_check(None, None, None), "off")
    assert is_ok(doctor.cache_check("gs://a/b", None, None), "not available, not available")


def test_a_cache_that_cannot_be_used(tmp_path, monkeypatch):
    assert warns(doctor.cache_check(str(tmp_path), 9, 11 * 2**30), "11.0 GiB", "delete it")
    (tmp_path / "file").write_text("")
    assert warns(doctor.cache_check(str(tmp_path / "file"), 0, 0), "is a file", "CACHE_DIR")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert warns(doctor.cache_check(str(tmp_path), 0, 0), "not writable", "CACHE_DIR")


def test_a_cache_that_cannot_even_be_seen(tmp_path, monkeypatch):
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    assert warns(doctor.cache_check(str(tmp_path), None, None), "Permission denied")
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


# Data


def by_name(checks: list[doctor.Check]) -> dict[str, doctor.Check]:
    return {check.name: check for check in checks}


@pytest.mark.usefixtures("no_network_no_home")
def test_data_that_are_good(fashion, tmp_path, monkeypatch):
    write_files(tmp_path / "data" / "fashion-mnist", fashion)
    checks = by_name(doctor.data_checks(tmp_path / "data"))
    assert list(checks) == ["folder", *idx.IDX_SETS]
    assert is_ok(checks["folder"], str(tmp_path / "data"))
    assert is_ok(checks["fashion_mnist"], "official MD5s", str(tmp_path / "data" / "fashion-mnist"))
    assert is_ok(checks["mnist"], "not found", idx.IDX_SETS["mnist"].url)
    monkeypatch.setenv("NIN_DATA_DIR", str(tmp_path / "data"))
    assert by_name(doctor.data_checks(None)) == checks
    write_files(idx.user_folder() / "fashion-mnist", fashion)
    monkeypatch.delenv("NIN_DATA_DIR")
    found = by_name(doctor.data_checks(None))["fashion_mnist"]
    assert is_ok(found, str(idx.user_folder()))


@pytest.mark.usefixtures("no_network_no_home")
def test_files_of_one_set_are_no_damage_to_another(fashion, tmp_path):
    write_files(tmp_path, fashion)  # where mnist and kmnist are looked for too
    checks = by_name(doctor.data_checks(tmp_path))
    assert is_ok(checks["fashion_mnist"])
    assert is_ok(checks["mnist"], "not found")


@pytest.mark.usefixtures("no_network_no_home")
def test_no_data_yet(tmp_path):
    checks = by_name(doctor.data_checks(None))
    assert all(is_ok(check) for check in checks.values())
    assert is_ok(checks["fashion_mnist"], "not found", "downloads it")
    assert not idx.user_folder().exists()
    given = by_name(doctor.data_checks(tmp_path / "none"))
    assert warns(given["folder"], "is no folder")
    assert warns(given["fashion_mnist"], "not found", idx.IDX_SETS["fashion_mnist"].url)


@pytest.mark.usefixtures("no_network_no_home")
def test_data_that_are_damaged(fashion, tmp_path, monkeypatch):
    first, second, third, fourth = idx.FILE_NAMES
    change(monkeypatch, "mnist", md5={third: idx.IDX_SETS["fashion_mnist"].md5[third]})
    change(monkeypatch, "fashion_mnist", md5=idx.IDX_SETS["fashion_mnist"].md5 | {third: "0" * 32})
    folder = write_files(tmp_path / "fashion-mnist", fashion)
    (folder / first).write_bytes(fashion[first][:-1])
    (folder / second).unlink()
    check = doctor.data_set_check("fashion_mnist", tmp_path, True)
    assert warns(check, f"{first} is damaged, {second} is missing, {third} is MNIST's")
    assert warns(check, idx.IDX_SETS["fashion_mnist"].url)
    assert fourth not in check.found
    check = doctor.data_set_check("fashion_mnist", tmp_path, False)
    assert warns(check, "the next run that needs it fetches it")


def test_states_of_a_file(fashion, tmp_path, monkeypatch):
    path, idx_set = tmp_path / idx.FILE_NAMES[0], idx.IDX_SETS["fashion_mnist"]
    assert doctor.file_state(path, idx_set) == "missing"
    path.write_bytes(fashion[path.name])
    assert doctor.file_state(path, idx_set) == "intact"
    monkeypatch.setattr(idx, "MAX_BYTES", 10)
    assert doctor.file_state(path, idx_set) == "damaged"
    monkeypatch.undo()

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "open", refuse)
    assert doctor.file_state(path, idx_set) == "unreadable"


# Memory and disk


def test_memory_and_disk_that_suffice(tmp_path):
    assert is_ok(doctor.memory_check(2**30, 2**30), "1.0 GiB free", "about 1.0 GiB")
    assert is_ok(doctor.memory_check(None, 2**30), "not available free")
    assert is_ok(doctor.gpu_memory_check(ONE_GPU, 2**30), "70.0 GiB free of 80.0 GiB")
    assert is_ok(doctor.gpu_memory_check(None, 2**30), "not available")
    unknown = Nvidia((Gpu("GB10", "580", None, None),))
    assert is_ok(doctor.gpu_memory_check(unknown, 2**30), "not available free")
    assert is_ok(doctor.disk_check(tmp_path, 2**30, 2**20), "1.0 GiB free", "1.0 MiB")
    assert is_ok(doctor.disk_check(tmp_path, None, 2**20), "not available free")


def test_memory_and_disk_that_do_not(tmp_path, monkeypatch):
    assert warns(doctor.memory_check(2**29, 2**30), "512.0 MiB free", "smaller batch")
    assert warns(doctor.memory_check(0, 1), "0.0 MiB free")
    small = Nvidia((Gpu("H100", "580", 2**20, 2**30), GPU))
    assert warns(doctor.gpu_memory_check(small, 2**21), "1.0 MiB free", "--micro-batch-size")
    assert warns(doctor.disk_check(tmp_path, 0, 1), "0.0 MiB free", "make room")
    file = tmp_path / "file"
    file.write_text("")
    assert warns(doctor.disk_check(file, 2**30, 1), "is a file", "another folder")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert warns(doctor.disk_check(tmp_path, 2**30, 1), "not writable", "another folder")


def test_memory_and_disk_are_read(tmp_path):
    path = tmp_path / "meminfo"
    assert machine.read_available_memory(path) is None
    path.write_text("MemTotal: 9 kB\nMemFree: 5 kB\nMemAvailable:   7 kB\n")
    assert machine.read_available_memory(path) == 7 * 1024
    path.write_text("MemTotal: 9 kB\n")
    assert machine.read_available_memory(path) is None
    there = machine.read_free_disk(tmp_path)
    assert there is not None
    assert there > 0
    assert machine.read_free_disk(tmp_path / "not" / "yet") is not None


def test_what_a_run_needs(monkeypatch):
    params = 4 * 2_225_510  # nin15's, in float32
    assert doctor.checkpoint_bytes() == 4 * 2 * params
    at_once = doctor._step().total_bytes
    assert 2.5 * 2**30 < at_once < 3.5 * 2**30
    assert 3 * params < doctor.step_bytes() < 0.1 * at_once  # a CPU works in parts

    def fail(_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(doctor, "default_micro_batch_size", fail)
    assert doctor.step_bytes() == at_once


# The script


@pytest.fixture
def healthy(monkeypatch, no_network_no_home):
    """No torch, no nvidia-smi, no settings: a machine without a fault."""
    for name in ("JAX_PLATFORMS", "NVIDIA_TF32_OVERRIDE", machine.PREALLOCATE, *doctor.FRACTIONS):
        monkeypatch.delenv(name, raising=False)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: None if name == "torch" else find(name, *more),
    )
    monkeypatch.setattr(machine, "read_nvidia", lambda: None)
    monkeypatch.setattr(machine, "read_available_memory", lambda: 2**34)
    monkeypatch.setattr(machine, "read_free_disk", lambda folder: 2**34)


@pytest.mark.usefixtures("healthy")
def test_a_machine_with_a_gpu_and_both_frameworks(monkeypatch, tmp_path):
    wheels = {"jax-cuda12-plugin": "0.1", "nvidia-cudnn-cu12": "9.8.0.87"}
    version_of = machine.installed_version
    monkeypatch.setattr(machine, "read_nvidia", lambda: ONE_GPU)
    monkeypatch.setattr(machine, "read_devices", lambda: Devices("gpu", "gpu, 1 x NVIDIA H100"))
    monkeypatch.setattr(machine, "read_torch", lambda: CUDA_TORCH)
    monkeypatch.setattr(
        machine, "installed_version", lambda name: wheels.get(name) or version_of(name)
    )
    findings = doctor.examine(None, tmp_path)
    names = {c.name for checks in findings.values() for c in checks if c.status == "warning"}
    assert names == {"jax-cuda12-plugin", "CUDA", "cuDNN", "JAX's share", "torch TF32"}
    memory = by_name(findings["memory and disk"])
    assert is_ok(memory["host memory"], "about 750.0 MiB")  # a step takes none of the host's
    assert is_ok(memory["GPU memory"], "70.0 GiB free", "at least 2.9 GiB")


@pytest.mark.usefixtures("healthy")
def test_a_machine_without_a_gpu_computes_in_the_hosts_memory(tmp_path):
    memory = by_name(doctor.examine(None, tmp_path)["memory and disk"])
    assert doctor.size(doctor.PROCESS_BYTES + doctor.step_bytes()) in memory["host memory"].found


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
    monkeypatch.setattr(machine, "read_nvidia", lambda: ONE_GPU)
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
    assert sum(row.startswith("| versions |") for row in rows) == 1


def test_refuses_what_is_wrong(script):
    for arguments, text in ((["--format", "xml"], "--format"), (["--strickt"], "--strickt")):
        outcome = script("doctor", *arguments)
        assert outcome.code == 2
        assert outcome.err.startswith("error: ")
        assert outcome.err.count("\n") == 1
        assert text in outcome.err
        assert outcome.out == ""
