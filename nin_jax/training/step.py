"""The compiled training step: a pure function that donates its state.

Gather, augmentation, resize, network, gradients and optimizer are one program. A batch may be split
into micro-batches, whose gradients are added up to the gradient of the batch.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from nin_jax.data import transforms
from nin_jax.training.recipes import Recipe
from nin_jax.training.sharding import COLUMNS, EVERYWHERE, Layout


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Everything that training changes.

    Attributes:
        params: the model's `nnx.Param` state.
        opt_state: Optax's state.
        step: int32 [], number of optimizer steps done.
        key: PRNG key of the run; steps and epochs are folded into it, it is never split.
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
        loss, correct, count: float32 [], sum of losses, correct predictions, examples.
        labels, predictions: float32 [classes], how often each class was the label, and how often
            it was predicted.
        weight: float32 [], the sum of the examples' class weights; None without class weights.
    """

    loss: jax.Array
    correct: jax.Array
    count: jax.Array
    labels: jax.Array
    predictions: jax.Array
    weight: jax.Array | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StepFigures:
    """What a step reports.

    Attributes:
        sums: over the batch. With class weights, loss / count is the loss of the batch, the
            weighted mean.
        gradient_norm: float32 [], the global norm of the mean gradient, before any clipping; not
            finite if any of its entries is not.
    """

    sums: Sums
    gradient_norm: jax.Array


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


def cross_entropy(
    logits: jax.Array | np.ndarray,
    labels: jax.Array | np.ndarray,
    label_smoothing: float = 0.0,
    class_weights: jax.Array | np.ndarray | None = None,
) -> jax.Array:
    """Return each example's softmax cross-entropy, in nats.

    Args:
        logits: float [B, classes].
        labels: int [B].
        label_smoothing: fraction of the label that is spread evenly over all classes.
        class_weights: float [classes], factors of the classes' terms, as those of
            ``torch.nn.CrossEntropyLoss``: smoothing gives each class its part with its own weight.

    Returns:
        float [B].
    """
    if label_smoothing == 0 and class_weights is None:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = jax.nn.one_hot(labels, logits.shape[1], dtype=logits.dtype)
    if label_smoothing > 0:
        targets = optax.smooth_labels(targets, label_smoothing)
    if class_weights is not None:
        targets = targets * class_weights
    return optax.softmax_cross_entropy(logits, targets)


def make_train_step(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    recipe: Recipe,
    image_size: tuple[int, int],
    micro_batch_size: int,
    layout: Layout | None = None,
    class_weights: np.ndarray | None = None,
) -> Callable[..., tuple[TrainState, StepFigures]]:
    """Return the compiled ``step(state, images, labels, order) -> (state, figures)``.

    ``images`` is uint8 [N, H, W, C], ``labels`` int32 [N], ``order`` int32 [steps, B] from
    `transforms.epoch_order`; the state's step selects the row. The loss is the mean over the
    examples of the batch, weighted by ``class_weights``, float [classes], if given: the sum of the
    weighted losses over the sum of the labels' weights. Padding (-1) does not count. The state is
    donated.

    With a ``layout`` every argument is placed on its mesh (see `make_train_steps`), and each device
    computes its columns of ``order``. Random numbers depend only on the run's key, the step and the
    position of an example in the batch, so the numbers of devices and micro-batches change nothing
    but the order of sums.
    """
    gradient = _make_batch_gradient(graphdef, recipe, image_size, micro_batch_size, class_weights)

    def on_one_device(params, images, labels, indices, key):
        return gradient(params, images, labels, indices, jnp.arange(len(indices)), key)

    summed = on_one_device if layout is None else layout.over_devices(gradient)

    def step(state: TrainState, images, labels, order):
        indices = order[state.step % len(order)]  # [B]
        key = jax.random.fold_in(jax.random.fold_in(state.key, NOISE), state.step)
        grads, sums = summed(state.params, images, labels, indices, key)
        total = sums.count if sums.weight is None else sums.weight
        grads = jax.tree.map(lambda g: g / total, grads)
        if sums.weight is not None:
            sums = replace(sums, loss=sums.loss * (sums.count / sums.weight))
        figures = StepFigures(sums, optax.tree.norm(grads))
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        return TrainState(params, opt_state, state.step + 1, state.key), figures

    return jax.jit(step, donate_argnums=0)


# Folded into the run's key for noise. Epochs are folded in too; none has this number.
NOISE = 2**32 - 1


def _make_batch_gradient(
    graphdef: nnx.GraphDef,
    recipe: Recipe,
    image_size: tuple[int, int],
    micro_batch_size: int,
    class_weights: np.ndarray | None,
) -> Callable[..., tuple[Any, Sums]]:
    """Return a function that computes the summed gradient and metrics of a batch's examples.

    It is ``(params, images, labels, indices, positions, key) -> (grads, sums)``.

    ``indices`` are their positions in the dataset, ``positions`` in the batch, both int32 [B].
    """

    def loss_sum(params, images, labels, weights, keys):
        keys = jax.vmap(jax.random.split)(keys)  # [M, 2]: of dropout, of augmentation
        if recipe.augment != "none":
            shift = transforms.largest_shift(recipe.augment, images.shape[1:3])
            images = transforms.augment(images, keys[:, 1], shift)
        model = nnx.merge(graphdef, params)
        x = transforms.prepare(images, image_size)  # [M, h, w, C]
        logits = model(x, rngs=keys[:, 0])  # [M, classes]
        losses = cross_entropy(logits, labels, recipe.label_smoothing, class_weights)
        loss = jnp.sum(weights * losses)
        predictions = logits.argmax(1)
        correct = jnp.sum(weights * (predictions == labels))
        none = jnp.zeros(logits.shape[1])
        counts = (none.at[classes].add(weights) for classes in (labels, predictions))
        weight = None if class_weights is None else weights @ jnp.asarray(class_weights)[labels]
        return loss, Sums(loss, correct, weights.sum(), *counts, weight=weight)

    @partial(jax.jit, inline=True)  # traced once for its shapes and for the loop
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
        shapes = jax.eval_shape(gradient_of, params, images, labels, *first, key)
        zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return jax.lax.scan(micro, zero, batches)[0]  # over [n, M] each

    return whole


def make_train_steps(
    train_step: Callable[..., tuple[TrainState, StepFigures]],
    most: int,
    layout: Layout | None = None,
    state: TrainState | None = None,
) -> Callable[..., tuple[TrainState, StepFigures]]:
    """Return the compiled ``steps(state, images, labels, order, count) -> (state, figures)``.

    It takes ``count`` <= ``most`` steps in one program, so that a fast device does not wait for the
    host between steps. The figures have a leading axis, [most, ...]; from ``count`` on they are 0.
    The state is donated.

    Args:
        train_step: from `make_train_step`.
        most: largest number of steps per call.
        layout: placement of the arguments; one device if None.
        state: with a ``layout``, a state with the shapes of those to come.
    """

    def steps(state: TrainState, images, labels, order, count):
        def one(
            i: jax.Array, carry: tuple[TrainState, StepFigures]
        ) -> tuple[TrainState, StepFigures]:
            state, new = train_step(carry[0], images, labels, order)
            return state, jax.tree.map(lambda all_, s: all_.at[i].set(s), carry[1], new)

        _, shapes = jax.eval_shape(train_step, state, images, labels, order)
        none = jax.tree.map(lambda s: jnp.zeros((most, *s.shape), s.dtype), shapes)
        if most == 1:  # XLA does not fuse operations across the edge of a loop
            return one(jnp.int32(0), (state, none))
        return jax.lax.fori_loop(0, count, one, (state, none))

    if layout is None:
        return jax.jit(steps, donate_argnums=0)
    specs, examples = layout.specs(state), layout.examples
    taken = (specs, examples, examples, COLUMNS, EVERYWHERE)
    return jax.jit(
        steps,
        donate_argnums=0,
        in_shardings=jax.tree.map(layout.sharding, taken),
        out_shardings=jax.tree.map(layout.sharding, (specs, EVERYWHERE)),
    )


def split_micro_batches(indices: jax.Array, micro_batch_size: int) -> jax.Array:
    """Reshape [B] to [ceil(B / M), M], padded with -1."""
    rows = -(-len(indices) // micro_batch_size)
    filler = rows * micro_batch_size - len(indices)
    padded = jnp.pad(indices, (0, filler), constant_values=-1)
    return padded.reshape(rows, micro_batch_size)
