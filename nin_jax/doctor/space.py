"""Whether a run has room: what it needs of memory and disk, against what is free."""

from pathlib import Path
from typing import Any

from nin_jax.accounting.account import account
from nin_jax.accounting.memory import PaperMemory
from nin_jax.accounting.programs import abstract_model
from nin_jax.doctor.check import Check, folder_fault, size
from nin_jax.doctor.processes import Nvidia
from nin_jax.models.variants import get_variant
from nin_jax.tables import UNKNOWN
from nin_jax.training.device import default_micro_batch_size

# The run that free memory and disk are held against.
VARIANT, BATCH_SIZE, IMAGE_SIZE, RECIPE = "nin15", 128, 224, "modern"
# What a process holds besides a step: libraries, data, programs. benchmarks/results/cpu-memory saw
# 817 MiB in all, of which a step in parts takes 71.
PROCESS_BYTES = 750 * 2**20
CHECKPOINTS = 4  # the two newest, the best, and the one that is being written


def step_memory(batch_size: int = BATCH_SIZE) -> PaperMemory:
    """What a training step has to hold at once, on paper."""
    options: dict[str, Any] = {"image_size": IMAGE_SIZE, "batch_size": batch_size}
    return account(VARIANT, recipe=RECIPE, xla=False, **options).memory["train"].paper


def step_bytes() -> int:
    """What a step holds on JAX's device, in bytes; a CPU works on a few images at a time."""
    model = abstract_model(get_variant(VARIANT), 1, 10, IMAGE_SIZE, "float32", False)
    try:
        at_once = default_micro_batch_size(model)
    except Exception:  # JAX finds no device, as another check says
        at_once = None
    return step_memory(at_once or BATCH_SIZE).total_bytes


def checkpoint_bytes() -> int:
    """What a run's checkpoints take at most: parameters and the optimiser's state, each time."""
    step = step_memory(1)
    return CHECKPOINTS * (step.params_bytes + step.optimizer_bytes)


def memory_check(available: int | None, needed: int) -> Check:
    """Whether the host's memory is enough for a run."""
    found = f"{size(available)} free; training {VARIANT}, batch {BATCH_SIZE}: about {size(needed)}"
    if available is not None and available < needed:
        return Check("host memory", found, "warning", "end other programs, or take a smaller batch")
    return Check("host memory", found)


def gpu_memory_check(nvidia: Nvidia | None, needed: int) -> Check:
    """Whether the first GPU's memory, which JAX takes by default, is enough for a step."""
    if nvidia is None or not nvidia.gpus:
        return Check("GPU memory", UNKNOWN)
    gpu = nvidia.gpus[0]
    found = (
        f"{size(gpu.free_bytes)} free of {size(gpu.total_bytes)}; "
        f"a step of {VARIANT}, batch {BATCH_SIZE}: at least {size(needed)}"
    )
    if gpu.free_bytes is not None and gpu.free_bytes < needed:
        advice = "nvidia-smi names who holds it; or work in parts, with --micro-batch-size"
        return Check("GPU memory", found, "warning", advice)
    return Check("GPU memory", found)


def disk_check(folder: Path, free: int | None, needed: int) -> Check:
    """Whether a run can be written into a folder, and its checkpoints fit."""
    fault = folder_fault("--workdir", folder)
    if fault:
        return Check("disk", fault, "warning", "name another folder with --workdir")
    found = f"{size(free)} free; checkpoints of {VARIANT}: {size(needed)}"
    if free is not None and free < needed:
        return Check("disk", found, "warning", "make room, or name another folder with --workdir")
    return Check("disk", found)
