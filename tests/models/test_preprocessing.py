"""What a network does to its images first: in the model, in files, and for pictures of any size."""

from dataclasses import asdict, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import nin_jax
from nin_jax import Preprocessing, Stage, UserError, Variant
from nin_jax.data import pictures
from nin_jax.inference.class_maps import explain_images
from nin_jax.models import convert
from nin_jax.models.preprocessing import Cut

TINY = Variant("tiny", stages=(Stage(8, 3, padding=1),))
CAFFE = Preprocessing(scale=255, mean=(104, 117, 123), channel_order="bgr", resize="crop")


def make(**options):
    return nin_jax.create_model(TINY, image_size=16, **options)


def test_the_default_changes_nothing():
    plain, default = make(), make(preprocessing=Preprocessing())
    assert nnx.graphdef(default) == nnx.graphdef(plain)
    assert nnx.graphdef(make(preprocessing=Preprocessing(scale=2))) != nnx.graphdef(plain)
    images = np.zeros((1, 2, 2, 1), np.float32)
    assert plain.preprocessing.apply(images) is images


def test_channels_are_reversed_before_the_mean_is_subtracted():
    images = np.array([0.1, 0.2, 0.4], np.float32).reshape(1, 1, 1, 3)
    bgr = Preprocessing(scale=10, mean=(1, 2, 3), std=(2,), channel_order="bgr").apply(images)
    assert bgr.dtype == np.float32
    np.testing.assert_allclose(bgr.ravel(), [1.5, 0, -1], atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_class_maps_predictions_and_calls_prepare_the_images_alike(dtype):
    model = make(in_channels=3, preprocessing=CAFFE, dtype=dtype)
    plain = make(in_channels=3, dtype=dtype)
    x = np.random.default_rng(0).random((2, 16, 16, 3), np.float32)
    expected = jax.jit(plain)(x[..., ::-1] * 255 - np.array(CAFFE.mean, np.float32))
    maps = jax.jit(nin_jax.class_maps)(model, x)
    for logits in (jax.jit(model)(x), nin_jax.Predictor(model, 2)(x), maps.mean((1, 2))):
        # a compiler may round x * 255 - 104 once or twice
        np.testing.assert_allclose(logits, expected, atol=1e-6 * np.abs(expected).max())


def test_weights_take_it_along(tmp_path):
    model = make(in_channels=3, preprocessing=CAFFE)
    convert.save_safetensors(model, tmp_path / "caffe.safetensors")
    assert convert.read_preprocessing(tmp_path / "caffe.safetensors") == CAFFE
    read = convert.load_safetensors(tmp_path / "caffe.safetensors")
    again = convert.from_torch(read, TINY, in_channels=3, image_size=16, preprocessing=CAFFE)
    assert nnx.graphdef(again) == nnx.graphdef(model)
    convert.save_safetensors(make(), tmp_path / "plain.safetensors")
    assert convert.read_preprocessing(tmp_path / "plain.safetensors") is None


def test_another_number_of_channels_is_refused_also_after_surgery():
    model = make(in_channels=3, preprocessing=CAFFE)
    model.blocks = make(in_channels=1).blocks
    with pytest.raises(UserError, match="mean has 3 values for 1 channel"):
        model(jnp.zeros((1, 16, 16, 1)))


CUTS = {
    "stretched": ({}, (30, 20), (16, 16), Cut(16, 16, 0, 0)),
    "cropped": ({"resize": "crop"}, (30, 20), (16, 16), Cut(24, 16, 4, 0)),
    "Caffe's": ({"crop_fraction": 0.875}, (300, 200), (224, 224), Cut(256, 256, 16, 16)),
    "torchvision's": (
        {"crop_fraction": 0.875, "resize": "crop"},
        (300, 400),
        (224, 224),
        Cut(256, 341, 16, 58),
    ),
    "of its size": ({"crop_fraction": 0.5, "resize": "crop"}, (8, 9), (8, 9), Cut(8, 9, 0, 0)),
}


@pytest.mark.parametrize("case", CUTS)
def test_how_a_picture_gets_the_size_of_the_network(case):
    options, size, wanted, cut = CUTS[case]
    assert Preprocessing(**options).cut(size, wanted) == cut


def test_a_predictor_cuts_arrays_as_files_are_cut(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (9, 14, 3), np.uint8)  # it is enlarged
    Image.fromarray(picture).save(tmp_path / "p.png")
    model = make(in_channels=3, preprocessing=replace(CAFFE, crop_fraction=0.8))
    read = pictures.read(tmp_path / "p.png", 3, (16, 16), model.preprocessing)
    predictor = nin_jax.Predictor(model, 1)
    np.testing.assert_array_equal(predictor(picture[None]), predictor(read[None]))
    (explained,) = explain_images(model, picture[None])
    np.testing.assert_allclose(explained.logits, predictor(read[None])[0], rtol=1e-5)
    with pytest.raises(UserError, match="300000x1 pixels are too narrow"):
        predictor(np.zeros((1, 1, 300_000, 3), np.uint8))


def test_it_says_in_words_what_it_does():
    assert str(Preprocessing()) == "none"
    assert str(CAFFE) == (
        "channels in the order BGR; scale 255; mean 104, 117, 123; pictures scaled by their "
        "shorter side, center cut out"
    )
    assert Preprocessing(**asdict(CAFFE)) == CAFFE
