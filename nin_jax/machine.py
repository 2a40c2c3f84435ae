"""What this machine says about itself: versions, devices, libraries, memory. Read, not judged.

Nothing here writes, and nothing fails: what cannot be known is None.
"""

import importlib.metadata
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import platformdirs
from packaging.requirements import Requirement

from nin_jax import record

VersionOf = Callable[[str], str | None]

TIMEOUT_S = 120.0  # for other programs; a first import of torch from a slow disk takes a minute
PREALLOCATE = "XLA_PYTHON_CLIENT_PREALLOCATE"

# torch answers from a process of its own: one that crashes takes only that process along.
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
class Devices:
    """What JAX computes on, or why it does not."""

    platform: str | None
    name: str = ""
    error: str = ""


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU as its driver sees it; memory in bytes, None where it does not tell."""

    name: str
    driver: str
    free_bytes: int | None
    total_bytes: int | None


@dataclass(frozen=True)
class Nvidia:
    """All GPUs, or why ``nvidia-smi`` names none."""

    gpus: tuple[Gpu, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Torch:
    """The installed torch; ``error`` is the first line of why it cannot be imported.

    Attributes:
        version: such as "2.13.0+cpu".
        cuda: the CUDA it was built for, None for a build without.
        cudnn: as ``torch.backends.cudnn.version()`` counts, 91002 for 9.10.2.
        matmul_precision: of ``torch.get_float32_matmul_precision()``.
        cudnn_tf32: whether cuDNN may round to TF32.
    """

    version: str | None = None
    cuda: str | None = None
    cudnn: int | None = None
    matmul_precision: str | None = None
    cudnn_tf32: bool | None = None
    error: str = ""


@dataclass(frozen=True)
class Libraries:
    """The CUDA and cuDNN versions that a framework loads; None where they cannot be known."""

    cuda: str | None
    cudnn: str | None


def installed_version(package: str) -> str | None:
    """The version of an installed package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def read_requirements(package: str, extra: str = "") -> list[Requirement]:
    """What an installed package needs here, with what its extra adds."""
    try:
        needed = map(Requirement, importlib.metadata.requires(package) or [])
    except importlib.metadata.PackageNotFoundError:
        return []
    return [n for n in needed if n.marker is None or n.marker.evaluate({"extra": extra})]


def read_plugin(version_of: VersionOf) -> int | None:
    """The major CUDA version that JAX's plugin is for, or None without a plugin."""
    # JAX looks for them in this order too.
    return next((major for major in (13, 12) if version_of(f"jax-cuda{major}-plugin")), None)


def read_torch() -> Torch | None:
    """The installed torch, or None; it is imported in a process of its own."""
    if importlib.util.find_spec("torch") is None:
        return None
    version, command = installed_version("torch"), [sys.executable, "-P", "-c", ASK_TORCH]
    try:
        done = _run(command)
        if done.returncode:
            return Torch(version, error=f"importing it ended by {_ending(done)}")
        return Torch(**({"version": version} | json.loads(done.stdout.splitlines()[-1])))
    except (OSError, subprocess.SubprocessError) as error:
        return Torch(version, error=_first_line(error))
    except (ValueError, IndexError):
        return Torch(version, error="importing it ended the process")


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S
    )


def _ending(done: subprocess.CompletedProcess[str]) -> str:
    """How a process that failed ended, in words."""
    if done.returncode < 0:
        return signal.Signals(-done.returncode).name
    return f"exit code {done.returncode}"


def _first_line(error: BaseException) -> str:
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])


def read_devices() -> Devices:
    """JAX's devices; where this is the first use of them, without taking their memory."""
    before = os.environ.get(PREALLOCATE)
    os.environ[PREALLOCATE] = "false"
    try:
        return Devices(jax.devices()[0].platform, record.device_name())
    except Exception as error:  # a plugin raises what it likes
        return Devices(None, error=_first_line(error))
    finally:
        del os.environ[PREALLOCATE]
        if before is not None:
            os.environ[PREALLOCATE] = before


def read_nvidia() -> Nvidia | None:
    """The GPUs that ``nvidia-smi`` names; None where there is no such program."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = "--query-gpu=name,driver_version,memory.free,memory.total"
    command = [program, query, "--format=csv,noheader,nounits"]
    try:
        return parse_nvidia(_run(command))
    except (OSError, subprocess.SubprocessError) as error:
        return Nvidia(error=_first_line(error))


def parse_nvidia(done: subprocess.CompletedProcess[str]) -> Nvidia:
    """What ``nvidia-smi`` answered: a line for each GPU, memory in MiB."""
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    if done.returncode:
        said = [*lines, *done.stderr.splitlines(), _ending(done)]
        return Nvidia(error=said[0].strip())
    gpus = []
    for line in lines:
        if line.count(",") < 3:
            return Nvidia(error=line.strip())
        name, driver, free, total = (part.strip() for part in line.rsplit(",", 3))
        gpus.append(Gpu(name, driver, _mib(free), _mib(total)))
    return Nvidia(tuple(gpus))


def _mib(text: str) -> int | None:
    return int(text) * 2**20 if text.isdigit() else None  # "[N/A]" where memory is the host's


def jax_libraries(plugin: int | None, version_of: VersionOf) -> Libraries | None:
    """What JAX loads, by the wheels installed for it; None without a plugin."""
    if plugin is None:
        return None
    runtime = version_of(f"nvidia-cuda-runtime-cu{plugin}") or version_of("nvidia-cuda-runtime")
    if runtime is None or not runtime.startswith(f"{plugin}."):
        runtime = str(plugin)  # the plugin's name says that much
    return Libraries(runtime, version_of(f"nvidia-cudnn-cu{plugin}"))


def torch_libraries(torch: Torch | None) -> Libraries | None:
    """What torch loads; None without torch, or with a build for CPUs."""
    if torch is None or (torch.cuda is None and not torch.error):
        return None
    return Libraries(torch.cuda, None if torch.cudnn is None else cudnn_text(torch.cudnn))


def cudnn_text(version: int) -> str:
    """cuDNN's number as people write it.

    >>> cudnn_text(91002), cudnn_text(8907)
    ('9.10.2', '8.9.7')
    """
    thousands = 10_000 if version >= 90_000 else 1_000
    return f"{version // thousands}.{version % thousands // 100}.{version % 100}"


def jax_setting(name: str) -> Any:
    """One of JAX's settings, of which type checkers are not told."""
    return getattr(jax.config, name)


def read_cache() -> tuple[str | None, int | None, int | None]:
    """The cache's folder, None if it is off; its files, and their bytes, None if not known."""
    if not jax_setting("jax_enable_compilation_cache"):
        return None, None, None
    given = jax_setting("jax_compilation_cache_dir")
    folder = given or str(platformdirs.user_cache_path("nin_jax") / "xla")
    return folder, *_files_and_bytes(folder)


def _files_and_bytes(folder: str) -> tuple[int | None, int | None]:
    if "://" in folder:
        return None, None

    def fail(error: OSError) -> None:
        raise error

    try:
        if not os.path.exists(folder):
            return 0, 0
        paths = [
            os.path.join(at, name)
            for at, _, names in os.walk(folder, onerror=fail)
            for name in names
        ]
        return len(paths), sum(os.lstat(path).st_size for path in paths)
    except OSError:
        return None, None


def read_available_memory(path: Path = Path("/proc/meminfo")) -> int | None:
    """Host memory that a new process can have, in bytes; None where Linux does not tell."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    values = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(values[0]) * 1024 if values else None


def read_free_disk(folder: Path) -> int | None:
    """Free bytes where a folder is or would be, or None."""
    try:
        there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
        return shutil.disk_usage(there).free
    except OSError:
        return None
