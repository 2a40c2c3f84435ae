"""Dropout: the rate, the scale, and the same network under the same mask."""

import math

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from torch import nn

import nin_jax
import nin_torch_ref
from nin_jax.models.geometry import trace
from parity_tests.frameworks import as_array, as_nchw
from parity_tests.pairs import Pair, make_pair
from parity_tests.passes import flax_pass, torch_pass
from parity_tests.tolerances import MOMENT_STANDARD_ERRORS

KEY = jax.random.key(7)


class GivenMask(nn.Module):
    """Take the place of dropout: multiply by a given mask [B, C, H, W]."""

    def __init__(self, mask: torch.Tensor):
        super().__init__()
        self.mask = mask

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.mask


def _flax_masks(pair: Pair) -> list[np.ndarray]:
    """Return the outputs of the model's dropouts for ones: 0, or the scale of what is kept."""
    layers = trace(pair.model.variant, pair.images.shape[3], 10, pair.images.shape[1:3])
    shapes = [layer.out_shape for layer in layers if layer.kind == "dropout"]
    dropouts = [*(each for each in pair.model.pool_dropouts if each.rate), pair.model.dropout]
    rngs = nnx.Rngs(dropout=KEY)
    return [
        np.asarray(dropout(jax.numpy.ones((len(pair.images), *shape), float), rngs=rngs))
        for dropout, shape in zip(dropouts, shapes, strict=True)
    ]


def _inject(reference: nin_torch_ref.NiN, masks: list[np.ndarray]) -> None:
    places = (i for i, layer in enumerate(reference.net) if isinstance(layer, nn.Dropout))
    for place, mask in zip(list(places), masks, strict=True):
        reference.net[place] = GivenMask(as_nchw(mask))


@pytest.mark.parametrize("variant", ["nin_cifar10", pytest.param("nin", marks=pytest.mark.slow)])
def test_same_mask_same_logits_and_gradients(variant):
    """After a pool and before the head, or only before the head."""
    pair = make_pair(variant)
    without = torch_pass(pair)
    _inject(pair.reference, _flax_masks(pair))
    expected = torch_pass(pair)
    assert not np.array_equal(expected.logits, without.logits), "the mask changed nothing"
    flax_pass(pair.model)(pair, KEY).assert_same(expected, "float64")


@pytest.mark.parametrize("rate", [0.5, 0.3])
def test_rate_and_scale_match_torch(rate):
    stage = nin_jax.Stage(32, 3, padding=1, mlp=(), pool=None)
    variant = nin_jax.Variant("tiny", (stage,), dropout=rate)
    model = nin_jax.create_model(variant, image_size=8)
    ones = np.ones((16, 32, 32, 32))
    mask = np.asarray(model.dropout(jax.numpy.asarray(ones), rngs=nnx.Rngs(dropout=KEY)))
    expected = as_array(nn.Dropout(rate).train()(torch.from_numpy(ones)))
    np.testing.assert_array_equal(np.unique(mask), np.unique(expected))
    standard_error = math.sqrt(rate * (1 - rate) / mask.size)
    assert abs((mask > 0).mean() - (1 - rate)) < MOMENT_STANDARD_ERRORS * standard_error
