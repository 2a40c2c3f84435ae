"""Turns what the device reports into rows, lines and the summary."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import jax
import numpy as np

from nin_jax.runs.writers import JsonlWriter, Screen, TensorBoardWriter
from nin_jax.training.evaluate import Score
from nin_jax.training.step import StepFigures

LOG_EVERY = 10  # steps to a row in metrics.jsonl


@dataclass(eq=False)
class NotFinite(Exception):  # noqa: N818 - an observation, which the loop turns into an error
    """A step whose loss or gradient is infinite or not a number.

    Attributes:
        step: counted from 1.
        loss: mean over the batch, in nats.
        gradient_norm: of the mean gradient.
        learning_rate: of the step.
    """

    step: int
    loss: float
    gradient_norm: float
    learning_rate: float


@dataclass
class Progress:
    """How far a run has come, as its checkpoints keep it; plain data for JSON.

    Attributes:
        step: optimiser steps done.
        epochs: epochs that have been evaluated.
        window, epoch: loss, correct predictions and images, summed since the last row of each kind.
        labels, predictions: how often each class was the label and the prediction in this epoch.
        window_norm: the largest gradient norm since the last row.
        skipped: steps that changed nothing, as their gradient was not finite.
        last_epoch: the row of the last epoch.
        accuracy_per_class: test accuracy after it; None for a class without test images.
        best: step, epoch and test accuracy of the best epoch.
        at_chance: whether the first epoch ended at chance.
        dead_classes: those with training images that the last epoch never predicted for one.
    """

    step: int = 0
    epochs: int = 0
    window: list[float] = field(default_factory=lambda: [0.0] * 3)
    epoch: list[float] = field(default_factory=lambda: [0.0] * 3)
    labels: list[float] = field(default_factory=lambda: [0.0])
    predictions: list[float] = field(default_factory=lambda: [0.0])
    window_norm: float = 0.0
    skipped: int = 0
    last_epoch: dict[str, Any] = field(default_factory=dict)
    accuracy_per_class: list[float | None] = field(default_factory=list)
    best: dict[str, Any] | None = None
    at_chance: bool = False
    dead_classes: list[int] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Recorder:
    """Reads each dispatch's figures one dispatch late, so that the device never waits for the host.

    Args:
        writers: take each row.
        screen: takes lines and the bar's figures.
        steps_per_epoch, epochs: of the run.
        learning_rates: float [steps], the rate of each step.
        chance: training accuracy of always predicting the most frequent class.
        class_names: of the dataset.
        remedies: what to tell the user if the first epoch ends at chance, and if it ends with dead
            classes.
        progress: how far the run has come; only a resumed one does not begin at nothing.
        skip_nonfinite: leave steps whose loss or gradient is not finite out of the sums.
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
        class_names: Sequence[str],
        remedies: tuple[str, str],
        progress: Progress | None = None,
        skip_nonfinite: bool = False,
        started: float | None = None,
    ):
        self.writers, self.screen = writers, screen
        self.steps_per_epoch, self.epochs = steps_per_epoch, epochs
        self.learning_rates, self.chance = learning_rates, chance
        self.class_names, self.remedies = class_names, remedies
        self.progress = progress or Progress()
        self.skip_nonfinite = skip_nonfinite
        self.time_to_first_step: float | None = None
        self._pending: tuple[int, StepFigures] | None = None
        self._unwritable: set[str] = set()
        self._started = time.perf_counter() if started is None else started
        self._epoch_started = self._window_started = self._trained_at = self._started
        self._timed = np.zeros(2)  # images in the window and in the epoch whose time counts

    def dispatched(self, count: int, figures: StepFigures) -> None:
        """Takes note of ``count`` steps that the device has been given; reads those before.

        Args:
            count: how many.
            figures: each float32 [>= count, ...], a figure a step.

        Raises:
            NotFinite: as `flush`.
        """
        self.flush()
        self._pending = (count, figures)

    def flush(self) -> None:
        """Reads the steps that are still outstanding.

        Raises:
            NotFinite: a loss or a gradient is not finite, and such steps are not skipped.
        """
        if self._pending is None:
            return
        (count, figures), self._pending = self._pending, None
        host = jax.device_get(figures)
        sums = host.sums
        columns = (sums.loss, sums.correct, sums.count, host.gradient_norm)
        table = np.stack(columns, axis=1)[:count].astype(np.float64)  # [steps, 4]
        classes = np.stack((sums.labels, sums.predictions), axis=1)[:count]  # [steps, 2, classes]
        now = time.perf_counter()
        # The host sees no more than the end of a dispatch; its steps take equal shares.
        ends = np.linspace(self._trained_at, now, count + 1)[1:]
        is_first = self.time_to_first_step is None
        if is_first:  # it waits for the compiler, so no rate counts it
            self.time_to_first_step = now - self._started
            self._epoch_started = self._window_started = now
            self.screen.line(f"first step after {self.time_to_first_step:.1f} s")
        for step_figures, step_classes, end in zip(table, classes, ends, strict=True):
            at = now if is_first else float(end)
            self._step(step_figures, step_classes, at, timed=not is_first)

    def _step(self, figures: np.ndarray, classes: np.ndarray, now: float, timed: bool) -> None:
        progress = self.progress
        sums, norm = figures[:3], float(figures[3])
        if np.isfinite(figures).all():
            progress.window = (np.array(progress.window) + sums).tolist()
            progress.epoch = (np.array(progress.epoch) + sums).tolist()
            progress.labels = (np.array(progress.labels) + classes[0]).tolist()
            progress.predictions = (np.array(progress.predictions) + classes[1]).tolist()
            progress.window_norm = max(progress.window_norm, norm)
        elif self.skip_nonfinite:
            progress.skipped += 1
        else:
            step = progress.step + 1
            loss, rate = float(figures[0] / figures[2]), float(self.learning_rates[step - 1])
            raise NotFinite(step, loss, norm, rate)
        progress.step += 1
        self._trained_at = now
        if timed:
            self._timed += figures[2]
        if progress.step % LOG_EVERY == 0 or progress.step % self.steps_per_epoch == 0:
            self._write_window(now)

    def _write_window(self, now: float) -> None:
        progress = self.progress
        row = {
            "kind": "step",
            "step": progress.step,
            "epoch": round(progress.step / self.steps_per_epoch, 4),
            **_means("train", progress.window),
            "gradient_norm": progress.window_norm,
            "learning_rate": float(self.learning_rates[progress.step - 1]),
            "skipped_steps": progress.skipped,
            "images_per_second": _rate(self._timed[0], now - self._window_started),
        }
        progress.window, progress.window_norm = [0.0] * 3, 0.0
        self._window_started, self._timed[0] = now, 0
        self._write(row)
        self.screen.step(row)

    def epoch(self, score: Score) -> None:
        """Writes the row and the line of the epoch that ends here, given its test score."""
        progress, now = self.progress, time.perf_counter()
        progress.epochs += 1
        counts = zip(progress.labels, progress.predictions, strict=True)
        progress.dead_classes = [c for c, (label, said) in enumerate(counts) if label and not said]
        row = {
            "kind": "epoch",
            "step": progress.step,
            "epoch": progress.epochs,
            **_means("train", progress.epoch),
            "test_loss": score.loss if np.isfinite(score.loss) else None,
            "test_accuracy": score.accuracy,
            "dead_classes": len(progress.dead_classes),
            "skipped_steps": progress.skipped,
            "images_per_second": _rate(self._timed[1], self._trained_at - self._epoch_started),
            "seconds": round(now - self._epoch_started, 2),
        }
        progress.epoch, progress.labels, progress.predictions = [0.0] * 3, [0.0], [0.0]
        self._epoch_started, self._window_started, self._timed[:] = now, now, 0
        progress.last_epoch = row
        recalls = [figures["recall"] for figures in score.per_class()]
        progress.accuracy_per_class = [None if np.isnan(recall) else recall for recall in recalls]
        if progress.best is None or score.accuracy > progress.best["test_accuracy"]:
            kept = ("step", "epoch", "test_accuracy")
            progress.best = {key: row[key] for key in kept}
        self._write(row)
        self._say(row, score.loss)

    def _say(self, row: dict[str, Any], test_loss: float) -> None:
        loss, accuracy = (row[f"train_{name}"] for name in ("loss", "accuracy"))
        shown = "all steps were skipped" if loss is None else f"{loss:.4f} accuracy {accuracy:.4f}"
        dead = self._dead_names()
        self.screen.line(
            f"epoch {row['epoch']}/{self.epochs}  train loss {shown}  test loss "
            f"{test_loss:.4f} accuracy {row['test_accuracy']:.4f}  "
            f"{row['images_per_second'] or float('nan'):.0f} images/s  {row['seconds']:.0f} s"
            + (f"  never predicted: {dead}" if dead else "")
        )
        if row["epoch"] > 1 or accuracy is None:
            return
        at_chance, dead_class = self.remedies
        if accuracy < 1.2 * self.chance:
            self.progress.at_chance = True
            self.screen.line(
                f"NOTE: after the first epoch the training accuracy, {accuracy:.3f}, is at chance "
                f"({self.chance:.3f} by always predicting the most frequent class). {at_chance}"
            )
        elif dead:
            self.screen.line(
                f"NOTE: the first epoch never predicted {dead} for a training image. {dead_class}"
            )

    def _dead_names(self) -> str:
        """Return the names of the dead classes, the first three if there are many."""
        names = [self.class_names[c] for c in self.progress.dead_classes]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return ", ".join(names[:3]) + more

    def _write(self, row: dict[str, Any]) -> None:
        row["time"] = round(time.time(), 3)
        for writer in self.writers:
            name = type(writer).__name__
            try:
                writer.write(row)
                self._unwritable.discard(name)
            except OSError as error:
                if name not in self._unwritable:  # said once, not at every row
                    self._unwritable.add(name)
                    self.screen.line(
                        f"WARNING: {writer.what} cannot be written ({error.strerror}); training "
                        "goes on"
                    )


def _means(name: str, sums: list[float]) -> dict[str, float | None]:
    """Loss and accuracy by image; None where every step was skipped."""
    loss, correct, count = sums
    return {
        f"{name}_loss": loss / count if count else None,
        f"{name}_accuracy": correct / count if count else None,
    }


def _rate(images: float, seconds: float) -> float | None:
    return round(images / seconds, 1) if images else None
