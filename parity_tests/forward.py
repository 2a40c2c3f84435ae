"""What each framework computes on the way from images to logits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any
from unittest import mock

import jax
import numpy as np
import torch
from flax import nnx
from torch import nn

import nin_jax
import nin_torch_ref
from nin_jax.models import ops
from parity_tests.frameworks import as_array, as_nchw, as_nhwc
from parity_tests.pairs import Pair


@dataclass(frozen=True)
class Forward:
    """What a network computes, channels last: after every ReLU and pool, every block, the end."""

    layers: list[np.ndarray]
    blocks: list[np.ndarray]
    logits: np.ndarray


@contextmanager
def recording_torch(
    model: nin_torch_ref.NiN,
) -> Iterator[tuple[list[np.ndarray], list[np.ndarray]]]:
    """Collects the outputs of every ReLU and pool, and of every block, while it is open."""
    layers: list[np.ndarray] = []
    blocks: list[np.ndarray] = []

    def keep(outputs: list[np.ndarray]) -> Callable[..., None]:
        return lambda module, inputs, output: outputs.append(as_nhwc(output))

    hooks = [
        module.register_forward_hook(keep(blocks if isinstance(module, nn.Sequential) else layers))
        for module in model.net.modules()
        if isinstance(module, nn.ReLU | nn.MaxPool2d | nn.Sequential) and module is not model.net
    ]
    try:
        yield layers, blocks
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def recording_flax() -> Iterator[tuple[list[jax.Array], list[jax.Array]]]:
    """The same of Flax's, while a model is traced."""
    layers: list[jax.Array] = []
    blocks: list[jax.Array] = []

    def keep(function: Callable[..., jax.Array], outputs: list[jax.Array]):
        @wraps(function)
        def wrapper(*args: Any) -> jax.Array:
            outputs.append(function(*args))
            return outputs[-1]

        return wrapper

    with (
        mock.patch.object(nnx, "relu", keep(nnx.relu, layers)),
        mock.patch.dict(vars(ops.FAST), max_pool=keep(ops.max_pool, layers)),
        mock.patch.object(nin_jax.NiNBlock, "__call__", keep(nin_jax.NiNBlock.__call__, blocks)),
    ):
        yield layers, blocks


def torch_forward(pair: Pair) -> Forward:
    """The reference's outputs."""
    with torch.no_grad(), recording_torch(pair.reference) as (layers, blocks):
        logits = as_array(pair.reference(as_nchw(pair.images)))
    return Forward(layers, blocks, logits)


def flax_forward(model: nin_jax.NiN, images: np.ndarray) -> Forward:
    """The model's outputs, from one compiled call."""
    graphdef, params = nnx.split(model, nnx.Param)

    @jax.jit
    def forward(params: nnx.State, images: jax.Array):
        with recording_flax() as (layers, blocks):
            logits = nnx.merge(graphdef, params)(images)
        return layers, blocks, logits

    return Forward(*jax.tree.map(np.asarray, forward(params, images)))
