"""Which training images are held out."""

import numpy as np
import pytest

from nin_jax.data.holdout import held_out

LABELS = np.repeat([0, 1, 3], [100, 60, 1])  # no class 2


@pytest.mark.parametrize("count", [1, 16, 40, 160])
def test_each_class_gives_its_share(count):
    held = held_out(LABELS, len(LABELS), count, seed=3)
    assert held.sum() == count
    shares = np.bincount(LABELS[held], minlength=4) - np.bincount(LABELS) * count / len(LABELS)
    assert np.abs(shares).max() < 1


def test_the_draw_depends_on_the_seed_alone():
    drawn = [np.flatnonzero(held_out(LABELS, len(LABELS), 10, seed)).tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    # A run resumed with other versions of the libraries must not train on what was held out.
    assert drawn[0] == [7, 44, 66, 85, 86, 92, 106, 111, 113, 144]


def test_without_labels_all_examples_are_drawn_alike():
    times = np.sum([held_out(None, 20, 5, seed) for seed in range(400)], axis=0)
    assert times.sum() == 2000
    assert times.min() > 60  # the mean is 100, its deviation 9
    assert times.max() < 140
