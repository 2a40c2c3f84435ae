"""A model's score on a split: loss, accuracy, and the table of each class."""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from nin_jax.training.sharding import DIVIDED, EVERYWHERE, Layout
from nin_jax.training.step import EvalState


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
    parts: Iterable[tuple[jax.Array, jax.Array]],
    *,
    count: int,
    num_classes: int,
    batch_size: int,
    layout: Layout,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Score:
    """Runs `step.make_eval_step`'s step over a split; each example counts once.

    Args:
        eval_step: as made for this ``batch_size``, ``num_classes`` and ``layout``.
        params: the model's parameters, whole on every device.
        parts: of the split, divided over the devices, as `feed.evaluation_parts` makes them.
        count: examples of all parts together.
        progress: called with the examples done and in all.
    """
    devices, done = layout.devices, 0
    state = initial(layout, num_classes)
    first = state.start
    for images, labels in parts:
        state = replace(state, start=first)
        before = state
        for _ in range(0, len(labels) // devices, batch_size):
            before, state = state, eval_step(params, state, images, labels)
            jax.block_until_ready(before)  # the bar follows the devices, one batch behind
            done += batch_size * devices
            progress(min(done, count), count)
    final: EvalState = jax.device_get(total(layout)(state))
    return Score(float(final.loss) / count, np.asarray(final.confusion))


def initial(layout: Layout, num_classes: int) -> EvalState:
    """Nothing evaluated yet, on each device."""
    shape = layout.devices, num_classes, num_classes
    zero = np.int32(0), np.zeros(layout.devices, np.float32), np.zeros(shape, np.int32)
    specs = EVERYWHERE, DIVIDED, DIVIDED
    return EvalState(*map(layout.place, zero, specs))


@functools.cache
def total(layout: Layout) -> Callable[[EvalState], EvalState]:
    """The sum over the devices: all that an evaluation makes them tell each other."""
    return jax.jit(
        lambda state: EvalState(state.start, state.loss.sum(0), state.confusion.sum(0)),
        out_shardings=layout.sharding(EVERYWHERE),
    )
