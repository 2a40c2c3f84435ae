"""The memory of this process."""

import re
from collections.abc import Callable
from pathlib import Path


def resident() -> tuple[int, int]:
    """Return the resident memory in bytes, now and at its peak since `forget_peak`."""
    status = Path("/proc/self/status").read_text()
    now, peak = (re.search(rf"{name}:\s+(\d+)", status) for name in ("VmRSS", "VmHWM"))
    assert now
    assert peak
    return 1024 * int(now[1]), 1024 * int(peak[1])


def forget_peak() -> bool:
    """Reset the peak; return False if this system cannot (only Linux can)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def growth() -> Callable[[], int]:
    """Return a function that returns the peak growth in bytes since this call; 0 if not known."""
    if not forget_peak():
        return lambda: 0
    before = resident()[0]
    return lambda: resident()[1] - before
