"""Mean and standard deviation of the pixels of a split, for a network's preprocessing."""

import math

import numpy as np
from rich.console import Console
from rich.progress import track

from nin_jax.data.sources import Examples

_PART_BYTES = 2**22  # images counted at a time
_CONSTANT = 1e-6  # a channel with a smaller deviation is not divided


def mean_and_std(
    examples: Examples, quiet: bool = False
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and the standard deviation of each channel over all pixels, in [0, 1].

    The images are read once, in their stored size. Sums are of whole numbers, so the result does
    not depend on how they are read. A constant channel has the deviation 1.

    Args:
        examples: the images.
        quiet: show no progress bar. Otherwise there is one if there are many images.
    """
    height, width, channels = examples.image_shape
    total = len(examples)
    size = min(total, max(1, _PART_BYTES // (height * width * channels)))
    parts = -(-total // size)
    indices = np.arange(parts * size)
    read = examples.read(np.where(indices < total, indices, -1), size)
    counts = np.zeros((channels, 256), np.int64)  # of each value
    for images, _ in track(
        read,
        "mean and deviation of the training images",
        total=parts,
        console=Console(stderr=True),
        disable=quiet or parts < 8,
        transient=True,
    ):
        for channel in range(channels):
            counts[channel] += np.bincount(images[..., channel].ravel(), minlength=256)
    counts[:, 0] -= (len(indices) - total) * height * width  # padding is read as zeros
    moments = [_moments(row) for row in counts.tolist()]
    return tuple(mean for mean, _ in moments), tuple(std for _, std in moments)


def _moments(counts: list[int]) -> tuple[float, float]:
    """Return mean and standard deviation of counted values 0..255, divided by 255.

    Python's integers have no limit, so the only roundings are those of the last divisions.
    """
    n = sum(counts)
    first = sum(value * count for value, count in enumerate(counts))
    second = sum(value**2 * count for value, count in enumerate(counts))
    std = math.sqrt(n * second - first**2) / (255 * n)
    return first / (255 * n), std if std >= _CONSTANT else 1.0
