"""The training loop."""

import signal
from dataclasses import dataclass

import jax

from nin_jax.errors import Interrupted
from nin_jax.runs.agreement import Requests
from nin_jax.runs.preparation import Run, epoch_order, evaluate_run, make_feed
from nin_jax.runs.progress import Recorder
from nin_jax.runs.saving import Saver
from nin_jax.runs.signals import Interruption


def train(run: Run, recorder: Recorder, saver: Saver, interruption: Interruption) -> None:
    """Train from the current step to the end of the last epoch, or until patience ends.

    Raises:
        Interrupted: this process or another one received a signal.
        NotFinite: the loss or the gradient of a step is not finite.
    """
    feed, progress = make_feed(run), recorder.progress
    stop = Stop(interruption, saver, Requests(run.layout))
    if 0 < progress.step == progress.epochs * run.steps_per_epoch:
        saver.weights()  # saving them may have failed after the last epoch
    for epoch in range(progress.epochs, run.recipe.epochs):
        if progress.out_of_patience(run.config.patience):
            return
        step, epoch_end = progress.step, (epoch + 1) * run.steps_per_epoch
        # Inside the guard only device_put and device_get may move data between host and device.
        # With JAX_DISABLE_JIT=1 every constant of an operation moves.
        eager = jax.config.jax_disable_jit  # pyright: ignore[reportAttributeAccessIssue]
        with jax.transfer_guard("allow" if eager else "disallow"):
            # A run stopped during its evaluation has no steps left in this epoch.
            chunks = feed.chunks(epoch_order(run, epoch), step) if step < epoch_end else ()
            for chunk in chunks:
                chunk_end = step + chunk.steps
                while step < chunk_end:
                    count = min(
                        chunk_end - step, run.steps_per_dispatch, saver.cadence.steps_left(step)
                    )
                    recorder.dispatched(count, run.take_steps(chunk, count))
                    step += count
                    save = stop.check(within_epoch=True) or saver.is_due_by_steps(step)
                    if save and step < epoch_end:
                        recorder.flush()
                        saver.checkpoint()
                recorder.flush()
            score = evaluate_run(run, progress=stop.evaluating)
        recorder.epoch(score)
        saver.weights()
        saver.checkpoint()
        stop.check()


@dataclass
class Stop:
    """Ask all processes of the run whether to stop or to save a checkpoint."""

    interruption: Interruption
    saver: Saver
    requests: Requests

    def check(self, within_epoch: bool = False) -> bool:
        """Return whether to save a checkpoint.

        Raises:
            Interrupted: this process or another one received a signal.
        """
        due = within_epoch and self.saver.is_due_by_time()
        number, save = self.requests(self.interruption.signal or 0, due)
        if number:
            raise Interrupted(signal.Signals(number))
        return save

    def evaluating(self, done: int, total: int) -> None:
        """Show the progress of the evaluation and check for a signal."""
        self.saver.recorder.screen.evaluating(done, total)
        if jax.process_count() == 1:  # several processes agree only between steps
            self.check()
