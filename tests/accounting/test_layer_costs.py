"""The costs of each layer, by formula."""

from dataclasses import replace

import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

import nin_jax
from nin_jax.accounting.account import account
from nin_jax.accounting.account_tables import layer_table
from nin_jax.accounting.layers import layer_costs, taps_on_pixels
from nin_jax.models.geometry import trace
from tests.support.accounts import shapes_of


@given(st.integers(1, 30), st.integers(1, 7), st.integers(1, 4), st.integers(0, 4))
def test_taps_on_pixels(side, kernel, stride, padding):
    padded = [False] * padding + [True] * side + [False] * padding
    starts = range(0, len(padded) - kernel + 1, stride)
    expected = sum(sum(padded[start : start + kernel]) for start in starts)
    assert taps_on_pixels(side, len(starts), kernel, stride, padding) == expected


def test_total_intensity_is_total_flops_over_total_bytes():
    result = account("nin", image_size=96, batch_size=4, precision="bfloat16", xla=False)
    moved = sum(layer.moved_bytes(4, 2) for layer in result.layers)
    flops = 4 * sum(layer.flops() for layer in result.layers)
    assert result.intensity() == flops / moved
    each = [result.intensity(layer) for layer in result.layers]
    assert min(each) < result.intensity() < max(each)
    total = dict(zip(layer_table(result).headings, layer_table(result).rows[-1], strict=True))
    assert total["FLOP/byte"] == round(result.intensity(), 2)


def test_a_layer_without_a_rule_raises():
    model = shapes_of("nin_one_1x1", image_size=67)
    model.blocks[0].convs[1] = nnx.BatchNorm(96, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"no rule counts blocks\.0\.convs\.1, a BatchNorm"):
        account(model, xla=False)
    model = shapes_of("nin_one_1x1", image_size=67)
    model.head.convs.append(model.head.convs[0])
    model.head.convs[1] = shapes_of("nin15", image_size=67).blocks[0].convs[0]
    with pytest.raises(ValueError, match="the model has"):
        account(model, xla=False)
    layers = trace(nin_jax.get_variant("nin"), 1, 10, 96)
    odd = replace(layers[3], kind="norm")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"no rule counts layer block1\.pool of kind 'norm'"):
        layer_costs([*layers[:3], odd, *layers[4:]])
