"""The ladder: every layer, every block, the logits, the loss and the gradient of every parameter.

By default four variants climb it in float64, and one in float32, at one size. The slow tests add
the others, and in float64 the published size; for six also images of three channels at a larger,
odd size, with the identity initialization. In float32 nin and nin15 climb it at the published size
too.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

import nin_jax
import nin_torch_ref
from nin_jax.models import ops
from nin_jax.models.geometry import Layer, as_height_width
from nin_jax.models.nin import with_operations
from nin_jax.models.stages import Pool
from nin_torch_ref.architectures import MAX_3X3
from parity_tests.frameworks import as_array, as_nchw, of_the_cpu
from parity_tests.pairs import Pair, distinct_variants, fast, image_size_of, make_pair
from parity_tests.passes import AS_USERS_COMPILE, Pass, flax_pass, torch_pass

FOUR = ("nin_3x3", "nin_fc", "nin15", "nin_cifar10")
EVERY_LAYER = (*FOUR, "nin_paper", "nin_imagenet")  # the last two round the sides of maps up
PUBLISHED = ["nin", "nin15"]  # their layers, at 224x224, are those of most others


@pytest.mark.parametrize("variant", fast(*FOUR))
def test_float64(variant):
    pair = make_pair(variant)
    flax_pass(pair.model)(pair).assert_same(torch_pass(pair), "float64")


@pytest.mark.slow
@pytest.mark.parametrize("variant", distinct_variants())
def test_float64_at_the_published_size(variant):
    sides = as_height_width(nin_jax.get_variant(variant).image_size)
    pair = make_pair(variant, image_size=sides)
    flax_pass(pair.model)(pair).assert_same(torch_pass(pair), "float64")


@pytest.mark.slow
@pytest.mark.parametrize("variant", EVERY_LAYER)
def test_float64_of_color_images_of_an_odd_size_from_the_identity(variant):
    sides = (227, 199) if nin_jax.get_variant(variant).image_size == 224 else (35, 28)
    init = "identity" if variant != "nin_3x3" else "xavier"  # see the next test
    pair = make_pair(variant, in_channels=3, image_size=sides, init=init)
    flax_pass(pair.model)(pair).assert_same(torch_pass(pair), "float64")


@of_the_cpu
def test_a_3x3_identity_keeps_zeros_only_without_winograd():
    """The one known difference of gradients, and what is equal nevertheless.

    After a ReLU many activations are exactly 0. A 3x3 identity passes them on, and the next ReLU
    has no gradient there. Winograd's sums round such a zero to about 1e-16 of its neighbors, so
    that some of these ReLUs pass the gradient. Until the first optimizer step moves the
    kernels, the gradients of ``nin_3x3`` with ``init="identity"`` therefore differ from PyTorch's.
    """
    mlp = ((3, 1), (3, 1))
    variant = nin_jax.Variant(
        "identities",
        (nin_jax.Stage(32, 5, padding=2, mlp=mlp),),
        nin_jax.Stage(None, 3, padding=1, mlp=mlp, pool=None),
    )
    blocks = (32, 5, 1, 2), (None, 3, 1, 1)
    architecture = nin_torch_ref.Architecture(blocks, (mlp,) * 2, (MAX_3X3,))
    pair = make_pair(variant, architecture, image_size=(21, 24), init="identity")
    fast, expected = flax_pass(pair.model)(pair), torch_pass(pair)
    fast.assert_same_forward(expected, "float64")
    with pytest.raises(AssertionError):
        fast.assert_same_gradients(expected, "float64")
    plain = flax_pass(with_operations(pair.model, ops.PLAIN))(pair)
    plain.assert_same_gradients(expected, "float64")

    with torch.no_grad():  # no activation before a ReLU is zero any more
        for parameter in pair.reference.parameters():
            if parameter.ndim == 1:
                parameter -= 0.01
    weights = {name: as_array(value) for name, value in pair.reference.state_dict().items()}
    nin_jax.convert.load_state_dict(pair.model, weights)
    flax_pass(pair.model)(pair).assert_same_gradients(torch_pass(pair), "float64")


def _winners(output: torch.Tensor, pool: Pool) -> torch.Tensor:
    options = pool.size, pool.stride, pool.padding
    return F.max_pool2d(output, *options, ceil_mode=pool.round_up, return_indices=True)[1]


def _decisions(outputs: list[np.ndarray], layers: list[Layer]) -> list[torch.Tensor]:
    """Return which activations pass each ReLU, and which element of a window each max pool takes.

    The gradient is smooth between changes of these. Rounding changes one in some millions, on
    either side, and then PyTorch's own float32 gradient is up to 9 % from its float64 gradient.
    """
    maps = [as_nchw(output) for output in outputs]
    passed = [each > 0 for each, layer in zip(maps, layers, strict=True) if layer.kind == "conv"]
    winners = [
        _winners(each, layer.pool)
        for each, layer in zip(maps, layers[1:], strict=False)
        if layer.pool and layer.pool.kind == "max"
    ]
    return passed + winners


def _same_decisions(one: Pass, other: Pass, layers: list[Layer]) -> bool:
    pairs = zip(_decisions(one.layers, layers), _decisions(other.layers, layers), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def _other_image(pair: Pair, seed: int) -> Pair:
    images = np.random.default_rng(seed).random((1, *pair.images.shape[1:]), np.float32)
    return replace(pair, images=images, labels=pair.labels[:1])


@pytest.mark.parametrize("variant", fast("nin"))
def test_float32(variant):
    as_users = AS_USERS_COMPILE if variant in PUBLISHED else None
    _check_float32(variant, image_size_of(variant), as_users)


@pytest.mark.slow
@pytest.mark.parametrize("variant", PUBLISHED)
def test_float32_at_the_published_size(variant):
    _check_float32(variant, (224, 224))


def _check_float32(variant, image_size, compiler_options=None):
    """Compare gradients on the first image for which both frameworks take the same decisions."""
    pair = make_pair(variant, image_size=image_size, precision="float32")
    layers = [layer for layer in pair.model.layers if layer.kind in ("conv", "pool")]
    run = flax_pass(pair.model, compiler_options=compiler_options)
    for seed in range(30):
        image = _other_image(pair, seed)
        actual, expected = run(image), torch_pass(image)
        actual.assert_same_forward(expected, "float32")
        if _same_decisions(actual, expected, layers):
            return actual.assert_same_gradients(expected, "float32")
    pytest.fail("no image for which both frameworks take the same decisions")
