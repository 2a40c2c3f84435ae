"""Our side: nin_jax, nin_jax with one of its operations replaced, and plain Flax."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

import jax
import numpy as np
from flax import nnx

import nin_jax
from benchmarks.speed.work import LEARNING_RATE, PLAIN, Call, Work
from nin_jax.data import transforms
from nin_jax.models import ops, processor, taps, winograd
from nin_jax.models.block import drop
from nin_jax.models.nin import with_operations
from nin_jax.training.device import default_micro_batch_size
from nin_jax.training.optimizer import make_optimizer
from nin_jax.training.recipes import Recipe
from nin_jax.training.step import init_train_state, make_train_step


def nin_jax_call(
    work: Work,
    micro_batch_size: int | None = None,
    patched: AbstractContextManager[Any] | None = None,
    convert: Callable[[nin_jax.NiN], nnx.Module] = lambda model: model,
) -> Call:
    """Build and compile our training step or prediction.

    Args:
        work: what to do.
        micro_batch_size: None for the default.
        patched: a context that replaces some of our code, open during compilation.
        convert: returns the model to use in place of ours.
    """
    with patched or nullcontext():
        model = convert(new_model(work))
        if work.task == "predict":
            return _our_prediction(work, model)
        return _our_training(work, model, micro_batch_size, work.images(), work.labels())


def step_call(work: Work, images: np.ndarray, labels: np.ndarray) -> Call:
    """Build our training step on a batch of these images, uint8 [N, H, W, C] of any size."""
    return _our_training(work, new_model(work), None, images, labels)


def order_call(images: int, batch_size: int) -> Call:
    """Build the order of an epoch over that many images."""
    make_order = jax.jit(transforms.epoch_order, static_argnums=(2, 3))
    key = jax.random.key(0)
    return lambda: jax.block_until_ready(make_order(key, 0, images, batch_size))


def new_model(work: Work) -> nin_jax.NiN:
    """Return a new model for the work."""
    return nin_jax.create_model(
        work.variant,
        in_channels=work.in_channels,
        num_classes=work.num_classes,
        image_size=work.sides,
        dtype=work.precision,
    )


def _our_training(
    work: Work, model: Any, micro_batch_size: int | None, images: np.ndarray, labels: np.ndarray
) -> Call:
    return compiled_step(work, model, micro_batch_size, images, labels)[1]


def compiled_step(
    work: Work, model: Any, micro_batch_size: int | None, images: np.ndarray, labels: np.ndarray
) -> tuple[jax.stages.Compiled, Call]:
    """Return our compiled training step, and a call that makes a step with it."""
    graphdef, params = nnx.split(model, nnx.Param)
    recipe = Recipe(
        lr=LEARNING_RATE,
        optimizer=work.optimizer,
        momentum=work.momentum,
        batch_size=work.batch_size,
    )
    optimizer = make_optimizer(recipe, 1_000_000)
    micro = micro_batch_size or default_micro_batch_size(new_model(work), work.batch_size)
    step = make_train_step(graphdef, optimizer, recipe, work.sides, min(micro, work.batch_size))
    state = init_train_state(params, optimizer)
    order = np.random.default_rng(2).permutation(len(labels))[None, : work.batch_size]
    arguments = jax.device_put((images, labels, order.astype(np.int32)))
    compiled = step.lower(state, *arguments).compile()  # here, while a patch is in effect

    def call() -> None:
        nonlocal state
        state, sums = compiled(state, *arguments)
        jax.block_until_ready((state.params, sums))

    return compiled, call


def _our_prediction(work: Work, model: Any) -> Call:
    predictor = nin_jax.Predictor(model, work.batch_size)
    images = jax.device_put(work.images().astype(np.float32) / 255)
    return lambda: predictor(images)


class PlainNiN(nnx.Module):
    """The network as Flax's guide builds one: nnx.Conv and XLA's pools, no operation of ours."""

    def __init__(self, ours: nin_jax.NiN):
        self.stages, self.dropout = ours.variant.stages, nnx.Dropout(ours.variant.dropout)
        self.dropouts = nnx.List([nnx.Dropout(stage.dropout) for stage in self.stages])
        self.blocks = nnx.List([_plain_block(block) for block in ours.blocks])
        self.head = _plain_block(ours.head)
        self.linear = ours.linear

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | jax.Array | None = None) -> jax.Array:
        stages = zip(self.stages, self.blocks, self.dropouts, strict=True)
        for i, (stage, block, dropout) in enumerate(stages):
            for conv in block:
                x = nnx.relu(conv(x))
            # One reduce_window, as in nnx.max_pool and avg_pool, which do not round up.
            x = ops.PLAIN.pool(x, stage.pool) if stage.pool else x
            x = drop(dropout, x, rngs, i + 1) if dropout.rate else x
        x = drop(self.dropout, x, rngs)
        for conv in self.head:
            x = nnx.relu(conv(x))
        if self.linear is None:
            return x.mean((1, 2))
        return self.linear(x.transpose(0, 3, 1, 2).reshape(len(x), -1))


def _plain_block(block: nin_jax.NiNBlock) -> nnx.List:
    def plain(conv: Any) -> nnx.Conv:
        size, _, channels, features = conv.kernel.shape
        return nnx.Conv(
            channels,
            features,
            (size, size),
            strides=conv.strides,
            padding=[(conv.padding, conv.padding)] * 2,
            rngs=nnx.Rngs(0),
        )

    return nnx.List([plain(conv) for conv in block.convs])


def plain_flax_call(work: Work) -> Call:
    """Build the training step of a plain Flax model, the whole batch at once."""
    return nin_jax_call(work, work.batch_size, convert=PlainNiN)


def ablations(work: Work) -> dict[str, Callable[[], Call]]:
    """Return functions that build our step with one operation replaced, by what is replaced."""

    def is_pointwise(kernel: jax.Array) -> bool:
        return kernel.shape[:2] == (1, 1)

    def xla_gradients(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
        chosen = ops.FAST if is_pointwise(kernel) else ops.PLAIN
        return chosen.conv(x, kernel, stride, padding)

    def plain_pointwise(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
        chosen = ops.PLAIN if is_pointwise(kernel) else ops.FAST
        return chosen.conv(x, kernel, stride, padding)

    def build(micro_batch_size: int | None = None, **operations: Any) -> Callable[[], Call]:
        changed = replace(ops.FAST, **operations)
        convert = partial(with_operations, operations=changed)
        return lambda: nin_jax_call(work, micro_batch_size, convert=convert)

    def patched(module: Any, name: str, value: Any) -> Callable[[], Call]:
        return lambda: nin_jax_call(work, patched=patch.object(module, name, value))

    def plain_pools(kind: str) -> Callable[[], Call]:
        return build(pool=lambda x, p: (ops.PLAIN if p.kind == kind else ops.FAST).pool(x, p))

    whole = work.batch_size
    applicable = {}
    if any(layer.pool and layer.pool.kind == "average" for layer in work.layers):
        applicable["average pool as nnx.avg_pool"] = plain_pools("average")
    if work.precision == "bfloat16" and processor.multiplies_bfloat16():
        float32 = patched(processor, "multiplies_bfloat16", lambda: False)
        applicable["bfloat16 convolutions in float32"] = float32
    else:
        applicable["without Winograd"] = patched(winograd, "applies", lambda *_: False)
    return applicable | {
        "small maps as other maps": patched(taps, "applies", lambda *_: False),
        "max pool as nnx.max_pool": plain_pools("max"),
        "without micro-batches": build(whole),
        # Inside a loop, XLA's own gradients of convolutions become naive loops.
        "without micro-batches, XLA's gradients": build(whole, conv=xla_gradients),
        "without micro-batches, 1x1 as convolution": build(whole, conv=plain_pointwise),
        PLAIN: lambda: plain_flax_call(work),
    }
