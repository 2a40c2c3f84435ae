"""One contender in a process of its own, for its peak memory: python -m nin_bench.probe JSON.

Only the contender's own framework is imported.
"""

import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path

from nin_bench.work import Call, Work

STEPS = 3


def probe(work: Work, contender: str) -> dict[str, float]:
    """Runs a few steps; peak memory in MiB, of the process and, on a GPU, of the device."""
    call, device_peak = _ours(work) if contender == "nin_jax" else _torch(work, contender)
    for _ in range(STEPS):
        call()
    row = {"peak_resident_mib": round(_peak_resident_kib() / 1024, 1)}
    if (on_device := device_peak()) is not None:
        row["peak_device_mib"] = round(on_device / 2**20, 1)
    return row


def _peak_resident_kib() -> float:
    """Of this process alone: Linux's ru_maxrss begins with that of the process that started it."""
    status = Path("/proc/self/status")
    if status.exists():
        return float(status.read_text().split("VmHWM:")[1].split()[0])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024 if sys.platform == "darwin" else peak  # macOS counts bytes


def _ours(work: Work) -> tuple[Call, Callable[[], int | None]]:
    import jax

    from nin_bench.ours import nin_jax_call

    stats = jax.devices()[0].memory_stats
    return nin_jax_call(work), lambda: (stats() or {}).get("peak_bytes_in_use")


def _torch(work: Work, contender: str) -> tuple[Call, Callable[[], int | None]]:
    import torch

    from nin_bench.pytorch import rivals

    def peak() -> int | None:
        return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None

    return rivals(work)[contender](), peak


if __name__ == "__main__":
    request = json.loads(sys.argv[1])
    print(json.dumps(probe(Work(**request["work"]), request["contender"])))
