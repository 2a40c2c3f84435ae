"""Variants are validated data: built-in, built by hand, or read from a file."""

import json

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

import nin_jax
from nin_jax import Pool, Stage, UserError, Variant, get_variant
from nin_jax.models import summary
from nin_jax.models.geometry import check_image_size, smallest_image, trace
from nin_jax.models.stages import MAX_SIDE
from nin_jax.models.variants import VARIANTS, variant_from_dict, variant_to_dict
from tests.support.synthetic_idx import peak_memory_below

TINY = Variant("tiny", stages=(Stage(8, 5, padding=2), Stage(16, 3, padding=1)))


@pytest.mark.parametrize(("variant", "side"), [("nin", 67), ("nin15", 61)], ids=["nin", "nin15"])
def test_smallest_image(variant, side):
    assert smallest_image(VARIANTS[variant]) == side
    check_image_size(VARIANTS[variant], side)
    message = rf"too small for {variant}: the map of .*smallest size that works is {side}x{side}"
    with pytest.raises(UserError, match=message):
        check_image_size(VARIANTS[variant], side - 1)


def test_smallest_image_of_a_huge_network():
    stage = Stage(1, MAX_SIDE, stride=2, mlp=(), pool=None)
    assert smallest_image(Variant("huge", stages=(stage,))) == MAX_SIDE
    deep = Variant("deep", stages=(stage,) * 500, head=Stage(None, 1, pool=None))
    assert smallest_image(deep) > MAX_SIDE
    with pytest.raises(UserError, match="no size up to 16,384 works"):
        check_image_size(deep, MAX_SIDE)


@settings(deadline=None, max_examples=50)
@given(
    stages=st.lists(
        st.builds(
            Stage,
            st.just(1),
            st.integers(1, 5),
            st.integers(1, 3),
            st.integers(0, 4),
            st.sampled_from([(), ((1, 0),), ((3, 1), (4, 0)), ((1, 2),)]),
            st.booleans(),
        ),
        max_size=3,
    )
)
def test_smallest_image_is_the_smallest(stages):
    variant = Variant("any", tuple(stages))
    least = smallest_image(variant)
    check_image_size(variant, least)
    if least > 1:
        with pytest.raises(UserError, match=f"that works is {least}x{least}"):
            check_image_size(variant, least - 1)


def test_the_error_of_a_small_image_names_the_block():
    with pytest.raises(UserError, match="the map of block3's pool vanishes"):
        check_image_size(VARIANTS["nin"], (66, 224))
    with pytest.raises(UserError, match="the map of block1 vanishes"):
        check_image_size(VARIANTS["nin"], 10)


def test_variants_are_frozen():
    with pytest.raises(AttributeError):
        VARIANTS["nin"].dropout = 0.1  # type: ignore[misc]


@pytest.mark.parametrize("variant", [*VARIANTS.values(), TINY], ids=lambda v: v.name)
def test_plain_data_round_trip(variant):
    assert variant_from_dict(json.loads(json.dumps(variant_to_dict(variant)))) == variant


def test_variant_files(tmp_path):
    (tmp_path / "tiny.toml").write_text(
        "[[stages]]\nchannels = 8\nkernel = 5\npadding = 2\n"
        "[[stages]]\nchannels = 16\nkernel = 3\npadding = 1\n"
    )
    (tmp_path / "other.json").write_text(json.dumps(variant_to_dict(TINY)))
    assert get_variant(tmp_path / "tiny.toml") == TINY
    assert get_variant(str(tmp_path / "other.json")) == TINY  # the file's name field


def test_a_file_of_the_first_form_means_what_it_meant():
    """``variant_to_dict`` wrote such a table, in config.json too, when a pool was true or false."""
    stage = {"stride": 1, "padding": 1, "mlp": [[1, 0]]}
    old = {
        "name": "old",
        "stages": [
            {"channels": 8, "kernel": 5} | stage | {"pool": True},
            {"channels": 16, "kernel": 3} | stage | {"pool": False},
        ],
        "head": {"channels": None, "kernel": 3} | stage | {"pool": False},
        "classifier": "mean",
        "dropout": 0.5,
        "published_lr": 0.1,
    }
    layers = [
        Stage(8, 5, padding=1, mlp=((1, 0),), pool=Pool("max", 3, 2)),
        Stage(16, 3, padding=1, mlp=((1, 0),), pool=None),
    ]
    head = Stage(None, 3, padding=1, mlp=((1, 0),), pool=None)
    assert variant_from_dict(old) == Variant("old", tuple(layers), head)


def test_summary_is_a_table_of_every_layer():
    text = nin_jax.summary("nin_fc", in_channels=3)
    assert text.startswith("nin_fc: 224x224x3 -> 10 classes, 2,017,908 parameters, 830,044,364 MAC")
    rows = {line.split()[0]: line for line in text.splitlines()[3:]}
    assert rows["block1.conv1"].split()[-3:] == ["54x54x96", "34,944", "101,616,768"]
    assert rows["linear"].split()[-3:] == ["10", "2,510", "2,500"]


def test_describe_of_a_non_square_image():
    text = nin_jax.describe(TINY, image_size=(40, 30))
    assert text.startswith("tiny: 40x30x1 -> 10 classes")


def test_variant_table_lists_the_counts_of_every_variant():
    lines = [line.split() for line in summary.variant_table().splitlines()]
    for variant in VARIANTS.values():
        layers = trace(variant, 1, 10, variant.image_size)
        params, macs = sum(layer.params for layer in layers), sum(layer.macs for layer in layers)
        size = f"{variant.image_size}x{variant.image_size}"
        assert [variant.name, size, f"{params:,}", f"{macs:,}"] in lines


def test_many_bad_values_are_one_error():
    """The memory for an error of each value would be a hundred times the file."""
    stage = {"channels": 3, "kernel": 3, "mlp": [0] * 100_000}
    message = r"stages\.0\.mlp\.0 must be a list, got 0"
    with peak_memory_below(10_000_000), pytest.raises(UserError, match=message):
        variant_from_dict({"name": "x", "stages": [stage]})
