"""The memory that this process takes."""

import re
from collections.abc import Callable
from pathlib import Path


def resident() -> tuple[int, int]:
    """Bytes of memory that this process has, and the most it had since `forget_peak`."""
    status = Path("/proc/self/status").read_text()
    have, most = (re.search(rf"{name}:\s+(\d+)", status) for name in ("VmRSS", "VmHWM"))
    assert have
    assert most
    return 1024 * int(have[1]), 1024 * int(most[1])


def forget_peak() -> bool:
    """Whether this machine can tell the most memory of one case: Linux can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def growth() -> Callable[[], int]:
    """Tells by how many bytes this process has grown at most since this call."""
    forget_peak()
    before = resident()[0]
    return lambda: resident()[1] - before
