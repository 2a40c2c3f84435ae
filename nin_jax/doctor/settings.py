"""Whether JAX is set as was meant: its share of a GPU, its precision, its compilation cache."""

from collections.abc import Mapping
from pathlib import Path

from nin_jax.doctor.check import Check, folder_fault, size
from nin_jax.doctor.machine import PREALLOCATE
from nin_jax.doctor.processes import Torch
from nin_jax.tables import UNKNOWN

LARGE_CACHE_BYTES = 10 * 2**30
FRACTIONS = ("XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_CLIENT_MEM_FRACTION")  # old name, new name
# What JAX may round to TF32 on a GPU; it rounds also where nothing is set.
TF32_PRECISIONS = (None, "default", "high", "tensorfloat32", "TF32_TF32_F32")


def preallocation_check(environ: Mapping[str, str], on_gpu: bool, torch: Torch | None) -> Check:
    """How much of a GPU's memory JAX takes at its start, and whether it reads what was meant."""
    given = {name: environ[name] for name in (PREALLOCATE, *FRACTIONS) if environ.get(name)}
    fractions = [given[name] for name in FRACTIONS if name in given]
    share = _share((fractions or ["0.75"])[0])
    off = given.get(PREALLOCATE) in ("false", "False", "0")
    amount = f"{share} of a GPU's memory" if share else "a share that cannot be read"
    settings = ", ".join(f"{name}={value}" for name, value in given.items()) or "the default"
    found = f"{'off, up to' if off else 'on,'} {amount} ({settings})"
    if not on_gpu:
        found += "; no GPU in use"
    advice = ""
    if len(fractions) == 2:
        advice = f"JAX refuses both fractions: unset {FRACTIONS[0]}"
    elif share is None:
        advice = f"set {FRACTIONS[0]} to a number above 0 and up to 1"
    elif not off and given.get(PREALLOCATE, "true") not in ("true", "True", "1"):
        advice = f"JAX takes {given[PREALLOCATE]!r} for true: set {PREALLOCATE} to true or false"
    elif on_gpu and not off and torch is not None and torch.cuda:
        advice = f"torch in the same process gets the rest: set {PREALLOCATE}=false to compare them"
    return Check("JAX's share", found, "warning" if advice else "ok", advice)


def _share(text: str) -> str | None:
    """A fraction as a percentage, or None if it is none."""
    try:
        fraction = float(text)
    except ValueError:
        return None
    return f"{100 * fraction:g}%" if 0 < fraction <= 1 else None


def precision_checks(
    precision: str | None, environ: Mapping[str, str], on_gpu: bool, torch: Torch | None
) -> list[Check]:
    """To how many bits float32 products are rounded, and whether JAX and torch agree."""
    return [
        _jax_precision_check(precision, on_gpu),
        _override_check(environ.get("NVIDIA_TF32_OVERRIDE")),
        _torch_precision_check(torch, precision in TF32_PRECISIONS, on_gpu),
    ]


def _jax_precision_check(precision: str | None, on_gpu: bool) -> Check:
    name = "jax_default_matmul_precision"
    found = precision or "not set"
    if precision in TF32_PRECISIONS:
        found += ": TF32 on this GPU, if it has it" if on_gpu else ": float32 on a CPU"
    low = (precision or "").lower()
    exact_enough = low.endswith(("_x3", "_x6", "_x9"))  # the sum of several rounded products
    if low.startswith(("bfloat16", "bf16", "f16", "any_f8")) and not exact_enough:
        advice = "float32 products lose most of their digits: set float32, or nothing"
        return Check(name, found, "warning", advice)
    return Check(name, found)


def _override_check(override: str | None) -> Check:
    name = "NVIDIA_TF32_OVERRIDE"
    if override in (None, "0"):
        return Check(name, "not set" if override is None else "0: no TF32 in NVIDIA's libraries")
    return Check(name, override, "warning", "0 turns TF32 off in NVIDIA's libraries; else unset it")


def _torch_precision_check(torch: Torch | None, jax_rounds: bool, on_gpu: bool) -> Check:
    if torch is None:
        return Check("torch TF32", "torch is not installed")
    if torch.matmul_precision is None:
        return Check("torch TF32", UNKNOWN)
    tf32 = {True: "on", False: "off", None: UNKNOWN}[torch.cudnn_tf32]
    found = f"matmul precision {torch.matmul_precision}, in cuDNN {tf32}"
    torch_rounds = torch.matmul_precision != "highest"
    if on_gpu and torch.cuda and torch_rounds != jax_rounds:
        advice = (
            f"{'JAX' if jax_rounds else 'torch'} alone rounds matrix products to TF32: set "
            "jax_default_matmul_precision=highest or torch.set_float32_matmul_precision('high') "
            "to compare the two"
        )
        return Check("torch TF32", found, "warning", advice)
    return Check("torch TF32", found)


def cache_check(folder: str | None, files: int | None, size_bytes: int | None) -> Check:
    """Whether compiled programs can be kept, and have not become too many."""
    if folder is None:
        advice = "unset JAX_ENABLE_COMPILATION_CACHE for a quick next start"
        return Check("folder", "off", "ok", advice)
    count = UNKNOWN if files is None else f"{files:,} files"
    found = f"{folder}, {count}, {size(size_bytes)}"
    if "://" in folder:
        return Check("folder", found)
    fault = folder_fault("cache folder", Path(folder))
    if fault:
        advice = "every run compiles anew: name another with JAX_COMPILATION_CACHE_DIR"
        return Check("folder", fault, "warning", advice)
    if size_bytes is not None and size_bytes > LARGE_CACHE_BYTES:
        return Check("folder", found, "warning", "it only grows: delete it, it is made again")
    return Check("folder", found)
