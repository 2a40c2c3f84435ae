"""The evaluation of a model: loss, accuracy, and the metrics of each class."""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from nin_jax.data import transforms
from nin_jax.training.sharding import DIVIDED, EVERYWHERE, Layout
from nin_jax.training.step import cross_entropy


def is_at_chance(accuracy: float, share: float) -> bool:
    """Return whether an accuracy is at that of always predicting the most frequent class.

    It is above chance from ``share + 0.2 * min(share, 1 - share)`` on, where ``share`` is the
    frequency of that class.

    >>> is_at_chance(0.11, share=0.1), is_at_chance(0.97, share=0.9)
    (True, False)
    """
    return accuracy < share + 0.2 * min(share, 1 - share)


@dataclass(frozen=True)
class Score:
    """Metrics of a model on a split.

    Attributes:
        loss: mean cross-entropy, in nats.
        confusion: int [num_classes, num_classes]; rows are labels, columns are predictions.
    """

    loss: float
    confusion: np.ndarray

    @property
    def accuracy(self) -> float:
        """The fraction of correct predictions."""
        return float(np.trace(self.confusion) / self.confusion.sum())

    def per_class(self) -> list[dict[str, float]]:
        """Return precision, recall and number of images of each class; NaN where undefined."""
        right = np.diag(self.confusion)
        predicted, present = self.confusion.sum(0), self.confusion.sum(1)
        with np.errstate(invalid="ignore"):
            precision, recall = right / predicted, right / present
        return [
            {"precision": float(p), "recall": float(r), "images": int(n)}
            for p, r, n in zip(precision, recall, present, strict=True)
        ]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class EvalState:
    """Evaluation so far: position in the data, loss, and the confusion matrix of each device.

    Attributes:
        start: int32 [], index of the next example; each device counts its own examples.
        loss: float32 [D], summed over examples.
        confusion: int32 [D, classes, classes]; rows are labels, columns predictions.
    """

    start: jax.Array
    loss: jax.Array
    confusion: jax.Array


def make_eval_step(
    graphdef: nnx.GraphDef,
    image_size: tuple[int, int],
    batch_size: int,
    layout: Layout,
) -> Callable[..., EvalState]:
    """Return the compiled ``step(params, state, images, labels) -> state`` over the next batch.

    Every example counts once, whatever the batch size; label -1 marks padding, which does not
    count. Images, labels and the state are divided over the layout's devices. Each device evaluates
    the next batch of its own examples, without communication.
    """

    def step(params, state: EvalState, images, labels):
        indices = state.start + jnp.arange(batch_size)
        indices = jnp.where(indices < len(images), indices, -1)
        images, labels, weights = transforms.take(images, labels, indices)
        weights = weights * (labels >= 0)
        logits = nnx.merge(graphdef, params)(transforms.prepare(images, image_size))
        loss = jnp.sum(jnp.where(weights > 0, cross_entropy(logits, labels), 0))
        hits = weights.astype(jnp.int32)
        confusion = state.confusion.at[0, labels, logits.argmax(1)].add(hits)
        return EvalState(state.start + batch_size, state.loss + loss, confusion)

    states = EvalState(EVERYWHERE, DIVIDED, DIVIDED)  # type: ignore[arg-type]
    return jax.jit(
        jax.shard_map(
            step,
            mesh=layout.mesh,
            in_specs=(EVERYWHERE, states, DIVIDED, DIVIDED),
            out_specs=states,
            check_vma=False,
        )
    )


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
    """Evaluate a split with the step of `make_eval_step`; each example counts once.

    Args:
        eval_step: made for this ``batch_size`` and ``layout``.
        params: the model's parameters, complete on every device.
        parts: images and labels, divided over the devices, as from `feed.evaluation_parts`.
        count: number of examples in all parts.
        num_classes: number of logits.
        batch_size: examples per call on each device.
        layout: the devices.
        progress: called with the number of examples done and the number of all examples.
    """
    devices, done = layout.devices, 0
    state = initial(layout, num_classes)
    first = state.start
    for images, labels in parts:
        state = replace(state, start=first)
        for _ in range(0, len(labels) // devices, batch_size):
            before, state = state, eval_step(params, state, images, labels)
            jax.block_until_ready(before)  # the progress bar is one batch behind the devices
            done += batch_size * devices
            progress(min(done, count), count)
    final: EvalState = jax.device_get(total(layout)(state))
    return Score(float(final.loss) / count, np.asarray(final.confusion))


def initial(layout: Layout, num_classes: int) -> EvalState:
    """Return the state before the first batch, on every device."""
    shape = layout.devices, num_classes, num_classes
    zero = np.int32(0), np.zeros(layout.devices, np.float32), np.zeros(shape, np.int32)
    specs = EVERYWHERE, DIVIDED, DIVIDED
    return EvalState(*map(layout.place, zero, specs))


@functools.cache
def total(layout: Layout) -> Callable[[EvalState], EvalState]:
    """Return a function that sums the state over the devices: the only communication."""
    return jax.jit(
        lambda state: EvalState(state.start, state.loss.sum(0), state.confusion.sum(0)),
        out_shardings=layout.sharding(EVERYWHERE),
    )
