"""Memory of one contender in a process of its own: python -m benchmarks.speed.probe JSON.

Only the contender's own framework is imported.
"""

import ctypes
import gc
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.speed.work import OURS, TORCH_WITH_GRADIENTS, Call, Row, Work

ROOT = Path(__file__).resolve().parent.parent.parent  # benchmarks/ is not installed
STEPS = 3
# glibc returns large freed blocks to the system. Its limit for "large" starts at 128 KiB and rises
# while the process runs. Here the limit is fixed: memory that glibc kept would hide how much a
# later step needs.
GLIBC = {"MALLOC_MMAP_THRESHOLD_": str(128 * 1024)}


def measure(work: Work, contender: str) -> Row:
    """Run the probe in a fresh process.

    Returns:
        A row: peak_resident_bytes of the process; before_steps_bytes, resident between two steps
        (libraries, network and data); steps_bytes, the growth within a step; on a GPU also
        peak_device_bytes. Values that the system does not report are missing. If the process
        fails, only an "error".
    """
    return answer("benchmarks.speed.probe", {"work": asdict(work), "contender": contender}, GLIBC)


def answer(module: str, request: dict[str, Any], environment: dict[str, str]) -> Any:
    """Run ``python -m module JSON`` and parse the last line that it prints as JSON.

    Args:
        module: what to run.
        request: its argument.
        environment: variables to add to those of this process.

    Returns:
        The parsed line, or ``{"error": ...}`` if the process fails.
    """
    command, paths = command_of(module, request)
    environment = paths | environment
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    return {"error": failure(done.returncode, done.stderr)}


def command_of(module: str, request: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
    """Return the command ``python -m module JSON`` and the environment in which it is found."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", module, json.dumps(request)]
    return command, os.environ | {"PYTHONPATH": paths}


def failure(code: int, errors: str) -> str:
    """Return why a process has failed, from its exit code and what it printed on standard error."""
    if code < 0:
        return f"killed by signal {-code}; not enough memory?"
    lines = errors.strip().splitlines()
    return lines[-1] if lines else f"exit code {code}"


def probe(work: Work, contender: str) -> dict[str, int]:
    """Build the contender, run a few steps in this process, and return the row of `measure`."""
    call, device_peak = _ours(work) if contender == OURS else _torch(work, contender)
    call()  # the first step compiles, and loads library code that stays
    built = peak_resident()
    before = reset_peak()
    for _ in range(STEPS):
        call()
    peak = peak_resident()
    row = {"peak_resident_bytes": max(built, peak)}
    if before is not None:
        row["before_steps_bytes"] = before
        row["steps_bytes"] = peak - before
    if (on_device := device_peak()) is not None:
        row["peak_device_bytes"] = on_device
    return row


def reset_peak() -> int | None:
    """Return free memory to the system and reset this process's peak.

    Returns:
        The bytes resident now, or None where the system cannot do this.
    """
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # glibc: blocks left by compilation would hide growth
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return None
    return peak_resident()


def peak_resident() -> int:
    """Return the peak resident bytes of this process, without its parent.

    On Linux ru_maxrss starts with that of the parent process, so VmHWM is read instead.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # macOS counts bytes


def _ours(work: Work) -> tuple[Call, Callable[[], int | None]]:
    import jax

    from benchmarks.speed.ours import nin_jax_call

    stats = jax.devices()[0].memory_stats
    return nin_jax_call(work), lambda: (stats() or {}).get("peak_bytes_in_use")


def _torch(work: Work, contender: str) -> tuple[Call, Callable[[], int | None]]:
    import torch

    from benchmarks.speed.pytorch import predict_with_gradients, rivals

    def peak() -> int | None:
        return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None

    calls = rivals(work) | {TORCH_WITH_GRADIENTS: lambda: predict_with_gradients(work)}
    return calls[contender](), peak


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    print(json.dumps(probe(Work(**asked["work"]), asked["contender"])))
