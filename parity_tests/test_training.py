"""Twenty optimiser steps from the same start, on the same batches, end at the same parameters."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import jax
import numpy as np
import optax
import pytest
import torch
from flax import nnx

import nin_jax
import nin_torch_ref
from parity_tests.backward import QUICK_COMPILE, compile_loss_and_gradient
from parity_tests.frameworks import as_array, as_nchw, as_tensor, assert_close
from parity_tests.pairs import make_pair
from parity_tests.tolerances import SGD_STEPS

Batches = list[tuple[np.ndarray, np.ndarray]]

STEPS, BATCH_SIZE = 20, 2
# The smallest odd ones at which the head's maps are not a single pixel.
IMAGE_SIZES = {v: (97, 75) if v == "nin15" else (99, 83) for v in nin_jax.list_variants()}
OPTIMIZERS: Mapping[str, dict[str, Any]] = {
    "plain": {"lr": 0.5},
    "momentum": {"lr": 0.1, "momentum": 0.9},
    "momentum and weight decay": {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-3},
}


def _batches(image_size: tuple[int, int]) -> Batches:
    rng = np.random.default_rng(1)
    shape = (BATCH_SIZE, *image_size, 1)
    return [(rng.random(shape), rng.integers(10, size=BATCH_SIZE)) for _ in range(STEPS)]


def _optax_sgd(
    lr: float, momentum: float | None = None, weight_decay: float = 0.0
) -> optax.GradientTransformation:
    """torch.optim.SGD in optax: the decay is added to the gradient, before the momentum."""
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(lr, momentum))


@cache
def _compiled_gradient(graphdef: nnx.GraphDef):
    """Shared by the optimisers: the gradient is what takes time to compile."""
    return compile_loss_and_gradient(graphdef, compiler_options=QUICK_COMPILE)


def _train_flax(
    model: nin_jax.NiN, batches: Batches, options: Mapping[str, Any]
) -> tuple[list[float], dict[str, np.ndarray]]:
    """The losses, and the final parameters as a state dict."""
    graphdef, params = nnx.split(model, nnx.Param)
    optimizer = _optax_sgd(**options)
    state = optimizer.init(params)

    @jax.jit
    def update(gradients: nnx.State, state: optax.OptState, params: nnx.State):
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    losses = []
    for images, labels in batches:
        (loss, _), gradients = _compiled_gradient(graphdef)(params, images, labels)
        params, state = update(gradients, state, params)
        losses.append(float(loss))
    return losses, nin_jax.convert.to_torch(nnx.merge(graphdef, params))


def _train_torch(
    model: nin_torch_ref.NiN, batches: Batches, options: Mapping[str, Any]
) -> tuple[list[float], dict[str, np.ndarray]]:
    """The same of the reference; it is in eval mode, so dropout is off."""
    optimizer = torch.optim.SGD(model.parameters(), **options)
    losses = [
        float(nin_torch_ref.train_step(model, optimizer, as_nchw(images), as_tensor(labels)))
        for images, labels in batches
    ]
    return losses, {name: as_array(value) for name, value in model.state_dict().items()}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("variant", nin_jax.list_variants())
def test_sgd_steps(variant, optimizer):
    pair = make_pair(variant, image_size=IMAGE_SIZES[variant])
    start = nin_jax.convert.to_torch(pair.model)
    batches, options = _batches(IMAGE_SIZES[variant]), OPTIMIZERS[optimizer]
    losses, params = _train_flax(pair.model, batches, options)
    expected_losses, expected = _train_torch(pair.reference, batches, options)
    assert_close(losses, expected_losses, SGD_STEPS, "losses")
    for name, value in params.items():
        moved = np.abs(value - start[name]).max()
        assert moved > 1e4 * SGD_STEPS * np.abs(value).max(), f"{name} was hardly trained"
        assert_close(value, expected[name], SGD_STEPS, name)
