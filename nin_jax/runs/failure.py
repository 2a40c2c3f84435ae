"""What ends training early: a signal, a step that is not finite, too little memory."""

import contextlib
import math
import shlex
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax

from nin_jax.errors import DivergedError, Interrupted, NotFinite, UserError, is_out_of_memory
from nin_jax.runs import manifest, workdir
from nin_jax.runs.agreement import agree
from nin_jax.runs.preparation import Run, epoch_order
from nin_jax.runs.saving import Saver


@contextlib.contextmanager
def handled(saver: Saver) -> Iterator[None]:
    """Save and report what ends the training inside this context.

    Raises:
        Interrupted: a signal was received; a checkpoint is saved.
        DivergedError: a step was not finite; its batch is recorded.
        UserError: memory is too small.
    """
    run = saver.run
    try:
        try:
            with memory_errors(run):
                yield
        except Interrupted as stop:
            saver.recorder.flush()  # may find a step that is not finite
            raise Interrupted(stop.number, _save(saver)) from None
    except NotFinite as found:
        batch = _batch(run, found.step)
        written = agree(partial(_write_report, saver.folder, run, found, batch))
        raise _diverged(found, written) from None


@contextlib.contextmanager
def memory_errors(run: Run) -> Iterator[None]:
    """Turn the error of a device without enough memory into a `UserError` with a remedy."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(_memory_text(run)) from None


def _save(saver: Saver) -> str:
    step, folder = saver.recorder.progress.step, shlex.quote(str(saver.folder))
    if not saver.checkpoint():
        return f"step {step} could not be saved"
    return f"step {step} is saved; continue with --resume --workdir {folder}"


def _batch(run: Run, step: int) -> list[int]:
    """Return the indices of the training images of a step, which is counted from 1."""
    epoch, row = divmod(step - 1, run.steps_per_epoch)
    indices = epoch_order(run, epoch)[row]
    return indices[indices >= 0].tolist()


def _write_report(folder: Path, run: Run, found: NotFinite, batch: list[int]) -> str | None:
    """Write ``nonfinite/STEP/``: ``report.json`` and a copy of ``metrics.jsonl``.

    Returns:
        The folder; None if it cannot be written.
    """
    target = folder / "nonfinite" / f"{found.step:08d}"
    report: dict[str, Any] = {
        "step": found.step,
        "epoch": (found.step - 1) // run.steps_per_epoch + 1,
        "loss": _plain(found.loss),
        "gradient_norm": _plain(found.gradient_norm),
        "learning_rate": found.learning_rate,
        "batch_indices": batch,
    }
    try:
        target.mkdir(parents=True, exist_ok=True)
        manifest.write_json(target / "report.json", report)
        shutil.copyfile(folder / workdir.METRICS, target / workdir.METRICS)
    except OSError:
        return None
    return str(target)


def _plain(number: float) -> float | str:
    """Return a number for JSON, which has no infinity and no NaN: these become text."""
    return number if math.isfinite(number) else str(number)


def _diverged(found: NotFinite, folder: str | None) -> DivergedError:
    batch = f"the batch is recorded in {folder}" if folder else "the batch could not be recorded"
    if math.isfinite(found.loss):
        what = f"the gradient norm is {found.gradient_norm}"
    else:
        what = f"the loss is {found.loss}"
    return DivergedError(
        f"{what} at step {found.step}",
        f"lower --lr (now {found.learning_rate:g}), clip the gradient with --clip-norm 1, or skip "
        f"such steps with --skip-nonfinite; the checkpoints are from before this step; {batch}",
    )


def _memory_text(run: Run) -> str:
    size = run.micro_batch_size
    remedy = (
        f"--micro-batch-size {size // 2}" if size > 1 else "a smaller --image-size or --variant"
    )
    if size > 1 and run.config.resume:  # sums are rounded in another way
        remedy += " --no-exact-resume"
    return (
        f"the device is out of memory with --batch-size {run.recipe.batch_size} in micro-batches "
        f"of {size} images: try {remedy}"
    )
