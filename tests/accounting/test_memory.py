"""Memory by formula and as planned by a back end, and the largest batch that fits."""

import math
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nin_jax
from nin_jax.accounting.memory import largest_batch, prediction_memory, training_memory
from nin_jax.accounting.xla import xla_memory
from nin_jax.training.recipes import RECIPES
from tests.support.accounts import Raises, costs_of


def test_memory_by_formula():
    costs = costs_of("nin", 3, 10, (224, 224))
    recipe = RECIPES["modern"](nin_jax.get_variant("nin"))
    train = training_memory(costs, 2, "float32", recipe)
    assert train.params_bytes == train.gradients_bytes == 4 * 2_015_398
    # Muon: one momentum for a kernel's weight, two for a bias, and three coefficients.
    biases = 3 * (96 + 256 + 384 + 10)
    assert train.optimizer_bytes == train.params_bytes + 4 * (biases + 3)
    assert train.images_bytes == 2 * 4 * 3 * 224 * 224
    predict = prediction_memory(costs, 2, "float32")
    assert predict.activations_bytes == 2 * 4 * 2 * 54 * 54 * 96  # the second convolution's
    assert predict.gradients_bytes == predict.optimizer_bytes == 0
    half = prediction_memory(costs, 2, "bfloat16")
    assert half.activations_bytes == predict.activations_bytes / 2
    assert half.params_bytes == predict.params_bytes
    assert train.total_bytes == sum(
        (
            train.params_bytes,
            train.images_bytes,
            train.gradients_bytes,
            train.optimizer_bytes,
            train.activations_bytes,
        )
    )


@pytest.mark.parametrize(
    "answer", [None, [], SimpleNamespace(temp_size_in_bytes=5), {"temp_size_in_bytes": 5}], ids=str
)
def test_memory_that_a_back_end_does_not_report_is_none(answer):
    memory = xla_memory(SimpleNamespace(memory_analysis=lambda: answer))
    assert memory.argument_bytes is memory.total_bytes is None
    assert xla_memory(Raises()).temp_bytes is None


@settings(deadline=None)
@given(st.integers(0, 5000), st.integers(1, 900), st.integers(1000, 10**7), st.integers(1, 64))
def test_the_largest_batch_fits_and_one_more_does_not(fixed, each, memory, step):
    asked = []

    def needed(batch):
        asked.append(batch)
        return 1000 + fixed + each * step * math.ceil(batch / step)  # buffers grow in steps

    found = largest_batch("train", memory, 1000, needed)
    assert found.images is not None
    assert found.images == 0 or needed(found.images) <= memory
    assert needed(found.images + 1) > memory
    assert found.needed_bytes == needed(max(found.images, 1))


def test_the_largest_batch_is_found_with_few_programs():
    asked = []

    def needed(batch):
        asked.append(batch)
        return 10**8 + 7_654_321 * batch

    found = largest_batch("predict", 80 * 10**9, 10**7, needed)
    assert found.images == (80 * 10**9 - 10**8) // 7_654_321
    assert len(asked) <= 12  # each is a program to compile


def test_the_largest_batch_is_limited_to_32_bit_indices():
    found = largest_batch("train", 10**15, 10**6, lambda batch: 5 * batch)
    assert (found.images, found.needed_bytes) == (2**31 - 1, 5 * (2**31 - 1))


def test_the_largest_batch_is_none_without_reported_memory():
    for most in (0, 1, 2, 40):  # it reports nothing, or only for small batches
        found = largest_batch("train", 10**9, 10**6, lambda b, m=most: b if b <= m else None)
        assert found.images is found.needed_bytes is None
