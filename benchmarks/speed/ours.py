"""Our side: nin_jax, nin_jax with an operation given up, and plain Flax."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import jax
import numpy as np
from flax import nnx

import nin_jax
from benchmarks.speed.work import LEARNING_RATE, Call, Work
from nin_jax.data import transforms
from nin_jax.models import ops
from nin_jax.models.nin import drop, with_operations
from nin_jax.training.config import Recipe
from nin_jax.training.device import default_micro_batch_size
from nin_jax.training.optimizer import make_optimizer
from nin_jax.training.step import init_train_state, make_train_step

PLAIN = "plain Flax: nnx.Conv, nnx.max_pool"


def nin_jax_call(
    work: Work,
    micro_batch_size: int | None = None,
    patched: AbstractContextManager[Any] | None = None,
    make_model: Callable[[Work], nnx.Module] | None = None,
) -> Call:
    """Our step or batch.

    Args:
        work: what to do.
        micro_batch_size: None for the default.
        patched: a context that replaces some of our operations, open while we compile.
        make_model: builds another model to put in ours' place.
    """
    with patched or nullcontext():
        model = (make_model or _our_model)(work)
        if work.task == "predict":
            return _our_prediction(work, model)
        return _our_training(work, model, micro_batch_size, work.images(), work.labels())


def step_call(work: Work, images: np.ndarray, labels: np.ndarray) -> Call:
    """Our training step on a batch out of these images, uint8 [N, H, W, C] of any size."""
    return _our_training(work, _our_model(work), None, images, labels)


def order_call(images: int, batch_size: int) -> Call:
    """The order of an epoch over that many images."""
    make_order = jax.jit(transforms.epoch_order, static_argnums=(2, 3))
    key = jax.random.key(0)
    return lambda: jax.block_until_ready(make_order(key, 0, images, batch_size))


def _our_model(work: Work) -> nin_jax.NiN:
    return nin_jax.create_model(
        work.variant,
        in_channels=work.in_channels,
        num_classes=work.num_classes,
        image_size=work.sides,
        dtype=work.precision,
    )


def _our_training(
    work: Work,
    model: Any,
    micro_batch_size: int | None,
    images: np.ndarray,
    labels: np.ndarray,
) -> Call:
    graphdef, params = nnx.split(model, nnx.Param)
    recipe = Recipe(
        lr=LEARNING_RATE,
        optimizer=work.optimizer,
        momentum=work.momentum,
        batch_size=work.batch_size,
    )
    optimizer = make_optimizer(recipe, 1_000_000)
    micro = micro_batch_size or default_micro_batch_size(_our_model(work)) or work.batch_size
    step = make_train_step(graphdef, optimizer, recipe, work.sides, min(micro, work.batch_size))
    state = init_train_state(params, optimizer)
    order = np.random.default_rng(2).permutation(len(labels))[None, : work.batch_size]
    arguments = jax.device_put((images, labels, order.astype(np.int32)))
    # Here and now, while the patches hold.
    compiled = step.lower(state, *arguments).compile()

    def call() -> None:
        nonlocal state
        state, sums = compiled(state, *arguments)
        jax.block_until_ready((state.params, sums))

    return call


def _our_prediction(work: Work, model: Any) -> Call:
    predictor = nin_jax.Predictor(model, work.batch_size)
    images = jax.device_put(work.images().astype(np.float32) / 255)
    return lambda: predictor(images)


class PlainNiN(nnx.Module):
    """The network as Flax's guide would have it: nnx.Conv, nnx.max_pool, nothing of ours."""

    def __init__(self, ours: nin_jax.NiN):
        self.stages, self.dropout = ours.variant.stages, nnx.Dropout(ours.variant.dropout)
        self.blocks = nnx.List([_plain_block(block) for block in ours.blocks])
        self.head = _plain_block(ours.head)
        self.linear = ours.linear

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | jax.Array | None = None) -> jax.Array:
        for stage, block in zip(self.stages, self.blocks, strict=True):
            for conv in block:
                x = nnx.relu(conv(x))
            if stage.pool:
                x = nnx.max_pool(x, (3, 3), (2, 2), "VALID")
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
            strides=conv.stride,
            padding=[(conv.padding, conv.padding)] * 2,
            rngs=nnx.Rngs(0),
        )

    return nnx.List([plain(conv) for conv in block.convs])


def plain_flax_call(work: Work) -> Call:
    """The training step around a plain Flax model, the whole batch at once."""
    return nin_jax_call(work, work.batch_size, make_model=lambda work: PlainNiN(_our_model(work)))


@contextmanager
def without(*replacements: tuple[Any, str, Any]) -> Iterator[None]:
    """A context in which attributes are replaced: (owner, name, value) each."""
    with ExitStack() as stack:
        for owner, name, value in replacements:
            stack.enter_context(patch.object(owner, name, value))
        yield


def ablations(work: Work) -> dict[str, Callable[[], Call]]:
    """Our step with one of its operations given up, by what is given up."""
    plain_gradient = (ops, "_conv", ops._plain_conv)
    plain_pool = replace(ops.FAST, max_pool=ops.PLAIN.max_pool)
    no_winograd = (ops, "_winograd_pays", lambda *_: False)

    def plain_pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return ops._plain_conv(x, kernel[None, None], 1, 0)

    def call(*patches: tuple[Any, str, Any], whole: bool = False) -> Callable[[], Call]:
        micro = work.batch_size if whole else None
        return lambda: nin_jax_call(work, micro, without(*patches))

    return {
        "without Winograd": call(no_winograd),
        "max pool as nnx.max_pool": lambda: nin_jax_call(
            work, make_model=lambda work: with_operations(_our_model(work), plain_pool)
        ),
        "without micro-batches": call(whole=True),
        # XLA's own gradients of convolutions fall to naive loops inside a loop.
        "without micro-batches, XLA's gradients": call(plain_gradient, whole=True),
        "without micro-batches, 1x1 as convolution": call(
            (ops, "_pointwise", plain_pointwise), whole=True
        ),
        PLAIN: lambda: plain_flax_call(work),
    }
