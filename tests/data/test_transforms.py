"""What happens to the images on the device: their order and their augmentation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nin_jax.data import transforms


def test_epoch_order_is_a_permutation_of_all_and_differs_by_epoch():
    key = jax.random.key(0)
    first, second = (np.asarray(transforms.epoch_order(key, jnp.int32(e), 20, 6)) for e in (0, 1))
    assert first.shape == (4, 6)
    assert sorted(first.ravel())[:4] == [-1] * 4
    assert sorted(first.ravel())[4:] == list(range(20))
    assert not np.array_equal(first, second)


def test_augment_flips_whole_images():
    image = np.arange(1, 65, dtype=np.uint8).reshape(1, 8, 8, 1)
    batch, keys = jnp.asarray(np.repeat(image, 1000, 0)), jax.random.split(jax.random.key(0), 1000)
    flipped = np.asarray(transforms.augment(batch, keys, 0))
    kinds = {row.tobytes() for row in flipped}
    assert kinds == {image.tobytes(), image[:, :, ::-1].tobytes()}


@pytest.mark.parametrize(("size", "padding"), [((32, 32), 4), ((28, 28), 3), ((24, 40), 5)])
def test_pad_crop_pads_with_zeros_and_crops_at_random(size, padding):
    """Every place of the crop occurs, with and without a flip, as in this statement in NumPy."""
    assert transforms.largest_shift("pad_crop", size) == padding
    image = np.random.default_rng(0).integers(1, 256, (*size, 3), np.uint8)
    places, possible = range(2 * padding + 1), {}
    for flip in (False, True):
        padded = np.pad(image[:, ::-1] if flip else image, ((padding,) * 2, (padding,) * 2, (0, 0)))
        for row in places:
            for column in places:
                crop = padded[row : row + size[0], column : column + size[1]]
                possible[crop.tobytes()] = 0
    keys = jax.random.split(jax.random.key(1), 20 * len(possible))
    batch = jnp.broadcast_to(jnp.asarray(image), (len(keys), *image.shape))
    for crop in np.asarray(jax.jit(transforms.augment, static_argnums=2)(batch, keys, padding)):
        possible[crop.tobytes()] += 1  # a KeyError means that it is none of them
    # Of 20 on average, fewer than 3 anywhere would happen with one key in 10,000.
    assert min(possible.values()) > 2
    assert max(possible.values()) < 50
