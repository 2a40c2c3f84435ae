"""Initial parameters: PyTorch's distributions, and He's moments."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torch import nn

import nin_jax
import nin_torch_ref
from parity_tests.frameworks import as_array
from parity_tests.tolerances import INIT_FALSE_ALARM, MOMENT_STANDARD_ERRORS

IMAGE_SIZE = 96
# A bias of 10 classes says little about its distribution; its draws of several seeds do.
SEEDS = range(12)
# Enough for a bound wrong by 5 % to fail by far, and few enough to sort in no time.
MOST_DRAWS = 20_000


def _draws(create, variant: str, seeds: range = SEEDS) -> dict[str, np.ndarray]:
    """Every parameter's draws, over the seeds, flattened."""
    states = [create(variant, seed) for seed in seeds]
    return {name: np.concatenate([s[name].ravel() for s in states]) for name in states[0]}


def _flax_state(variant: str, seed: int) -> dict[str, np.ndarray]:
    model = nin_jax.create_model(variant, image_size=IMAGE_SIZE, seed=seed)
    return nin_jax.convert.to_torch(model)


def _torch_state(variant: str, seed: int) -> dict[str, np.ndarray]:
    model = nin_torch_ref.create_model(variant, image_size=IMAGE_SIZE, seed=1000 + seed)
    return {name: as_array(value) for name, value in model.state_dict().items()}


def _fans(variant: str) -> dict[str, tuple[int, int]]:
    """(fan in, fan out) of every layer, as PyTorch's initialisers count them."""
    model = nin_torch_ref.create_model(variant, image_size=IMAGE_SIZE)
    return {
        name: nn.init._calculate_fan_in_and_fan_out(layer.weight)
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    }


@pytest.mark.parametrize("variant", nin_jax.list_variants())
def test_weights_and_biases_are_distributed_as_pytorchs(variant):
    actual = _draws(_flax_state, variant)
    expected = _draws(_torch_state, variant)
    level = INIT_FALSE_ALARM / (len(expected) * len(nin_jax.list_variants()))
    rng = np.random.default_rng(0)
    for name, reference in expected.items():
        ours, theirs = (
            rng.choice(draws, MOST_DRAWS, replace=False) if draws.size > MOST_DRAWS else draws
            for draws in (actual[name], reference)
        )
        result: Any = ks_2samp(ours, theirs)
        assert result.pvalue > level, name


@pytest.mark.parametrize("variant", ["nin_fc", "nin15"])
def test_uniform_bounds(variant):
    draws = _draws(_flax_state, variant)
    for layer, (fan_in, fan_out) in _fans(variant).items():
        bounds = {"weight": math.sqrt(6 / (fan_in + fan_out)), "bias": 1 / math.sqrt(fan_in)}
        for kind, bound in bounds.items():
            values = draws[f"{layer}.{kind}"]
            # The largest of n draws lies within 20 / n of the bound but once in 10^9.
            nearest = 1 - 20 / values.size
            assert nearest * bound <= np.abs(values).max() <= bound * (1 + 1e-6), (layer, kind)


@pytest.mark.parametrize("variant", ["nin_fc", "nin15"])
def test_he_moments(variant):
    model = nin_jax.create_model(variant, image_size=IMAGE_SIZE, init="he")
    state = nin_jax.convert.to_torch(model)
    for layer, (fan_in, _) in _fans(variant).items():
        weights, variance = state[f"{layer}.weight"].astype(np.float64), 2 / fan_in
        n = weights.size
        assert abs(weights.mean()) < MOMENT_STANDARD_ERRORS * math.sqrt(variance / n), layer
        # The sample variance of n normal values has a standard error of variance * sqrt(2 / n).
        error = abs(weights.var() - variance) / variance
        assert error < MOMENT_STANDARD_ERRORS * math.sqrt(2 / n), layer
        assert not state[f"{layer}.bias"].any(), layer


def test_seeds_decide():
    same, again, other = (_flax_state("nin_one_1x1", seed) for seed in (3, 3, 4))
    for name, value in same.items():
        np.testing.assert_array_equal(value, again[name])
        assert not np.array_equal(value, other[name])


def test_the_reference_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    nin_torch_ref.create_model("nin", image_size=IMAGE_SIZE)
    assert torch.equal(torch.get_rng_state(), before)
