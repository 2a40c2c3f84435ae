"""The datasets that are known by their names, as a table."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nin_jax.data import cifar, emnist, idx, idx_sets, svhn
from nin_jax.data.official import OfficialSet

Arrays = tuple[np.ndarray, ...]


class BuiltIn(NamedTuple):
    """A dataset that is known by its name.

    Attributes:
        load: takes the data folder that the user named, if any; returns train images, train labels,
            test images and test labels. Images are uint8 [N, H, W] or [N, H, W, C], labels are
            whole numbers [N].
        class_names: label `i` means `class_names[i]`.
        image_shape: (height, width, channels) of every image.
        source: where the arrays come from; never a path.
        notes: what a user should know about the examples, one line each.
    """

    load: Callable[[Path | None], Arrays]
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    source: str
    notes: tuple[str, ...] = ()


def _load_digits(folder: Path | None) -> Arrays:
    """Load scikit-learn's 1,797 handwritten digits, 8x8, with 0..16 scaled to 0..255.

    The dataset has no official split. Here every fifth image of each class, in scikit-learn's
    order, is a test image: 1,442 for training and 355 for testing, stratified, always the same.
    """
    del folder
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    images = np.rint(values * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    is_test = np.zeros(len(labels), bool)
    for label in range(10):
        is_test[np.flatnonzero(labels == label)[4::5]] = True
    return images[~is_test], labels[~is_test], images[is_test], labels[is_test]


def official_sets() -> dict[str, OfficialSet]:
    """Return the official files, other than the MNIST family's, by the name of their dataset."""
    sets = {name: each.official for name, each in cifar.CIFAR_SETS.items()}
    return sets | {"svhn": svhn.SVHN, "emnist": emnist.EMNIST}


def _table() -> Iterator[tuple[str, BuiltIn]]:
    for name, each in idx_sets.IDX_SETS.items():
        load = functools.partial(idx.load_idx, name)
        yield name, BuiltIn(load, each.class_names, (28, 28, 1), "idx files")
    yield "digits", BuiltIn(_load_digits, idx_sets.DIGIT_NAMES, (8, 8, 1), "scikit-learn")
    for name, each in cifar.CIFAR_SETS.items():
        load = functools.partial(cifar.load_cifar, name)
        yield name, BuiltIn(load, each.class_names, (32, 32, 3), "binary files")
    yield (
        "svhn",
        BuiltIn(
            svhn.load_svhn,
            idx_sets.DIGIT_NAMES,
            (32, 32, 3),
            "MATLAB files",
            ("extra_32x32.mat, 531,131 more training images of SVHN, is not used",),
        ),
    )
    for name, each in emnist.EMNIST_SPLITS.items():
        load = functools.partial(emnist.load_emnist, each)
        yield name, BuiltIn(load, each.class_names, (28, 28, 1), "idx files")


BUILT_IN: dict[str, BuiltIn] = dict(_table())
