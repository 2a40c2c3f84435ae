"""One training step and one evaluation step: pure and compiled; training consumes its state.

Gather, augmentation, resize, network, gradients and optimiser are one program. A batch may be
worked off in micro-batches: their gradients are added up, which is the gradient of the batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from nin_jax.data import transforms
from nin_jax.training.recipes import Recipe
from nin_jax.training.sharding import COLUMNS, DIVIDED, EVERYWHERE, Layout


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """All that training changes.

    Attributes:
        params: the model's `nnx.Param` state.
        opt_state: Optax's.
        step: int32 [], optimiser steps done.
        key: PRNG key of the run; steps and epochs are folded in, never split off.
    """

    params: nnx.State
    opt_state: optax.OptState
    step: jax.Array
    key: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sums:
    """Sums over examples.

    Attributes:
        loss, correct, count: float32 [], the losses, the correct predictions, the examples.
        labels, predictions: float32 [classes], how often each class was the label, and the
            prediction.
    """

    loss: jax.Array
    correct: jax.Array
    count: jax.Array
    labels: jax.Array
    predictions: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StepFigures:
    """What a step reports.

    Attributes:
        sums: over the batch.
        gradient_norm: float32 [], the global norm of the mean gradient, before any clipping; not
            finite if any of its entries is not.
    """

    sums: Sums
    gradient_norm: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class EvalState:
    """Evaluation so far: position in the data, loss, and the confusion matrix of each device.

    Attributes:
        start: int32 [], the next example, of each device's own.
        loss: float32 [D], summed over examples.
        confusion: int32 [D, classes, classes]; rows are labels, columns predictions.
    """

    start: jax.Array
    loss: jax.Array
    confusion: jax.Array


def init_train_state(
    params: Any,
    optimizer: optax.GradientTransformation,
    seed: int = 0,
    layout: Layout | None = None,
) -> TrainState:
    """Return the state before the first step.

    Args:
        params: the model's `nnx.Param` state. It is copied, because a step consumes its state.
        optimizer: as `optimizer.make_optimizer` makes it.
        seed: of the run's PRNG key.
        layout: the devices to place the state on; the default device if None.
    """
    params = jax.tree.map(jnp.copy, params)
    step = jnp.zeros((), jnp.int32)
    state = TrainState(params, optimizer.init(params), step, jax.random.key(seed))
    return state if layout is None else layout.place(state, layout.specs(state))


def cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Each example's softmax cross-entropy, in nats.

    Args:
        logits: float [B, classes].
        labels: int [B].
        label_smoothing: share of the label spread evenly over all classes.

    Returns:
        float [B].
    """
    if label_smoothing == 0:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[1]), label_smoothing)
    return optax.softmax_cross_entropy(logits, targets)


def make_train_step(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    recipe: Recipe,
    image_size: tuple[int, int],
    micro_batch_size: int,
    layout: Layout | None = None,
) -> Callable[..., tuple[TrainState, StepFigures]]:
    """The compiled ``step(state, images, labels, order) -> (state, figures)``.

    ``images`` is uint8 [N, H, W, C], ``labels`` int32 [N], ``order`` int32 [steps, B] as
    `data.epoch_order` makes it; the state's step says which row is next. The loss is the mean
    over the batch's examples; fillers (-1) have no part in it. The state given is consumed.

    With a ``layout`` every argument lies on its mesh (see `make_train_steps`), and each device
    works on its columns of ``order``. Random numbers depend on the run's key, the step and an
    example's place in the batch alone: neither devices nor micro-batches make a difference but in
    the order of sums.
    """
    gradient = _make_batch_gradient(graphdef, recipe, image_size, micro_batch_size)
    if layout is not None:
        summed = layout.over_devices(gradient)
    else:

        def summed(params, images, labels, indices, key):
            positions = jnp.arange(len(indices))
            return gradient(params, images, labels, indices, positions, key)

    def step(state: TrainState, images, labels, order):
        indices = order[state.step % len(order)]  # [B]
        key = jax.random.fold_in(jax.random.fold_in(state.key, NOISE), state.step)
        grads, sums = summed(state.params, images, labels, indices, key)
        grads = jax.tree.map(lambda g: g / sums.count, grads)
        figures = StepFigures(sums, optax.tree.norm(grads))
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        return TrainState(params, opt_state, state.step + 1, state.key), figures

    return jax.jit(step, donate_argnums=0)


# The run's key with an epoch folded in orders that epoch; no epoch has this number.
NOISE = 2**32 - 1


def _make_batch_gradient(
    graphdef: nnx.GraphDef, recipe: Recipe, image_size: tuple[int, int], micro_batch_size: int
) -> Callable[..., tuple[Any, Sums]]:
    """``(params, images, labels, indices, positions, key) -> (grads, sums)`` of a batch's examples.

    ``indices`` are theirs in the data set, ``positions`` in the batch, int32 [B] both.
    """
    shift = 14 if recipe.augment == "flip_shift" else None

    def loss_sum(params, images, labels, weights, keys):
        keys = jax.vmap(jax.random.split)(keys)  # [M, 2]: of dropout, of augmentation
        if recipe.augment != "none":
            pixels = max(images.shape[1:3]) // shift if shift else 0
            images = transforms.augment(images, keys[:, 1], pixels)
        model = nnx.merge(graphdef, params)
        x = transforms.prepare(images, image_size)  # [M, h, w, C]
        logits = model(x, rngs=keys[:, 0])  # [M, classes]
        loss = jnp.sum(weights * cross_entropy(logits, labels, recipe.label_smoothing))
        predictions = logits.argmax(1)
        correct = jnp.sum(weights * (predictions == labels))
        none = jnp.zeros(logits.shape[1])
        counts = (none.at[classes].add(weights) for classes in (labels, predictions))
        return loss, Sums(loss, correct, weights.sum(), *counts)

    def gradient_of(params, images, labels, indices, positions, key):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, positions)  # [M]
        examples = transforms.take(images, labels, indices)
        return jax.grad(loss_sum, has_aux=True)(params, *examples, keys)

    def whole(params, images, labels, indices, positions, key):
        if len(indices) <= micro_batch_size:
            return gradient_of(params, images, labels, indices, positions, key)

        def micro(totals, batch):
            indices, positions = batch
            new = gradient_of(params, images, labels, indices, positions, key)
            return jax.tree.map(jnp.add, totals, new), None

        batches = tuple(split_micro_batches(a, micro_batch_size) for a in (indices, positions))
        first = (batch[0] for batch in batches)
        zero = _zeros(jax.eval_shape(gradient_of, params, images, labels, *first, key))
        return jax.lax.scan(micro, zero, batches)[0]  # over [n, M] each

    return whole


def _zeros(shapes: Any) -> Any:
    """Return zeros of the shapes that `jax.eval_shape` found."""
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)


def make_train_steps(
    train_step: Callable[..., tuple[TrainState, StepFigures]],
    most: int,
    layout: Layout | None = None,
    state: TrainState | None = None,
) -> Callable[..., tuple[TrainState, StepFigures]]:
    """The compiled ``steps(state, images, labels, order, count) -> (state, figures)``.

    Takes ``count`` <= ``most`` steps, one program for all, so that a fast device need not wait
    for the host between them. The figures have a leading axis, [most, ...]; from ``count`` on they
    are 0. The state given is consumed.

    Args:
        train_step: as `make_train_step` makes it.
        most: steps at once.
        layout: where all of it lies; one device if None.
        state: with a ``layout``, one of the shapes of those to come.
    """

    def steps(state: TrainState, images, labels, order, count):
        def one(
            i: jax.Array, carry: tuple[TrainState, StepFigures]
        ) -> tuple[TrainState, StepFigures]:
            state, new = train_step(carry[0], images, labels, order)
            return state, jax.tree.map(lambda all_, s: all_.at[i].set(s), carry[1], new)

        _, shapes = jax.eval_shape(train_step, state, images, labels, order)
        none = jax.tree.map(lambda s: jnp.zeros((most, *s.shape), s.dtype), shapes)
        if most == 1:  # what is in a loop cannot be fused with what is around it
            return one(jnp.int32(0), (state, none))
        return jax.lax.fori_loop(0, count, one, (state, none))

    if layout is None:
        return jax.jit(steps, donate_argnums=0)
    states, everywhere = layout.shardings(layout.specs(state)), layout.sharding(EVERYWHERE)
    examples, columns = layout.sharding(layout.examples), layout.sharding(COLUMNS)
    return jax.jit(
        steps,
        donate_argnums=0,
        in_shardings=(states, examples, examples, columns, everywhere),
        out_shardings=(states, everywhere),
    )


def split_micro_batches(indices: jax.Array, micro_batch_size: int) -> jax.Array:
    """[B] -> [ceil(B / M), M], filled up with -1."""
    rows = -(-len(indices) // micro_batch_size)
    filler = rows * micro_batch_size - len(indices)
    padded = jnp.pad(indices, (0, filler), constant_values=-1)
    return padded.reshape(rows, micro_batch_size)


def make_eval_step(
    graphdef: nnx.GraphDef,
    image_size: tuple[int, int],
    num_classes: int,
    batch_size: int,
    layout: Layout,
) -> Callable[..., EvalState]:
    """The compiled ``step(params, state, images, labels) -> state`` over the next batch.

    Every example counts once, whatever the batch size; those with label -1 are fillers and count
    not at all. Images, labels and the state are divided over the layout's devices, each of which
    takes the next batch of its own examples and tells the others nothing.
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
