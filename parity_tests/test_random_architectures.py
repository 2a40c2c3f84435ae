"""Random architectures: both frameworks agree to the last digits, or both raise."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import DrawFn

import nin_jax
import nin_torch_ref
from parity_tests.pairs import make_pair
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


@st.composite
def networks(draw: DrawFn) -> Network:
    def side(least: int, most: int) -> int:
        return draw(st.integers(least, most))

    blocks, mlps, pools = [], [], []
    for _ in range(side(0, 2)):
        blocks.append((side(1, 5), side(1, 4), side(1, 3), side(0, 3)))
        mlps.append(draw(MLPS))
        pools.append(draw(st.booleans()))
    head, head_mlp = (side(1, 3), side(1, 2), side(0, 2)), draw(MLPS)
    classifier: Literal["mean", "linear"] = draw(st.sampled_from(["mean", "linear"]))
    variant = nin_jax.Variant(
        "random",
        tuple(
            nin_jax.Stage(*block, mlp=mlp, pool=pool)
            for block, mlp, pool in zip(blocks, mlps, pools, strict=True)
        ),
        nin_jax.Stage(None, *head, mlp=head_mlp, pool=None),
        classifier,
    )
    architecture = nin_torch_ref.Architecture(
        (*blocks, (None, *head)), (*mlps, head_mlp), tuple(pools), classifier
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


@pytest.mark.parametrize("examples", [24, pytest.param(200, marks=pytest.mark.slow)])
def test_both_frameworks_agree_or_both_refuse(examples):
    built = []

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(networks())
    def run(network: Network) -> None:
        built.append(_check(network))

    run()
    assert len(built) == examples
    assert sum(built) >= examples * 3 // 4, "too few networks were built"
    assert not all(built), "no network was refused"
