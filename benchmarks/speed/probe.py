"""One contender in a process of its own, for its memory: python -m benchmarks.speed.probe JSON.

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

from benchmarks.speed.work import OURS, TORCH_WITH_GRADIENTS, Call, Work

STEPS = 3
# Blocks of 128 KiB or more go back to the system when they are freed, as glibc has it at first: a
# threshold that rises as it runs would keep some, and hide growth that comes later.
GLIBC = {"MALLOC_MMAP_THRESHOLD_": str(128 * 1024)}


def measure(work: Work, contender: str) -> dict[str, Any]:
    """Runs the probe in a fresh process.

    Returns:
        A row: peak_resident_bytes of the process; before_steps_bytes, which it holds between two
        steps, with its libraries, network and data; steps_bytes, by how much it grows within a
        step; on a GPU also peak_device_bytes. Or the row of an "error". What the system does not
        tell is left out.
    """
    return answer("benchmarks.speed.probe", {"work": asdict(work), "contender": contender}, GLIBC)


ROOT = Path(__file__).resolve().parent.parent.parent  # benchmarks/ is not installed


def answer(module: str, request: dict[str, Any], environment: dict[str, str]) -> Any:
    """What ``python -m module JSON`` prints as JSON on its last line; or the row of an "error".

    Args:
        module: that is run.
        request: its argument.
        environment: what is added to this process's own.
    """
    command = [sys.executable, "-m", module, json.dumps(request)]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": paths} | environment
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    if done.returncode < 0:
        return {"error": f"killed by signal {-done.returncode}; not enough memory?"}
    lines = done.stderr.strip().splitlines()
    return {"error": lines[-1] if lines else f"exit code {done.returncode}"}


def probe(work: Work, contender: str) -> dict[str, int]:
    """Builds the contender and lets it run a few steps, in this process."""
    call, device_peak = _ours(work) if contender == OURS else _torch(work, contender)
    call()  # a first step compiles, and touches library code that stays
    built = _peak_resident()
    before = _forget_peak()
    for _ in range(STEPS):
        call()
    row = {"peak_resident_bytes": max(built, _peak_resident())}
    if before is not None:
        row["before_steps_bytes"] = before
        row["steps_bytes"] = _peak_resident() - before
    if (on_device := device_peak()) is not None:
        row["peak_device_bytes"] = on_device
    return row


def _forget_peak() -> int | None:
    """Returns what is free to the system and starts the peak anew; what is held now, or None."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # glibc's: what compiling left would hide later growth
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return None
    return _peak_resident()


def _peak_resident() -> int:
    """Of this process alone: Linux's ru_maxrss begins with that of the process that started it."""
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
