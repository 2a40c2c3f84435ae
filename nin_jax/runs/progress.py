"""How far a run has come, and the rows and lines that report it."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from nin_jax.errors import NotFinite
from nin_jax.runs.preparation import Run
from nin_jax.runs.writers import JsonlWriter, Screen, TensorBoardWriter
from nin_jax.training.evaluate import Score, is_at_chance
from nin_jax.training.step import StepFigures

LOG_EVERY = 10  # steps between rows in metrics.jsonl


@dataclass
class Progress:
    """How far a run has come; plain data for JSON, kept in its checkpoints.

    Attributes:
        step: optimizer steps done.
        epochs: epochs that have been evaluated.
        window, epoch: loss, correct predictions and images, summed since the last row of that kind.
        labels, predictions: how often each class was the label and the prediction in this epoch.
        window_norm: the largest gradient norm since the last row.
        skipped: steps without an update because their gradient was not finite.
        last_epoch: the row of the last epoch.
        accuracy_per_class: test accuracy after it; None for a class without test images.
        best: step, epoch and test accuracy of the best epoch.
        at_chance: whether the first epoch ended at chance.
        dead_classes: classes with training images that were never predicted in the last epoch.
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

    def out_of_patience(self, patience: int | None) -> bool:
        """Return whether ``patience`` epochs have passed since the best one; False for None."""
        return bool(patience and self.best and self.epochs - self.best["epoch"] >= patience)


class Recorder:
    """Turn the metrics of steps and epochs into rows and lines.

    The metrics of a dispatch are read one dispatch late, so that the device never waits.

    Args:
        run: the run to report.
        writers: they take each row.
        screen: it takes the lines and shows the metrics.
        progress: how far the run has come; not the start if it is resumed.
        started: `time.perf_counter` at the start of the run; the time to the first step counts
            from there.
    """

    def __init__(
        self,
        run: Run,
        writers: list[JsonlWriter | TensorBoardWriter],
        screen: Screen,
        progress: Progress,
        started: float,
    ):
        self.run, self.writers, self.screen, self.progress = run, writers, screen, progress
        self.time_to_first_step: float | None = None
        self._pending: tuple[int, StepFigures] | None = None
        self._unwritable: set[str] = set()
        self._noted: set[int] = set()  # dead classes with a note
        self._started = self._epoch_started = self._window_started = self._trained_at = started
        self._timed = np.zeros(2)  # images of the window and of the epoch that count for speed

    def dispatched(self, count: int, figures: StepFigures) -> None:
        """Keep the metrics of newly dispatched steps; read those of the dispatch before.

        Args:
            count: number of steps.
            figures: float32 [>= count, ...] each, one entry per step.

        Raises:
            NotFinite: as `flush`.
        """
        self.flush()
        self._pending = (count, figures)

    def flush(self) -> None:
        """Read the metrics of the steps that have not been read yet.

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
        # Only the end of a dispatch is known, so its steps get equal shares of the time.
        ends = np.linspace(self._trained_at, now, count + 1)[1:]
        is_first = self.time_to_first_step is None
        if is_first:  # it includes compilation, so it does not count for the speed
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
        elif self.run.config.skip_nonfinite:
            progress.skipped += 1
        else:
            step = progress.step + 1
            loss, rate = float(figures[0] / figures[2]), float(self.run.learning_rates[step - 1])
            raise NotFinite(step, loss, norm, rate)
        progress.step += 1
        self._trained_at = now
        if timed:
            self._timed += figures[2]
        if progress.step % LOG_EVERY == 0 or progress.step % self.run.steps_per_epoch == 0:
            self._write_window(now)

    def _write_window(self, now: float) -> None:
        progress = self.progress
        row = {
            "kind": "step",
            "step": progress.step,
            "epoch": round(progress.step / self.run.steps_per_epoch, 4),
            **_means("train", progress.window),
            "gradient_norm": progress.window_norm,
            "learning_rate": float(self.run.learning_rates[progress.step - 1]),
            "skipped_steps": progress.skipped,
            "images_per_second": _rate(self._timed[0], now - self._window_started),
        }
        progress.window, progress.window_norm = [0.0] * 3, 0.0
        self._window_started, self._timed[0] = now, 0
        self._write(row)
        self.screen.step(row)

    def epoch(self, score: Score) -> None:
        """End an epoch: write its row and print its line.

        Args:
            score: on the test images.
        """
        progress, now = self.progress, time.perf_counter()
        progress.epochs += 1
        counts = enumerate(zip(progress.labels, progress.predictions, strict=True))
        progress.dead_classes = [c for c, (labels, predicted) in counts if labels and not predicted]
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
        self._epoch_started = self._window_started = self._trained_at = now
        self._timed[:] = 0
        progress.last_epoch = row
        recalls = [figures["recall"] for figures in score.per_class()]
        progress.accuracy_per_class = [None if np.isnan(recall) else recall for recall in recalls]
        if progress.best is None or score.accuracy > progress.best["test_accuracy"]:
            kept = ("step", "epoch", "test_accuracy")
            progress.best = {key: row[key] for key in kept}
        self._write(row)
        self._print(row, score.loss)

    @contextlib.contextmanager
    def untimed(self) -> Iterator[None]:
        """Leave the time inside this context, such as that of saving, out of all speeds."""
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        self._epoch_started += seconds
        self._window_started += seconds
        self._trained_at += seconds

    def _print(self, row: dict[str, Any], test_loss: float) -> None:
        loss, accuracy = (row[f"train_{name}"] for name in ("loss", "accuracy"))
        shown = "all steps were skipped" if loss is None else f"{loss:.4f} accuracy {accuracy:.4f}"
        speed, dead = row["images_per_second"], self._names(self.progress.dead_classes)
        self.screen.line(
            f"epoch {row['epoch']}/{self.run.recipe.epochs}  train loss {shown}  "
            f"{self.run.config.scored} loss {test_loss:.4f} accuracy {row['test_accuracy']:.4f}  "
            + (f"{speed:.0f} images/s  " if speed else "")  # one step alone has no speed
            + f"{row['seconds']:.0f} s"
            + (f"  never predicted: {dead}" if dead else "")
        )
        if row["epoch"] == 1 and accuracy is not None and self._note_chance(accuracy):
            return
        if new := [c for c in self.progress.dead_classes if c not in self._noted]:
            self._noted.update(new)
            found = f"epoch {row['epoch']} never predicted {self._names(new)} for a training image"
            self.screen.line(f"NOTE: {found}. {remedies(self.run)[1]}")

    def _note_chance(self, accuracy: float) -> bool:
        """Print a note if the first epoch ended at chance; return whether one was printed."""
        labels = self.run.dataset.train.labels  # None: only reading all examples would tell
        classes = self.run.dataset.num_classes
        chance = 1 / classes if labels is None else np.bincount(labels).max() / len(labels)
        if chance == 1:
            note = (
                "all training images have the same class, so there is nothing to learn and the "
                "accuracy says nothing. Remedy: give images of two or more classes."
            )
        elif is_at_chance(accuracy, chance):
            self.progress.at_chance = True
            note = (
                f"after the first epoch the training accuracy, {accuracy:.3f}, is at chance "
                f"({chance:.3f} by always predicting the most frequent class). "
                + remedies(self.run)[0]
            )
        else:
            return False
        self.screen.line(f"NOTE: {note}")
        return True

    def _names(self, classes: list[int]) -> str:
        """Return the names of the first three classes and the number of the others."""
        names = [self.run.dataset.class_names[c] for c in classes]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return ", ".join(names[:3]) + more

    def _write(self, row: dict[str, Any]) -> None:
        row["time"] = round(time.time(), 3)
        for writer in self.writers:
            try:
                writer.write(row)
                self._unwritable.discard(writer.name)
            except OSError as error:
                if writer.name not in self._unwritable:  # warn once, not at every row
                    self._unwritable.add(writer.name)
                    found = f"{writer.name} cannot be written ({error.strerror})"
                    self.screen.line(f"WARNING: {found}; training continues")


def _means(name: str, sums: list[float]) -> dict[str, float | None]:
    """Return mean loss and accuracy per image; None if every step was skipped."""
    loss, correct, count = sums
    return {
        f"{name}_loss": loss / count if count else None,
        f"{name}_accuracy": correct / count if count else None,
    }


def _rate(images: float, seconds: float) -> float | None:
    """Return images per second; None if no step was timed, or the clock is too coarse."""
    return round(images / seconds, 1) or None if seconds > 0 else None


def remedies(run: Run) -> tuple[str, str]:
    """Return advice for a run that learns nothing, and for one with dead classes."""
    if run.config.recipe == "d2l":
        return (
            "The published recipe starts very slowly and may never learn at high learning rates. "
            f"Remedy: --recipe modern, or a lower --lr (now {run.recipe.lr:g}), or more --epochs.",
            "Under the ReLU on the logits a class can lose its gradient for good. Remedy: --recipe "
            "modern, or --logit-relu False, or another --seed.",
        )
    init = "" if run.recipe.init == "identity" else "--init identity, "
    more = "Remedy: more images or --epochs; if that does not help, "
    return f"{more}another --lr or --seed.", f"{more}{init}a lower --lr, or another --seed."
