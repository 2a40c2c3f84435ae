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
from parity_tests.backward import flax_backward, torch_backward
from parity_tests.frameworks import as_array, as_nchw
from parity_tests.pairs import Pair, make_pair, no_initial_draws
from parity_tests.tolerances import MOMENT_STANDARD_ERRORS

IMAGE_SIZE = (99, 83)
KEY = jax.random.key(7)


class GivenMask(nn.Module):
    """Stands in for dropout: multiplies by a mask [B, C, H, W] that was drawn elsewhere."""

    def __init__(self, mask: torch.Tensor):
        super().__init__()
        self.mask = mask

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.mask


def _flax_mask(pair: Pair) -> np.ndarray:
    """What the model's dropout makes of ones: 0, or the scale of what is kept."""
    layers = trace(pair.model.variant, pair.images.shape[3], 10, pair.images.shape[1:3])
    (shape,) = (layer.out_shape for layer in layers if layer.kind == "dropout")
    ones = np.ones((len(pair.images), *shape))
    return np.asarray(pair.model.dropout(jax.numpy.asarray(ones), rngs=nnx.Rngs(dropout=KEY)))


def _inject(reference: nin_torch_ref.NiN, mask: np.ndarray) -> None:
    (index,) = (i for i, layer in enumerate(reference.net) if isinstance(layer, nn.Dropout))
    reference.net[index] = GivenMask(as_nchw(mask))


@pytest.mark.parametrize("variant", ["nin_one_1x1", "nin_fc", "nin15"])
def test_same_mask_same_logits_and_gradients(variant):
    pair = make_pair(variant, image_size=IMAGE_SIZE)
    without = torch_backward(pair)
    _inject(pair.reference, _flax_mask(pair))
    expected = torch_backward(pair)
    assert not np.array_equal(expected.logits, without.logits), "the mask changed nothing"
    actual = flax_backward(pair.model)(pair, KEY)
    actual.assert_close(expected, "float64")


@pytest.mark.parametrize("rate", [0.5, 0.3])
def test_rate_and_scale_are_torchs(rate):
    stage = nin_jax.Stage(32, 3, padding=1, mlp=(), pool=False)
    variant = nin_jax.Variant("tiny", (stage,), dropout=rate)
    with no_initial_draws():
        model = nin_jax.create_model(variant, image_size=8)
    ones = np.ones((16, 32, 32, 32))
    mask = np.asarray(model.dropout(jax.numpy.asarray(ones), rngs=nnx.Rngs(dropout=KEY)))
    expected = as_array(nn.Dropout(rate).train()(torch.from_numpy(ones)))
    np.testing.assert_array_equal(np.unique(mask), np.unique(expected))
    standard_error = math.sqrt(rate * (1 - rate) / mask.size)
    assert abs((mask > 0).mean() - (1 - rate)) < MOMENT_STANDARD_ERRORS * standard_error


def test_dropout_is_off_without_rngs():
    pair = make_pair("nin_one_1x1", image_size=IMAGE_SIZE)
    images = jax.numpy.asarray(pair.images)
    first, second = (np.asarray(pair.model(images)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, pair.model(images, rngs=nnx.Rngs(dropout=KEY)))
