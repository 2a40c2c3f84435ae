"""Turns what the device reports into rows, lines and the summary."""

import time
from typing import Any

import jax
import numpy as np

from nin_jax.errors import UserError
from nin_jax.evaluation import Score
from nin_jax.metrics import JsonlWriter, Screen, TensorBoardWriter
from nin_jax.step import Sums

LOG_EVERY = 10  # steps to a row in metrics.jsonl


class Recorder:
    """Reads each dispatch's sums one dispatch late, so that the device never waits for the host.

    Args:
        writers: take each row.
        screen: takes lines and the bar's figures.
        steps_per_epoch, epochs: of the run.
        learning_rates: float [steps], the rate of each step.
        chance: training accuracy of always naming the commonest class.
        remedy: what to tell the user if the first epoch ends at chance.
        first_step: steps done before, 0 but in a resumed run.
        started: `time.perf_counter` when the run began, from which the first step is timed.
    """

    def __init__(
        self,
        writers: list[JsonlWriter | TensorBoardWriter],
        screen: Screen,
        *,
        steps_per_epoch: int,
        epochs: int,
        learning_rates: np.ndarray,
        chance: float,
        remedy: str,
        first_step: int = 0,
        started: float | None = None,
    ):
        self.writers, self.screen = writers, screen
        self.steps_per_epoch, self.epochs = steps_per_epoch, epochs
        self.learning_rates, self.chance, self.remedy = learning_rates, chance, remedy
        self.step = first_step
        self.last_epoch: dict[str, Any] = {}
        self.accuracy_per_class: list[float | None] = []
        self.time_to_first_step: float | None = None
        self.at_chance = False
        self._pending: tuple[int, Sums] | None = None
        self._window = self._epoch = np.zeros(3)  # loss, correct, count
        self._started = time.perf_counter() if started is None else started
        self._epoch_started = self._window_started = self._trained_at = self._started
        self._timed = np.zeros(2)  # images in the window and in the epoch whose time counts

    def dispatched(self, count: int, sums: Sums) -> None:
        """Takes note of ``count`` steps that the device has been given; reads those before.

        Args:
            count: how many.
            sums: each float32 [>= count], a figure a step.
        """
        self.flush()
        self._pending = (count, sums)

    def flush(self) -> None:
        """Reads the steps that are still outstanding.

        Raises:
            UserError: a loss is not finite.
        """
        if self._pending is None:
            return
        (count, sums), self._pending = self._pending, None
        host = jax.device_get(sums)
        figures = np.stack([host.loss, host.correct, host.count], axis=1)[:count]
        now = time.perf_counter()
        # The host sees no more than the end of a dispatch; its steps take equal shares.
        ends = np.linspace(self._trained_at, now, count + 1)[1:]
        is_first = self.time_to_first_step is None
        if is_first:  # it waits for the compiler, so no rate counts it
            self.time_to_first_step = now - self._started
            self._epoch_started = self._window_started = now
            self.screen.line(f"first step after {self.time_to_first_step:.1f} s")
        for step_figures, end in zip(figures.astype(np.float64), ends, strict=True):
            self._step(step_figures, now if is_first else float(end), timed=not is_first)

    def _step(self, figures: np.ndarray, now: float, timed: bool) -> None:
        self.step += 1
        self._trained_at = now
        if not np.isfinite(figures[0]):
            raise UserError(
                f"the loss is {figures[0]} at step {self.step}: lower --lr (now "
                f"{self.learning_rates[self.step - 1]:g}), or clip the gradient with --clip-norm 1"
            )
        self._window, self._epoch = self._window + figures, self._epoch + figures
        if timed:
            self._timed += figures[2]
        if self.step % LOG_EVERY == 0 or self.step % self.steps_per_epoch == 0:
            self._write_window(now)

    def _write_window(self, now: float) -> None:
        loss, correct, count = self._window
        row = {
            "kind": "step",
            "step": self.step,
            "epoch": round(self.step / self.steps_per_epoch, 4),
            "train_loss": loss / count,
            "train_accuracy": correct / count,
            "learning_rate": float(self.learning_rates[self.step - 1]),
            "images_per_second": _rate(self._timed[0], now - self._window_started),
        }
        self._window, self._window_started, self._timed[0] = np.zeros(3), now, 0
        self._write(row)
        self.screen.step(row)

    def epoch(self, score: Score) -> None:
        """Writes the row and the line of the epoch that ends here, given its test score."""
        loss, correct, count = self._epoch
        now = time.perf_counter()
        epoch = self.step // self.steps_per_epoch
        row = {
            "kind": "epoch",
            "step": self.step,
            "epoch": epoch,
            "train_loss": loss / count,
            "train_accuracy": correct / count,
            "test_loss": score.loss,
            "test_accuracy": score.accuracy,
            "images_per_second": _rate(self._timed[1], self._trained_at - self._epoch_started),
            "seconds": round(now - self._epoch_started, 2),
        }
        self._epoch, self._epoch_started, self._timed[:] = np.zeros(3), now, 0
        self._window_started = now
        self.last_epoch = row
        recalls = [figures["recall"] for figures in score.per_class()]
        self.accuracy_per_class = [None if np.isnan(recall) else recall for recall in recalls]
        self._write(row)
        self.screen.line(
            f"epoch {epoch}/{self.epochs}  train loss {row['train_loss']:.4f} accuracy "
            f"{row['train_accuracy']:.4f}  test loss {score.loss:.4f} accuracy "
            f"{score.accuracy:.4f}  {row['images_per_second'] or float('nan'):.0f} images/s  "
            f"{row['seconds']:.0f} s"
        )
        if epoch == 1 and row["train_accuracy"] < 1.2 * self.chance:
            self._say_at_chance(row["train_accuracy"])

    def _say_at_chance(self, accuracy: float) -> None:
        self.at_chance = True
        self.screen.line(
            f"NOTE: after the first epoch the training accuracy, {accuracy:.3f}, is at chance "
            f"({self.chance:.3f} by always naming the commonest class). {self.remedy}"
        )

    def _write(self, row: dict[str, Any]) -> None:
        for writer in self.writers:
            writer.write(row)


def _rate(images: float, seconds: float) -> float | None:
    return round(images / seconds, 1) if images else None
