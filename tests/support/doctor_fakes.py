"""Simulated machines, and helpers that compare a check with what it should say."""

from nin_jax.doctor.checks import Check
from nin_jax.doctor.facts import Gpu, Nvidia, Torch

GPU = Gpu("NVIDIA H100", "580.65.06", 70 * 2**30, 80 * 2**30)
ONE_GPU = Nvidia((GPU,))
CUDA_TORCH = Torch("2.13.0", "13.0", 91002, "highest", True)
CPU_TORCH = Torch("2.13.0+cpu", None, None, "highest", True)


def is_ok(check: Check, *texts: str) -> bool:
    return check.status == "ok" and all(text in check.found + check.advice for text in texts)


def warns(check: Check, *texts: str) -> bool:
    """Return whether the check warns, gives advice, and contains the texts."""
    complete = all(text in f"{check.found} {check.advice}" for text in texts)
    return check.status == "warning" and bool(check.found) and bool(check.advice) and complete


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}
