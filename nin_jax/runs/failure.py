"""What a run leaves behind, and says, when its numbers or its memory give out."""

import math
import shutil
from pathlib import Path
from typing import Any

from nin_jax.runs import manifest, workdir
from nin_jax.runs.preparation import Run, epoch_order
from nin_jax.runs.progress import NotFinite


def batch_of(run: Run, step: int) -> list[int]:
    """Which training images made the batch of a step, counted from 1."""
    epoch, row = divmod(step - 1, run.steps_per_epoch)
    indices = epoch_order(run, epoch)[row]
    return indices[indices >= 0].tolist()


def write_nonfinite(folder: Path, run: Run, found: NotFinite, indices: list[int]) -> str | None:
    """Keeps what there is to know of a step that is not finite: ``nonfinite/STEP/``.

    Returns:
        The folder with ``report.json`` (step, loss, norm of the gradient, rate, and the indices of
        the batch's training images) and a copy of ``metrics.jsonl``; None if it cannot be written.
    """
    target = folder / "nonfinite" / f"{found.step:08d}"
    report: dict[str, Any] = {
        "step": found.step,
        "epoch": (found.step - 1) // run.steps_per_epoch + 1,
        "loss": _plain(found.loss),
        "gradient_norm": _plain(found.gradient_norm),
        "learning_rate": found.learning_rate,
        "batch_indices": indices,
    }
    try:
        target.mkdir(parents=True, exist_ok=True)
        manifest.write_json(target / "report.json", report)
        shutil.copyfile(folder / workdir.METRICS, target / workdir.METRICS)
    except OSError:
        return None
    return str(target)


def _plain(number: float) -> float | str:
    """JSON has no infinity and no NaN; their names have to do."""
    return number if math.isfinite(number) else str(number)


def nonfinite_text(found: NotFinite, folder: str | None) -> str:
    """The line for the user."""
    kept = f"the batch is in {folder}" if folder else "the batch could not be written down"
    if math.isfinite(found.loss):
        what = f"the gradient's norm is {found.gradient_norm}"
    else:
        what = f"the loss is {found.loss}"
    return (
        f"{what} at step {found.step}: lower --lr (now {found.learning_rate:g}), clip the gradient "
        "with --clip-norm 1, or leave such steps out with --skip-nonfinite; the checkpoints are "
        f"from before, {kept}"
    )


def is_out_of_memory(error: Exception) -> bool:
    """Whether XLA's error is about memory."""
    text = str(error)
    return "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower()


def out_of_memory_text(batch_size: int, micro_batch_size: int) -> str:
    """The line for the user: what was too much, and what to try."""
    if micro_batch_size == 1:
        remedy = "a smaller --image-size or --variant"
    else:
        remedy = f"--micro-batch-size {max(1, micro_batch_size // 2)}"
    return (
        f"the device is out of memory with --batch-size {batch_size}, worked off "
        f"{micro_batch_size} images at a time: try {remedy}"
    )
