"""Files of Caffe: every form of them, what is said about them, and the mean in a file."""

import itertools
from typing import Any

import numpy as np
import pytest

from nin_jax import Preprocessing, Stage, Variant
from nin_jax.models import caffe, convert
from tests.support.caffemodel import blob, caffemodel

SMALL = Variant("small", (Stage(4, 3, padding=1, mlp=()),), Stage(None, 3, padding=1, pool=None))
SIZES: dict[str, Any] = {"in_channels": 3, "num_classes": 5, "image_size": 8}
NAMES = ("first", "second", "third", "last")  # any names, in the order of the layers


def weights(dtype: str) -> dict[str, np.ndarray]:
    """Numbers that float16 holds too, all of them different."""
    shapes = convert.expected_shapes(SMALL, **SIZES)
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    ends = itertools.accumulate(sizes)
    return {
        name: np.arange(end - size, end, dtype=dtype).reshape(shape)
        for (name, shape), size, end in zip(shapes.items(), sizes, ends, strict=True)
    }


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "one by one"])
@pytest.mark.parametrize("old", [True, False], ids=["four sides", "a shape"])
@pytest.mark.parametrize("v1", [True, False], ids=["V1 layers", "layers"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_form_of_a_file(dtype, v1, old, packed, tmp_path):
    expected = weights(dtype)
    path = tmp_path / "a.caffemodel"
    path.write_bytes(caffemodel(list(expected.values()), NAMES, v1, old, packed))
    model = convert.from_caffe(path, SMALL, **SIZES, logit_relu=False)
    assert not model.head.last_relu
    found = convert.to_torch(model)
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, name)


USUAL = {
    ("nin_imagenet", 3): Preprocessing(
        scale=255, mean=(104, 117, 123), channel_order="bgr", crop_fraction=0.875
    ),
    ("nin_cifar10", 3): Preprocessing(scale=255, channel_order="bgr"),
    ("nin_imagenet", 1): Preprocessing(),
}


@pytest.mark.parametrize("network", USUAL, ids=str)
def test_what_caffe_does_to_images(network):
    assert caffe.usual_preprocessing(*network) == USUAL[network]


def test_what_was_done_is_said_in_one_line(tmp_path, capsys):
    path = tmp_path / "a.caffemodel"
    path.write_bytes(caffemodel(list(weights("float64").values()), NAMES))
    convert.from_caffe(path, SMALL, **SIZES)
    assert capsys.readouterr().err == (
        "note: weights: convolutions first to last in the file's order; preprocessing: channels in "
        "the order BGR; scale 255; float64 cast to float32\n"
    )


@pytest.mark.parametrize("old", [True, False])
def test_convert_takes_the_mean_of_a_file(script, tmp_path, old):
    image = np.arange(3 * 4 * 5, dtype=np.float32).reshape(3, 4, 5)
    (tmp_path / "mean.binaryproto").write_bytes(blob(image, old))
    (tmp_path / "a.caffemodel").write_bytes(caffemodel(list(weights("float32").values()), NAMES))
    (tmp_path / "small.toml").write_text(
        "image_size = 8\nstages = [{channels = 4, kernel = 3, padding = 1, mlp = []}]"
    )
    outcome = script(
        "convert",
        *(tmp_path / "a.caffemodel", "a.safetensors", "--variant", tmp_path / "small.toml"),
        *("--num-classes", 5, "--mean-file", tmp_path / "mean.binaryproto", "--scale", 10),
    )
    assert outcome.code == 0, outcome.err
    stated = Preprocessing(scale=10, mean=(9.5, 29.5, 49.5), channel_order="bgr")
    assert convert.read_preprocessing("a.safetensors") == stated
    assert f"preprocessing: {stated}\n" in outcome.err

    outcome = script(
        "convert",
        *("a.safetensors", "b.safetensors", "--variant", tmp_path / "small.toml"),
        *("--in-channels", 3, "--num-classes", 5, "--std", 2, 3, 4, "--channel-order", "rgb"),
    )
    assert outcome.code == 0, outcome.err
    stated = Preprocessing(scale=10, mean=(9.5, 29.5, 49.5), std=(2, 3, 4))
    assert convert.read_preprocessing("b.safetensors") == stated
