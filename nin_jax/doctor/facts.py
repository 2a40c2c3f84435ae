"""What the packages, other programs, JAX and the machine report about themselves.

Nothing here judges, writes or raises. An unknown fact is None, or an error in words.
"""

import importlib.metadata
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import platformdirs
from packaging.requirements import Requirement

from nin_jax.runs import environment
from nin_jax.runs.environment import installed_version

PREALLOCATE = "XLA_PYTHON_CLIENT_PREALLOCATE"
TIMEOUT_S = 120.0  # a first import of torch from a slow disk takes a minute

# torch is imported in a separate process, because a broken installation can crash the process.
ASK_TORCH = """
import json
try:
    import torch
    facts = {
        "version": str(torch.__version__),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
    }
except BaseException as error:
    text = str(error).strip().splitlines()
    facts = {"error": ": ".join([type(error).__name__, *text[:1]])}
print()
print(json.dumps(facts))
"""


@dataclass(frozen=True)
class Libraries:
    """The CUDA and cuDNN versions that a framework loads. None means unknown."""

    cuda: str | None
    cudnn: str | None


@dataclass(frozen=True)
class Torch:
    """The installed torch. ``error`` says why it cannot be imported.

    Attributes:
        version: such as "2.13.0+cpu".
        cuda: the CUDA version it was built for, or None for a CPU build.
        cudnn: the number from ``torch.backends.cudnn.version()``, 91002 for 9.10.2.
        matmul_precision: from ``torch.get_float32_matmul_precision()``.
        cudnn_tf32: whether cuDNN may round to TF32.
    """

    version: str | None = None
    cuda: str | None = None
    cudnn: int | None = None
    matmul_precision: str | None = None
    cudnn_tf32: bool | None = None
    error: str = ""


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU as its driver reports it. Memory is in bytes, None if not reported."""

    name: str
    driver: str
    free_bytes: int | None
    total_bytes: int | None


@dataclass(frozen=True)
class Nvidia:
    """All GPUs that ``nvidia-smi`` lists, or its error."""

    gpus: tuple[Gpu, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Devices:
    """The devices that JAX computes on. ``platform`` is None if JAX finds none."""

    platform: str | None
    name: str = ""
    error: str = ""


def read_requirements(package: str, extra: str = "") -> list[Requirement]:
    """Return the requirements of an installed package on this machine, with those of an extra."""
    try:
        required = map(Requirement, importlib.metadata.requires(package) or [])
    except importlib.metadata.PackageNotFoundError:
        return []
    return [r for r in required if r.marker is None or r.marker.evaluate({"extra": extra})]


def read_bounds(plugin: int | None) -> list[tuple[str, Requirement]]:
    """Return pairs (package, requirement): those of nin_jax, and those between parts of JAX."""
    bounds = [("nin_jax", requirement) for requirement in read_requirements("nin_jax")]
    parts = [("jax", "", "jaxlib")]
    if plugin is not None:
        parts.append(("jax", f"cuda{plugin}", f"jax-cuda{plugin}-plugin"))
        # A CUDA installed by the system has no such wheel, so there is nothing to compare.
        if installed_version(f"nvidia-cudnn-cu{plugin}"):
            parts.append((f"jax-cuda{plugin}-plugin", "with-cuda", f"nvidia-cudnn-cu{plugin}"))
    return bounds + [
        (package, requirement)
        for package, extra, name in parts
        for requirement in read_requirements(package, extra)
        if requirement.name == name
    ]


def read_torch_bound() -> Requirement | None:
    """Return the torch version that the parity tests require. None if nin_jax is not installed."""
    required = read_requirements("nin_jax", "test")
    return next((requirement for requirement in required if requirement.name == "torch"), None)


def read_plugin() -> int | None:
    """Return the major CUDA version of JAX's CUDA plugin, or None without a plugin."""
    # JAX looks for the plugins in this order too.
    return next((cuda for cuda in (13, 12) if installed_version(f"jax-cuda{cuda}-plugin")), None)


def jax_libraries(plugin: int | None) -> Libraries | None:
    """Return the libraries that JAX loads, as its wheels name them. None without a plugin."""
    if plugin is None:
        return None
    wheels = (f"nvidia-cuda-runtime-cu{plugin}", "nvidia-cuda-runtime")
    runtime = next(filter(None, map(installed_version, wheels)), "")
    if not runtime.startswith(f"{plugin}."):
        runtime = str(plugin)  # the plugin's name gives the major version
    return Libraries(runtime, installed_version(f"nvidia-cudnn-cu{plugin}"))


def read_torch() -> Torch | None:
    """Import torch in a separate process and return its settings. None if it is not installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    version = installed_version("torch")
    try:
        done = _run([sys.executable, "-P", "-c", ASK_TORCH])
        if done.returncode:
            return Torch(version, error=f"the import failed with {_exit_status(done)}")
        return Torch(**({"version": version} | json.loads(done.stdout.splitlines()[-1])))
    except (OSError, subprocess.SubprocessError) as error:
        return Torch(version, error=_first_line(error))
    except (ValueError, IndexError):
        return Torch(version, error="the import ended the process")


def torch_libraries(torch: Torch | None) -> Libraries | None:
    """Return the libraries that torch loads. None without torch, or for a CPU build."""
    if torch is None or (torch.cuda is None and not torch.error):
        return None
    return Libraries(torch.cuda, None if torch.cudnn is None else format_cudnn(torch.cudnn))


def format_cudnn(version: int) -> str:
    """Format cuDNN's version number.

    >>> format_cudnn(91002), format_cudnn(8907)
    ('9.10.2', '8.9.7')
    """
    thousands = 10_000 if version >= 90_000 else 1_000
    return f"{version // thousands}.{version % thousands // 100}.{version % 100}"


def read_nvidia() -> Nvidia | None:
    """Ask ``nvidia-smi`` for the GPUs. Return None if the program is not installed."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = "--query-gpu=name,driver_version,memory.free,memory.total"
    try:
        return parse_nvidia(_run([program, query, "--format=csv,noheader,nounits"]))
    except (OSError, subprocess.SubprocessError) as error:
        return Nvidia(error=_first_line(error))


def parse_nvidia(done: subprocess.CompletedProcess[str]) -> Nvidia:
    """Parse the output of ``nvidia-smi``: one line for each GPU, memory in MiB."""
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    if done.returncode:
        messages = [*lines, *done.stderr.splitlines(), _exit_status(done)]
        return Nvidia(error=messages[0].strip())
    gpus = []
    for line in lines:
        if line.count(",") < 3:
            return Nvidia(error=line.strip())
        name, driver, free, total = (part.strip() for part in line.rsplit(",", 3))
        gpus.append(Gpu(name, driver, _mib_to_bytes(free), _mib_to_bytes(total)))
    return Nvidia(tuple(gpus))


def _mib_to_bytes(text: str) -> int | None:
    return int(text) * 2**20 if text.isdigit() else None  # "[N/A]" if the GPU shares host memory


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S
    )


def _exit_status(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return signal.Signals(-done.returncode).name
    return f"exit code {done.returncode}"


def _first_line(error: BaseException) -> str:
    """Return an error's type and the first line of its message."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])


def read_devices() -> Devices:
    """Return the devices that JAX uses.

    Preallocation is off during this call, so that the doctor takes no GPU memory.
    """
    before = os.environ.get(PREALLOCATE)
    os.environ[PREALLOCATE] = "false"
    try:
        return Devices(jax.devices()[0].platform, environment.device_name())
    except Exception as error:  # a plugin can raise anything
        return Devices(None, error=_first_line(error))
    finally:
        del os.environ[PREALLOCATE]
        if before is not None:
            os.environ[PREALLOCATE] = before


def jax_setting(name: str) -> Any:
    """Return one of JAX's settings. Type checkers do not know these attributes."""
    return getattr(jax.config, name)


def read_cache() -> tuple[str | None, int | None, int | None]:
    """Return the compilation cache's folder, its number of files and its size in bytes.

    The folder is None if the cache is off. Files and bytes are None if they are unknown.
    """
    if not jax_setting("jax_enable_compilation_cache"):
        return None, None, None
    given = jax_setting("jax_compilation_cache_dir")
    folder = given or str(platformdirs.user_cache_path("nin_jax") / "xla")
    if "://" in folder:
        return folder, None, None

    def fail(error: OSError) -> None:
        raise error

    try:
        tree = os.walk(folder, onerror=fail) if os.path.exists(folder) else []
        paths = [os.path.join(at, name) for at, _, names in tree for name in names]
        return folder, len(paths), sum(os.lstat(path).st_size for path in paths)
    except OSError:
        return folder, None, None


def read_available_memory(path: Path = Path("/proc/meminfo")) -> int | None:
    """Return the bytes of host memory available to a new process. None if Linux does not tell."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    values = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(values[0]) * 1024 if values else None


def read_free_disk(folder: Path) -> int | None:
    """Return the free bytes of the disk that holds a folder, which need not exist, or None."""
    try:
        existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
        return shutil.disk_usage(existing).free
    except OSError:
        return None
