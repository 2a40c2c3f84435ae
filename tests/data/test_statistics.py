"""Mean and deviation of a split are NumPy's, however the images are read."""

import numpy as np
import pytest

from nin_jax.data import statistics
from nin_jax.data.datasets import Split
from nin_jax.data.statistics import mean_and_std
from nin_jax.data.streaming import StreamedSplit
from tests.support.array_source import ArraySource


@pytest.mark.parametrize("part", [statistics._PART_BYTES, 1000])
def test_it_is_numpys_in_memory_and_streamed(monkeypatch, part):
    monkeypatch.setattr(statistics, "_PART_BYTES", part)  # 1000: the last part is not full
    images = np.random.default_rng(0).integers(0, 256, (23, 5, 7, 3), np.uint8)
    images[..., 1] //= 4
    labels = np.zeros(23, np.int32)
    mean, std = mean_and_std(Split(images, labels))
    np.testing.assert_allclose(mean, (images / 255).mean((0, 1, 2)), rtol=1e-13)
    np.testing.assert_allclose(std, (images / 255).std((0, 1, 2)), rtol=1e-13)
    streamed = StreamedSplit(ArraySource(images, labels), np.arange(23))
    assert mean_and_std(streamed) == (mean, std)


def test_a_constant_channel_is_not_divided_by_zero():
    images = np.full((3, 4, 4, 1), 51, np.uint8)
    assert mean_and_std(Split(images, np.zeros(3, np.int32))) == ((0.2,), (1.0,))
