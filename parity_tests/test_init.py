"""Initial parameters: PyTorch's distributions, He's moments, and the identity's exact values."""

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from flax import nnx
from scipy.stats import ks_2samp
from torch import nn

import nin_jax
import nin_torch_ref
from nin_jax.models.init import Init
from nin_jax.models.nin import Conv
from nin_jax.models.stages import Convolution
from nin_torch_ref.model import identity_block
from parity_tests.frameworks import as_array
from parity_tests.tolerances import INIT_FALSE_ALARM, MOMENT_STANDARD_ERRORS

IMAGE_SIZE = 96
# A bias of 10 classes is too small a sample of its distribution, so several seeds are drawn.
SEEDS = range(12)
# Enough to reject a bound that is wrong by 5 %, and quick to sort.
MOST_DRAWS = 20_000


def _draws(create) -> dict[str, np.ndarray]:
    """Return the draws of every parameter over the seeds, flattened."""
    states = [create(seed) for seed in SEEDS]
    return {name: np.concatenate([s[name].ravel() for s in states]) for name in states[0]}


def _flax_state(seed: int) -> dict[str, np.ndarray]:
    model = nin_jax.create_model("nin_fc", image_size=IMAGE_SIZE, seed=seed)
    return nin_jax.convert.to_torch(model)


def _torch_state(seed: int) -> dict[str, np.ndarray]:
    model = nin_torch_ref.create_model("nin_fc", image_size=IMAGE_SIZE, seed=1000 + seed)
    return {name: as_array(value) for name, value in model.state_dict().items()}


def _fans() -> dict[str, tuple[int, int]]:
    """Return (fan in, fan out) of every layer, as PyTorch's initializers count them."""
    model = nin_torch_ref.create_model("nin_fc", image_size=IMAGE_SIZE)
    return {
        name: nn.init._calculate_fan_in_and_fan_out(layer.weight)
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    }


def test_weights_and_biases_are_distributed_as_pytorchs():
    actual, expected = _draws(_flax_state), _draws(_torch_state)
    level = INIT_FALSE_ALARM / (len(expected) * len(nin_jax.list_variants()))
    rng = np.random.default_rng(0)
    for name, reference in expected.items():
        ours, theirs = (
            rng.choice(draws, MOST_DRAWS, replace=False) if draws.size > MOST_DRAWS else draws
            for draws in (actual[name], reference)
        )
        result: Any = ks_2samp(ours, theirs)
        assert result.pvalue > level, name


def test_uniform_bounds():
    draws = _draws(_flax_state)
    for layer, (fan_in, fan_out) in _fans().items():
        bounds = {"weight": math.sqrt(6 / (fan_in + fan_out)), "bias": 1 / math.sqrt(fan_in)}
        for kind, bound in bounds.items():
            values = draws[f"{layer}.{kind}"]
            # The largest of n draws misses this range once in 10^9 times.
            nearest = 1 - 20 / values.size
            assert nearest * bound <= np.abs(values).max() <= bound * (1 + 1e-6), (layer, kind)


def _assert_he(weights: np.ndarray, name: str) -> None:
    """Assert the mean and variance of He's distribution; weights [O, C, K, K] or [M, N]."""
    _assert_moments(weights, 2 / math.prod(weights.shape[1:]), name)


def _assert_moments(weights: np.ndarray, variance: float, name: str) -> None:
    """Assert that values come from a distribution of mean 0 and this variance."""
    weights, n = weights.astype(np.float64), weights.size
    assert abs(weights.mean()) < MOMENT_STANDARD_ERRORS * math.sqrt(variance / n), name
    # The sample variance of n normal values has a standard error of variance * sqrt(2 / n).
    error = abs(weights.var() - variance) / variance
    assert error < MOMENT_STANDARD_ERRORS * math.sqrt(2 / n), name


@pytest.mark.parametrize("init", ["he", "gaussian"])
def test_moments(init):
    for state in _states("nin_fc", init):
        for name, value in state.items():
            if not name.endswith(".weight"):
                assert not value.any(), name
            elif init == "he":
                _assert_he(value, name)
            else:
                _assert_moments(value, 0.05**2, name)


# Kernels with even sides, without padding, with one channel, and a first convolution that keeps the
# number of channels but is not the identity.
OWN_BLOCKS = ((32, 1, 1, 0), (32, 3, 2, 0), (1, 3, 1, 1), (64, 5, 1, 2), (None, 1, 1, 0))
OWN_MLPS = (((2, 1), (3, 1)), ((3, 0),), ((4, 2), (1, 0)), (), ((3, 1), (2, 0)))
OWN = {
    "own": (
        nin_jax.Variant(
            "own",
            tuple(
                nin_jax.Stage(*block, mlp=mlp, pool=None)
                for block, mlp in zip(OWN_BLOCKS[:-1], OWN_MLPS[:-1], strict=True)
            ),
            nin_jax.Stage(*OWN_BLOCKS[-1], mlp=OWN_MLPS[-1], pool=None),
        ),
        nin_torch_ref.Architecture(OWN_BLOCKS, OWN_MLPS, (None,) * (len(OWN_BLOCKS) - 1)),
    )
}


def _states(variant: str, init: Init) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return Flax's and the reference's initial parameters, of a variant or of `OWN`."""
    name, architecture = OWN.get(variant, (variant, variant))
    options: dict[str, Any] = {"image_size": IMAGE_SIZE, "init": init}
    reference = nin_torch_ref.create_model(architecture, **options)
    expected = {name: as_array(value) for name, value in reference.state_dict().items()}
    return nin_jax.convert.to_torch(nin_jax.create_model(name, **options)), expected


@pytest.mark.parametrize("variant", ["nin_3x3", "nin_fc", "nin_cifar10", *OWN])
def test_identity(variant):
    actual, expected = _states(variant, "identity")
    assert actual.keys() == expected.keys()
    *_, prefix = (name[: -len("0.bias")] for name in expected if name.endswith(".0.bias"))
    heads = (name for name in expected if name.startswith(prefix) and name.endswith(".bias"))
    own = next(name for name in heads if len(expected[name]) == 10)  # one channel per class
    for name, value in expected.items():
        kernel = re.fullmatch(r"net\.\d+\.(\d+)\.weight", name)
        later = kernel and kernel[1] != "0" and value.shape[0] == value.shape[1]
        if name.endswith(".weight") and not later:
            _assert_he(actual[name], name)
            _assert_he(value, name)
            continue
        exact = nn.init.dirac_(torch.empty(value.shape)) if later else torch.zeros(value.shape)
        exact += name == own
        assert actual[name].dtype == value.dtype
        np.testing.assert_array_equal(actual[name], exact, name)
        np.testing.assert_array_equal(value, exact, name)


def test_he_applies_to_later_convolutions_that_change_the_channels():
    options: dict[str, Any] = {"init": "identity", "dtype": "float32", "param_dtype": "float32"}
    spec = Convolution(48, 64, kernel=3, stride=1, padding=1)
    ours = Conv(spec, follows=True, rngs=nnx.Rngs(params=0), **options)
    block = nn.Sequential(nn.Conv2d(1, 48, 3), nn.Conv2d(48, 64, 3), nn.Conv2d(64, 64, 3))
    drawn = block[1].get_parameter("weight").clone()
    identity_block(block)
    _assert_he(np.asarray(ours.kernel[...]).transpose(3, 2, 0, 1), "nin_jax")
    assert torch.equal(block[1].get_parameter("weight"), drawn)
    assert not torch.equal(block[2].get_parameter("weight"), drawn)


def test_the_seed_determines_the_draws():
    same, again, other = (_flax_state(seed) for seed in (3, 3, 4))
    for name, value in same.items():
        np.testing.assert_array_equal(value, again[name])
        assert not np.array_equal(value, other[name])


def test_the_reference_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    nin_torch_ref.create_model("nin", image_size=IMAGE_SIZE)
    assert torch.equal(torch.get_rng_state(), before)
