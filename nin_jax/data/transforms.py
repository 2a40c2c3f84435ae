"""Transforms on the device: resize, scaling, augmentation and the order of an epoch.

Images reach the device as uint8 in their original size. Everything here is traced into the
compiled step, so the host does no work on the images of a batch.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from nin_jax.models.preprocessing import Preprocessing

# Pillow's fixed-point arithmetic for 8-bit images: 32 bits minus 8 for the pixel and 2 spare bits.
PILLOW_PRECISION_BITS = 22

# ToTensor's quotients as a table: depending on fusion, XLA replaces a division by 255 with a
# product by the reciprocal, which differs in the last bit.
UNIT_INTERVAL = np.arange(256, dtype=np.float32) / np.float32(255)


@functools.cache
def _bilinear_taps(side: int, new_side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the input pixels of each output pixel and their weights, as Pillow's Resample.c.

    With c = (i + 0.5) side / new_side and support s = max(1, side / new_side), output i uses the
    inputs j in [max(int(c - s + 0.5), 0), min(int(c + s + 0.5), side)) with weight
    max(0, 1 - |j + 0.5 - c| / s), normalized, then rounded to 22 fractional bits.

    Returns:
        (indices, weights): int32 [new_side, taps] each; unused taps have weight 0.
    """
    scale = side / new_side
    support = max(1.0, scale)
    centers = (np.arange(new_side)[:, np.newaxis] + 0.5) * scale
    first = np.maximum((centers - support + 0.5).astype(np.int32), 0)
    last = np.minimum((centers + support + 0.5).astype(np.int32), side)
    inputs = first + np.arange(2 * math.ceil(support) + 1, dtype=np.int32)
    raw = np.maximum(0, 1 - np.abs((inputs - centers + 0.5) * (1 / support))) * (inputs < last)
    total = np.cumsum(raw, 1)[:, -1:]  # one by one, as Pillow; np.sum and Python 3.12's sum do not
    weights = (0.5 + raw / total * (1 << PILLOW_PRECISION_BITS)).astype(np.int32)
    used = int(np.flatnonzero(weights.any(0)).max()) + 1
    return np.where(inputs < last, inputs, 0)[:, :used], weights[:, :used]


def _resample(images: jax.Array, axis: int, new_side: int) -> jax.Array:
    """Resize along one axis, as one pass of Pillow's resize; int32 in 0..255 in and out."""
    if images.shape[axis] == new_side:
        return images
    indices, weights = _bilinear_taps(images.shape[axis], new_side)
    shape = [1] * images.ndim
    shape[axis] = new_side
    total = jnp.int32(1 << (PILLOW_PRECISION_BITS - 1))  # for rounding to nearest
    for t in range(indices.shape[1]):
        total += jnp.take(images, indices[:, t], axis) * weights[:, t].reshape(shape)
    return jnp.clip(total >> PILLOW_PRECISION_BITS, 0, 255)


def resize(images: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Resize 8-bit images on the device, bit for bit as Pillow's bilinear resize.

    Pillow computes in fixed point, first along rows, then along columns, and rounds to integers
    after each pass. This function does the same, so no pixel of an enlarged image differs. If both
    sides change and the height shrinks, some versions of Pillow begin with the columns; single
    pixels then differ by 1.

    Args:
        images: uint8 [B, H, W, C].
        size: (height, width) of the result, in pixels.

    Returns:
        uint8 [B, height, width, C].
    """
    height, width = size
    images = _resample(images.astype(jnp.int32), 2, width)
    return _resample(images, 1, height).astype(jnp.uint8)


def prepare(
    images: jax.Array, size: tuple[int, int], preprocessing: Preprocessing | None = None
) -> jax.Array:
    """Apply torchvision's ``Resize(size)`` for PIL images and ``ToTensor``: uint8 to [0, 1].

    Args:
        images: uint8 [B, H, W, C].
        size: (height, width) of the result.
        preprocessing: its rule says how images get this size, as in `pictures.decode`; None
            stretches them. The model applies the other fields.

    Returns:
        float32 [B, height, width, C].

    Raises:
        UserError: as `Preprocessing.cut`.
    """
    rule = preprocessing or Preprocessing()
    h, w, top, left = rule.cut((images.shape[1], images.shape[2]), size)
    images = resize(images, (h, w))
    if (h, w) != size:
        images = images[:, top : top + size[0], left : left + size[1]]
    return jnp.asarray(UNIT_INTERVAL)[images]


# The largest shift is the longer side, in pixels, divided by this number and rounded down; 0 means
# no shift.
SHIFTS = {"none": 0, "flip": 0, "flip_shift": 14, "pad_crop": 8}


def largest_shift(augmentation: str, size: tuple[int, int]) -> int:
    """Return how many pixels an augmentation may shift images of this height and width.

    >>> largest_shift("pad_crop", (32, 32)), largest_shift("pad_crop", (28, 28))
    (4, 3)
    """
    divisor = SHIFTS[augmentation]
    return max(size) // divisor if divisor else 0


def augment(images: jax.Array, keys: jax.Array, shift: int) -> jax.Array:
    """Flip each image horizontally with probability 1/2 and shift it by up to ``shift`` pixels.

    This is the same as padding it with ``shift`` zeros on every side and cropping it at random to
    its size, each place with the same probability.

    Args:
        images: uint8 [B, H, W, C].
        keys: PRNG keys [B], one per image.
        shift: the largest shift along each axis; new pixels at the edge are 0.

    Returns:
        uint8 [B, H, W, C].
    """

    def one(image: jax.Array, key: jax.Array) -> jax.Array:  # [H, W, C]
        flip_key, shift_key = jax.random.split(key)
        image = jnp.where(jax.random.bernoulli(flip_key), image[:, ::-1], image)
        if shift == 0:
            return image
        row, column = jax.random.randint(shift_key, (2,), 0, 2 * shift + 1)
        padded = jnp.pad(image, ((shift, shift), (shift, shift), (0, 0)))
        return jax.lax.dynamic_slice(padded, (row, column, 0), image.shape)

    return jax.vmap(one)(images, keys)


def epoch_order(key: jax.Array, epoch: jax.Array, size: int, batch_size: int) -> jax.Array:
    """Return the order of one epoch: a permutation of the examples, divided into batches.

    Args:
        key: PRNG key of the run; the epoch is folded in.
        epoch: int [], counted from 0.
        size: number of examples.
        batch_size: examples per batch.

    Returns:
        int32 [steps, batch_size]; the last batch is padded with -1, which `take` masks.
    """
    order = jax.random.permutation(jax.random.fold_in(key, epoch), size)
    steps = -(-size // batch_size)
    padded = jnp.pad(order, (0, steps * batch_size - size), constant_values=-1)
    return padded.reshape(steps, batch_size).astype(jnp.int32)


def take(
    images: jax.Array, labels: jax.Array, indices: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gather the examples at ``indices``, and a mask of padding.

    Args:
        images: uint8 [N, H, W, C].
        labels: int32 [N].
        indices: int32 [B]; -1 is padding.

    Returns:
        uint8 [B, H, W, C], int32 [B] and float32 [B]: 1 for an example and 0 for padding.
    """
    present = indices >= 0
    safe = jnp.where(present, indices, 0)
    return images[safe], labels[safe], present.astype(jnp.float32)
