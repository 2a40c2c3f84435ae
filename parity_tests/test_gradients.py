"""The logits, the loss and the gradient of every parameter."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere

import nin_jax
from nin_jax.models.geometry import trace
from parity_tests.backward import AS_USERS_COMPILE_IT, Backward, flax_backward, torch_backward
from parity_tests.frameworks import as_nchw
from parity_tests.pairs import Pair, make_pair


@pytest.mark.parametrize(
    ("image_size", "in_channels"), [((224, 224), 1), ((224, 224), 3), ((131, 99), 1)], ids=str
)
@pytest.mark.parametrize("variant", nin_jax.list_variants())
def test_float64(variant, in_channels, image_size):
    pair = make_pair(variant, in_channels=in_channels, image_size=image_size)
    actual = flax_backward(pair.model)(pair)
    actual.assert_close(torch_backward(pair), "float64")


def _decisions(layers: list[np.ndarray], kinds: list[str]) -> list[torch.Tensor]:
    """Which activations pass each ReLU, and which of a window's each pool takes.

    The gradient is smooth but for these. Rounding flips one in some millions, on either side,
    and then PyTorch's own float32 gradient is up to 9 % from its float64 gradient.
    """
    maps = [as_nchw(layer) for layer in layers]
    passed = [layer > 0 for layer, kind in zip(maps, kinds, strict=True) if kind == "conv"]
    winners = [
        F.max_pool2d(layer, 3, 2, return_indices=True)[1]
        for layer, following in zip(maps, kinds[1:], strict=False)
        if following == "pool"
    ]
    return passed + winners


def _agree_on_decisions(one: Backward, other: Backward, kinds: list[str]) -> bool:
    pairs = zip(_decisions(one.layers, kinds), _decisions(other.layers, kinds), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def _other_image(pair: Pair, seed: int) -> Pair:
    images = np.random.default_rng(seed).random((1, *pair.images.shape[1:]), np.float32)
    return replace(pair, images=images, labels=pair.labels[:1])


@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize("variant", nin_jax.list_variants())
def test_float32(variant, in_channels):
    """On the first image on which both take the same decisions, as their layers tell."""
    # At 224x224 a few of the millions of ReLUs of the deepest are always within rounding of zero.
    side = 96 if variant in ("nin21", "nin27") else 224
    pair = make_pair(variant, in_channels=in_channels, image_size=(side, side), precision="float32")
    kinds = [layer.kind for layer in trace(pair.model.variant, in_channels, 10, side)]
    kinds = [kind for kind in kinds if kind in ("conv", "pool")]
    as_users_compile_it = in_channels == 1 and variant in ("nin", "nin15")
    options = AS_USERS_COMPILE_IT if as_users_compile_it else None
    backward = flax_backward(pair.model, compiler_options=options)
    for seed in range(30):
        image = _other_image(pair, seed)
        actual, expected = backward(image), torch_backward(image)
        if _agree_on_decisions(actual, expected, kinds):
            return actual.assert_close(expected, "float32")
    pytest.fail("no image on which both frameworks take the same decisions")
