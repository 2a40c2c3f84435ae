"""What other programs say, each in a process of its own: torch, and NVIDIA's driver.

Nothing fails: what cannot be known is None, or an error in words.
"""

import importlib.util
import json
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass

from nin_jax.doctor import packages
from nin_jax.doctor.packages import Libraries

TIMEOUT_S = 120.0  # a first import of torch from a slow disk takes a minute

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


def read_torch() -> Torch | None:
    """The installed torch, or None; it is imported in a process of its own."""
    if importlib.util.find_spec("torch") is None:
        return None
    version, command = packages.installed_version("torch"), [sys.executable, "-P", "-c", ASK_TORCH]
    try:
        done = _run(command)
        if done.returncode:
            return Torch(version, error=f"importing it ended by {_ending(done)}")
        return Torch(**({"version": version} | json.loads(done.stdout.splitlines()[-1])))
    except (OSError, subprocess.SubprocessError) as error:
        return Torch(version, error=first_line(error))
    except (ValueError, IndexError):
        return Torch(version, error="importing it ended the process")


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
        return Nvidia(error=first_line(error))


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


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S
    )


def _ending(done: subprocess.CompletedProcess[str]) -> str:
    """How a process that failed ended, in words."""
    if done.returncode < 0:
        return signal.Signals(-done.returncode).name
    return f"exit code {done.returncode}"


def first_line(error: BaseException) -> str:
    """An error's type, and the first line of what it says."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
