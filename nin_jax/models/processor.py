"""What Linux says about the processor."""

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


def instructions() -> frozenset[str]:
    """Return the names of the instruction sets: "flags" on x86, "Features" on ARM."""
    return frozenset((info("flags") or info("Features")).split())


def multiplies_bfloat16() -> bool:
    """Return whether XLA's products of bfloat16 are known to be faster than those of float32."""
    return not instructions().isdisjoint({"avx512_bf16", "amx_bf16"})
