"""A model's score on a split: loss, accuracy, and the table of each class."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from nin_jax.step import EvalState


@dataclass(frozen=True)
class Score:
    """Mean loss in nats, and the confusion matrix: rows are labels, columns predictions."""

    loss: float
    confusion: np.ndarray

    @property
    def accuracy(self) -> float:
        return float(np.trace(self.confusion) / self.confusion.sum())

    def per_class(self) -> list[dict[str, float]]:
        """Precision, recall and number of images of each class; NaN where undefined."""
        right = np.diag(self.confusion)
        predicted, present = self.confusion.sum(0), self.confusion.sum(1)
        with np.errstate(invalid="ignore"):
            precision, recall = right / predicted, right / present
        return [
            {"precision": float(p), "recall": float(r), "images": int(n)}
            for p, r, n in zip(precision, recall, present, strict=True)
        ]


def evaluate(
    eval_step: Callable[..., EvalState],
    params: Any,
    images: jax.Array | np.ndarray,
    labels: jax.Array | np.ndarray,
    *,
    num_classes: int,
    batch_size: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Score:
    """Runs `step.make_eval_step`'s step over a split; each example counts once.

    Args:
        eval_step: as made for this ``batch_size`` and ``num_classes``.
        params: the model's parameters.
        images: uint8 [N, H, W, C].
        labels: int32 [N].
        progress: called with the examples done and in all.
    """
    count = len(labels)
    images, labels = jax.device_put((images, labels))  # nothing happens if they are there already
    zero = np.zeros((), np.int32), np.zeros((), np.float32)
    state: EvalState = jax.device_put(
        EvalState(*zero, np.zeros((num_classes, num_classes), np.int32))  # type: ignore[arg-type]
    )
    before = state
    for done in range(0, count, batch_size):
        before, state = state, eval_step(params, state, images, labels)
        jax.block_until_ready(before)  # the bar follows the device, one batch behind
        progress(min(done + batch_size, count), count)
    final = jax.device_get(state)
    return Score(float(final.loss) / count, np.asarray(final.confusion))
