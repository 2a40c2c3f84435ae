"""The Predictor: any number of images, one compilation, the model's logits."""

import copy
import pickle
from functools import cache

import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import nin_jax
from nin_jax import Predictor, Stage, Variant
from nin_jax.data import transforms
from nin_jax.inference import predictor

TINY = Variant("tiny", stages=(Stage(8, 3, padding=1), Stage(16, 3, padding=1)))
SIZE = (20, 24)


@pytest.fixture(scope="module")
def model():
    return nin_jax.create_model(TINY, in_channels=3, image_size=SIZE, seed=1)


@nnx.jit
def run(model, x):
    """Return the logits. Without jit each operation would be compiled by itself."""
    return model(x)


def images(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 9, 11, 3), np.uint8)


@cache
def predictor_of(model, batch_size):
    return Predictor(model, batch_size)


@pytest.mark.parametrize("batch_size", [1, 3, 11])
@pytest.mark.parametrize("count", [0, 1, 3, 8])
def test_logits_are_the_models_for_any_batch_size(model, batch_size, count):
    x = images(8)[:count]
    logits = predictor_of(model, batch_size)(x)
    assert logits.shape == (count, 10)
    assert logits.dtype == np.float32
    if count:
        # A batch's size may change the order of a sum: some units in the last place.
        expected = run(model, transforms.prepare(jnp.asarray(images(8)), SIZE))
        np.testing.assert_allclose(logits, expected[:count], rtol=1e-5, atol=1e-6)


def test_float_images_are_not_resized(model):
    x = np.random.default_rng(0).random((5, *SIZE, 3), np.float32)
    for given in (x, jnp.asarray(x)):
        np.testing.assert_allclose(Predictor(model, 4)(given), run(model, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("micro", [2, 3, 5])
def test_micro_batches_give_the_logits_of_the_batch(model, micro, monkeypatch):
    x = images(7)
    whole = Predictor(model, 5)(x)
    monkeypatch.setattr(predictor, "default_micro_batch_size", lambda *_: micro)
    np.testing.assert_allclose(Predictor(model, 5)(x), whole, rtol=1e-5, atol=1e-6)


def test_micro_batches_of_padding_are_not_computed(model, monkeypatch):
    monkeypatch.setattr(predictor, "default_micro_batch_size", lambda *_: 2)
    predict, x = Predictor(model, 7), images(7)
    whole = predict(x)
    done = np.asarray(predict._batch(x, 3, *predict._arguments))
    np.testing.assert_array_equal(done, [*whole[:4], *np.zeros_like(whole[4:])])


def test_a_partial_batch_compiles_nothing_new(model):
    predict = Predictor(model, 4)
    for count in (1, 2, 3, 4, 5, 9):
        predict(images(count))
    assert predict._batch._cache_size() == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_the_results_can_be_written(model, count):
    predict = predictor_of(model, 3)
    assert predict(images(count)).flags.writeable
    assert predict.probabilities(images(count)).flags.writeable


def test_probabilities_are_the_softmax(model):
    predict = Predictor(model, 4)
    x = images(6)
    probabilities = predict.probabilities(x)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)
    np.testing.assert_array_equal(probabilities, jax.nn.softmax(predict(x)))


def test_bfloat16_rounds_and_does_not_change_the_model(model):
    x = images(4)
    exact, rough = Predictor(model, 4)(x), Predictor(model, 4, "bfloat16")(x)
    assert rough.dtype == np.float32
    assert 0 < np.abs(rough - exact).max() <= 0.05 * np.abs(exact).max()  # 8 significant bits
    assert model.dtype == jnp.float32
    np.testing.assert_array_equal(Predictor(model, 4)(x), exact)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_later_changes_of_the_model_have_no_effect(batch_size, monkeypatch):
    monkeypatch.setattr(predictor, "default_micro_batch_size", lambda *_: min(batch_size, 2))
    x = images(2)
    mine = nin_jax.create_model(TINY, in_channels=3, image_size=SIZE, seed=2)
    predict, unchanged = Predictor(mine, batch_size), Predictor(mine, batch_size)
    before = unchanged(x)
    mine.head.convs[0].bias[...] += 1
    mine.head = nin_jax.create_model(TINY, num_classes=5, in_channels=3, image_size=SIZE).head
    np.testing.assert_array_equal(predict(x), before)  # compiled after the change


def test_weights_are_constants_of_the_program_for_one_image(model):
    arguments = [len(Predictor(model, batch_size)._arguments) for batch_size in (1, 2)]
    assert arguments == ([0, 1] if jax.default_backend() == "cpu" else [1, 1])


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
    "cloudpickle": lambda thing: pickle.loads(cloudpickle.dumps(thing)),
}


@pytest.mark.parametrize("way", COPIES)
def test_copies_and_pickles_answer_as_the_original(model, way):
    twin = COPIES[way](model)
    assert nnx.graphdef(twin) == nnx.graphdef(model)  # a compiled function takes both
    x = images(3)
    np.testing.assert_array_equal(Predictor(twin, 2)(x), Predictor(model, 2)(x))
    twin.head.convs[0].bias[...] += 1
    rough = Predictor(model, 2, "bfloat16")
    np.testing.assert_array_equal(COPIES[way](rough)(x), rough(x))


def test_a_pickle_has_the_parameters_of_the_predictor_not_of_the_changed_model(model):
    mine = copy.deepcopy(model)
    predict = Predictor(mine, 2)
    mine.head.convs[0].bias[...] += 1
    mine.image_size = (40, 40)
    x = images(2)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(predict))(x), Predictor(model, 2)(x))


def test_one_array_has_one_answer(model):
    """The Predictor scales integers; the model takes them scaled."""
    x = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), np.uint8)
    logits = run(model, jnp.asarray(x / np.float32(255)))
    np.testing.assert_allclose(Predictor(model, 2)(x), logits, rtol=1e-5, atol=1e-6)
