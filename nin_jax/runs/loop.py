"""The loop proper: chunk by chunk, step by step, and what comes between the steps."""

import signal
from dataclasses import dataclass

import jax
import numpy as np

from nin_jax.errors import Interrupted
from nin_jax.runs import multihost
from nin_jax.runs.preparation import Run, epoch_order, evaluation_images, make_feed
from nin_jax.runs.progress import Recorder
from nin_jax.runs.saving import Saver
from nin_jax.runs.signals import Interruption
from nin_jax.training.evaluate import Score, evaluate
from nin_jax.training.feed import Chunk
from nin_jax.training.sharding import EVERYWHERE


@dataclass
class Stop:
    """Whether the processes of the run are asked to end, or to save what they have."""

    interruption: Interruption
    saver: Saver
    requests: multihost.Requests

    def check(self, within_epoch: bool = False) -> bool:
        """Whether a checkpoint is due.

        Raises:
            Interrupted: a signal came, to this process or another.
        """
        due = within_epoch and self.saver.is_due_by_time()
        number, save = self.requests(self.interruption.signal or 0, due)
        if number:
            raise Interrupted(signal.Signals(number))
        return save


def train(run: Run, recorder: Recorder, saver: Saver, interruption: Interruption) -> None:
    """Epoch by epoch, from wherever the run is, to its end."""
    feed, progress = make_feed(run), recorder.progress
    stop = Stop(interruption, saver, multihost.Requests(run.layout))
    while progress.epochs < run.recipe.epochs:
        # Nothing travels between host and device but what says so: device_put and device_get.
        with jax.transfer_guard("disallow"):
            if progress.step < (progress.epochs + 1) * run.steps_per_epoch:
                for chunk in feed.chunks(epoch_order(run, progress.epochs), progress.step):
                    _steps(run, recorder, saver, stop, chunk)
            score = _evaluate(run, recorder, stop)
        recorder.epoch(score)
        saver.weights()
        saver.checkpoint()
        stop.check()


def _steps(run: Run, recorder: Recorder, saver: Saver, stop: Stop, chunk: Chunk) -> None:
    """The steps of a chunk, with the checkpoints that are due between them."""
    step = recorder.progress.step
    end = step + chunk.steps
    epoch_end = (recorder.progress.epochs + 1) * run.steps_per_epoch
    while step < end:
        count = min(end - step, run.steps_per_dispatch, saver.cadence.steps_left(step))
        examples = chunk.images, chunk.labels, chunk.order
        placed = run.layout.place(np.int32(count), EVERYWHERE)
        run.state, figures = run.train_steps(run.state, *examples, placed)
        step += count
        recorder.dispatched(count, figures)
        due = stop.check(within_epoch=True) or saver.is_due_by_steps(step)
        if due and step < epoch_end:
            recorder.flush()
            with jax.transfer_guard("allow"):
                saver.checkpoint()
    recorder.flush()


def _evaluate(run: Run, recorder: Recorder, stop: Stop) -> Score:
    def progress(done: int, total: int) -> None:
        recorder.screen.evaluating(done, total)
        if jax.process_count() == 1:  # several agree between steps alone
            stop.check()

    return evaluate(
        run.eval_step,
        run.layout.whole(run.state.params),
        evaluation_images(run.layout, run.dataset),
        count=len(run.dataset.test),
        num_classes=run.model.num_classes,
        batch_size=run.micro_batch_size,
        layout=run.layout,
        progress=progress,
    )
