"""Random architectures: both frameworks agree to the last digits, or both raise."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis.strategies import DrawFn

import nin_jax
import nin_torch_ref
from nin_torch_ref.architectures import ConvTuple, Mlp
from parity_tests.pairs import make_pair, random_cases
from parity_tests.passes import flax_pass, torch_pass


@dataclass(frozen=True)
class Network:
    """One network in the notation of each package, and its sizes."""

    variant: nin_jax.Variant
    architecture: nin_torch_ref.Architecture
    in_channels: int
    num_classes: int
    image_size: tuple[int, int]


MLPS = st.lists(st.sampled_from([(1, 0), (2, 1), (3, 1), (3, 0)]), max_size=2).map(tuple)
RATES = st.sampled_from([0.0, 0.5, 0.2])
POOLS = st.tuples(
    st.sampled_from(["max", "average"]),
    st.integers(1, 5),  # size
    st.integers(1, 3),  # stride
    st.integers(0, 2),  # padding
    st.booleans(),  # whether the sides are rounded up
    st.booleans(),  # whether an average counts the padding
).filter(lambda pool: 2 * pool[3] <= pool[1])
OurBlock = tuple[int | tuple[int, ...] | None, int, int, int, tuple]  # arguments of `Stage`


@st.composite
def our_and_their_block(draw: DrawFn, head: bool = False) -> tuple[OurBlock, ConvTuple, Mlp]:
    def side(least: int, most: int) -> int:
        return draw(st.integers(least, most))

    sides = (side(1, 3), side(1, 2), side(0, 2)) if head else (side(1, 4), side(1, 3), side(0, 3))
    mlp = draw(MLPS)
    given = len(mlp) if head else 1 + len(mlp)
    if given == 0 or draw(st.booleans()):  # one width for all
        channels = None if head else side(1, 5)
        return (channels, *sides, mlp), (channels, *sides), mlp
    widths = tuple(side(1, 5) for _ in range(given))
    first, *later = (*widths, None) if head else widths
    their_mlp = tuple((width, *pair) for width, pair in zip(later, mlp, strict=True))
    return (widths, *sides, mlp), (first, *sides), their_mlp


@st.composite
def networks(draw: DrawFn) -> Network:
    def side(least: int, most: int) -> int:
        return draw(st.integers(least, most))

    blocks = draw(st.lists(our_and_their_block(), max_size=2))
    pools = [draw(st.none() | POOLS) for _ in blocks]
    dropouts, dropout = [draw(RATES) for _ in blocks], draw(RATES)
    head, their_head, their_head_mlp = draw(our_and_their_block(head=True))
    classifier: Literal["mean", "linear"] = draw(st.sampled_from(["mean", "linear"]))
    variant = nin_jax.Variant(
        "random",
        tuple(
            nin_jax.Stage(*block, nin_jax.Pool(*pool) if pool else None, rate)
            for (block, _, _), pool, rate in zip(blocks, pools, dropouts, strict=True)
        ),
        nin_jax.Stage(*head, pool=None),
        classifier,
        dropout,
    )
    architecture = nin_torch_ref.Architecture(
        (*(conv for _, conv, _ in blocks), their_head),
        (*(mlp for _, _, mlp in blocks), their_head_mlp),
        tuple(pools),
        classifier,
        dropout,
        tuple(dropouts),
    )
    return Network(variant, architecture, side(1, 4), side(1, 5), (side(10, 24), side(10, 24)))


def _check(network: Network) -> bool:
    """Assert that both frameworks agree, and return whether they built the network."""
    sizes: dict[str, Any] = {
        "in_channels": network.in_channels,
        "num_classes": network.num_classes,
        "image_size": network.image_size,
    }
    try:
        pair = make_pair(network.variant, network.architecture, **sizes)
    except nin_jax.UserError as error:
        raise AssertionError("only the reference builds it") from error
    except ValueError:
        with pytest.raises(nin_jax.UserError):
            nin_jax.create_model(network.variant, **sizes)
        return False
    # One label for both images: with two classes and one label each, the gradients nearly cancel,
    # and only rounding is left.
    pair = replace(pair, labels=np.zeros_like(pair.labels))
    # A ReLU network of a few channels is often dead; then its gradient is zero.
    flax_pass(pair.model)(pair).assert_same(torch_pass(pair), "float64", all_zero=True)
    return True


# A convolution of 5x5 without padding on 4x4 pixels.
REFUSED = Network(
    nin_jax.Variant("refused", (), nin_jax.Stage(None, 5, 1, 0, (), pool=None), "mean", 0.0),
    nin_torch_ref.Architecture(((None, 5, 1, 0),), ((),), (), "mean", 0.0, ()),
    in_channels=1,
    num_classes=2,
    image_size=(4, 4),
)


@pytest.mark.parametrize("examples", [12, pytest.param(100, marks=pytest.mark.slow)])
def test_both_frameworks_agree_or_both_refuse(examples):
    built = []

    @random_cases(examples)
    @given(networks())
    @example(REFUSED)
    def run(network: Network) -> None:
        built.append(_check(network))

    run()
    assert len(built) == examples + 1
    assert sum(built) >= examples * 3 // 4, "too few networks were built"
    assert not built[0], "the example was built"
