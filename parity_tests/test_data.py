"""Resizing on the device gives Pillow's bytes, and scaling to [0, 1] gives ToTensor's floats."""

from functools import partial

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
import torch
from hypothesis import given
from PIL import Image

import nin_jax
from nin_jax.data import transforms
from nin_jax.models import convert
from parity_tests.frameworks import TORCH_DEVICE, as_array, as_nchw, assert_close
from parity_tests.pairs import make_pair, random_cases, real_images
from parity_tests.tolerances import FORWARD, Precision

Size = tuple[int, int]

# Compiled, as in training: XLA may compile a division to something else.
resize = partial(jax.jit, static_argnames="size")(transforms.resize)
prepare = partial(jax.jit, static_argnames="size")(transforms.prepare)

# Each pair of sizes takes one compilation, so the random images share these.
SIZE_PAIRS: list[tuple[Size, Size]] = [
    ((28, 28), (224, 224)),
    ((28, 28), (96, 96)),
    ((8, 8), (224, 224)),
    ((5, 9), (37, 31)),
    ((9, 5), (9, 64)),  # one axis keeps its size
    ((7, 6), (29, 6)),
    ((1, 1), (3, 5)),
    ((2, 3), (5, 4)),
    ((32, 32), (33, 47)),
    ((28, 28), (28, 28)),
    # Pillow's filter is wider when an image shrinks. Only one axis at a time: if the height shrinks
    # and the width changes too, their order depends on Pillow's version.
    ((40, 30), (13, 30)),
    ((40, 30), (40, 17)),
    ((30, 20), (60, 7)),
]


def _pillow(images: np.ndarray, size: Size) -> np.ndarray:
    """Apply torchvision's Resize to each PIL image: [B, H, W, C] -> [B, height, width, C]."""

    def one(image: np.ndarray) -> np.ndarray:
        pil = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        resized = pil.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        return np.asarray(resized).reshape(*size, image.shape[2])

    return np.stack([one(image) for image in images])


def _random_images(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Return noise in which many pixels are black or white, to test rounding and clipping."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(256, size=shape, dtype=np.uint8)
    extreme = rng.choice(np.array([0, 255], np.uint8), size=shape)
    return np.where(rng.random(shape) < rng.random(), extreme, noise)


def test_real_images_at_224():
    images = real_images(2500)
    noise = _random_images((max(0, 2000 - len(images)), *images.shape[1:]), seed=0)
    images = np.concatenate([images, noise])
    assert len(images) >= 2000
    for start in range(0, len(images), 250):
        batch = images[start : start + 250]
        actual = np.asarray(resize(batch, size=(224, 224)))
        np.testing.assert_array_equal(actual, _pillow(batch, (224, 224)), f"from {start}")


@random_cases(150)
@given(case=st.sampled_from(list(enumerate(SIZE_PAIRS))), seed=st.integers(0, 2**32 - 1))
def test_random_images_and_sizes(case, seed):
    i, ((height, width), size) = case
    channels = (1, 3)[i % 2]
    images = _random_images((2, height, width, channels), seed)
    actual = resize(images, size=size)
    assert actual.dtype == np.uint8
    np.testing.assert_array_equal(actual, _pillow(images, size))


@pytest.mark.parametrize("channels", [1, 3])
def test_prepared_batches_equal_totensor(channels):
    """ToTensor divides by 255 in float32; a product with 1 / 255 differs in the last bit."""
    images = _random_images((16, 28, 28, channels), seed=1)
    images.ravel()[:256] = np.arange(256)
    for size in [(28, 28), (67, 71)]:
        actual = np.asarray(prepare(images, size=size))
        expected = _pillow(images, size).astype(np.float32) / np.float32(255)
        assert actual.dtype == np.float32
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(("precision", "order"), [("float64", "rgb"), ("float32", "bgr")])
def test_a_network_with_preprocessing_is_the_reference_behind_torchs(precision: Precision, order):
    """torchvision's Normalize subtracts a mean and divides by a deviation, as written here."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    network = "nin_one_1x1"
    pair = make_pair(network, in_channels=3, image_size=(67, 67), precision=precision)
    preprocessing = nin_jax.Preprocessing(mean=mean, std=std, channel_order=order)
    model = convert.from_torch(
        convert.to_torch(pair.model),
        network,
        in_channels=3,
        image_size=67,
        preprocessing=preprocessing,
        dtype=precision,
        param_dtype=precision,
    )
    actual = jax.jit(model)(pair.images)
    x = as_nchw(pair.images)
    x = x.flip(1) if order == "bgr" else x
    shape, dtype = (1, 3, 1, 1), x.dtype
    mean, std = (torch.tensor(v, dtype=dtype, device=TORCH_DEVICE).view(shape) for v in (mean, std))
    with torch.no_grad():
        expected = as_array(pair.reference((x - mean) / std))
    assert_close(actual, expected, FORWARD[precision], "logits")
