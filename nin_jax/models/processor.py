"""What Linux says about the processor."""

from functools import cache
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")


def info(field: str) -> str:
    """Return the first processor's value of a field, or an empty text."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    values = [line.partition(":")[2].strip() for line in lines if line.startswith(field)]
    return values[0] if values else ""


@cache
def multiplies_bfloat16() -> bool:
    """Return whether XLA has kernels for bfloat16 instructions of this processor."""
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(info("flags").split())
