"""Every layer, every block and the logits, for all variants, channels, sizes and precisions."""

import pytest

import nin_jax
from nin_jax.models.geometry import trace
from nin_jax.training.config import Init
from parity_tests.forward import flax_forward, torch_forward
from parity_tests.frameworks import assert_close
from parity_tests.pairs import make_pair
from parity_tests.tolerances import FORWARD, Precision


def _assert_same(
    variant: str,
    in_channels: int,
    image_size: tuple[int, int],
    precision: Precision,
    init: Init = "xavier",
) -> None:
    pair = make_pair(
        variant, in_channels=in_channels, image_size=image_size, precision=precision, init=init
    )
    actual, expected = flax_forward(pair.model, pair.images), torch_forward(pair)
    layers = trace(nin_jax.get_variant(variant), in_channels, 10, image_size)
    names = [layer.name for layer in layers if layer.kind in ("conv", "pool")]
    bound = FORWARD[precision]
    for name, a, e in zip(names, actual.layers, expected.layers, strict=True):
        assert_close(a, e, bound, name)
    for i, (a, e) in enumerate(zip(actual.blocks, expected.blocks, strict=True), start=1):
        assert_close(a, e, bound, f"block {i}")
    assert_close(actual.logits, expected.logits, bound, "logits")


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("image_size", [(224, 224), (227, 199), (131, 99)], ids=str)
@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize("variant", nin_jax.list_variants())
def test_layers_blocks_and_logits(variant, in_channels, image_size, precision):
    _assert_same(variant, in_channels, image_size, precision)


@pytest.mark.parametrize("variant", nin_jax.list_variants())
def test_identity_layers_before_training(variant):
    _assert_same(variant, 1, (99, 83), "float64", "identity")
