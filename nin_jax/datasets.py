"""Image-classification data sets as uint8 arrays on the host; neither torch nor TensorFlow."""

import hashlib
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nin_jax import idx, tfds_reader
from nin_jax.errors import UserError, unknown_name
from nin_jax.reading import shown

TFDS_PREFIX = "tfds:"


class FallbackWarning(UserWarning):
    """The default data set is not to be had; another one stands in for it."""


@dataclass(frozen=True)
class Split:
    """Images with their labels, in a fixed order.

    Attributes:
      images: uint8 [N, H, W, C].
      labels: int32 [N].
    """

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Dataset:
    """A training and a test split that share their image shape and classes.

    Attributes:
      name: what `load_dataset` knows it by.
      train: the training split.
      test: the test split.
      class_names: label `i` means `class_names[i]`.
      checksum: SHA-256, in hex, over shapes and bytes of train images, train labels,
        test images and test labels.
      source: where the arrays come from, such as "idx files"; never a path.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    checksum: str
    source: str

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        _, height, width, channels = self.train.images.shape
        return height, width, channels


def list_datasets() -> tuple[str, ...]:
    """The names that `load_dataset` knows, besides `tfds:NAME`."""
    return (*idx.IDX_SETS, "digits")


def load_dataset(name: str | None = None, data_dir: str | Path | None = None) -> Dataset:
    """Loads a data set by name.

    Args:
      name: one of `list_datasets()`, or `tfds:NAME` for a prepared tensorflow-datasets set,
        or None for Fashion-MNIST where it can be had and scikit-learn's digits elsewhere.
      data_dir: a folder that holds the set's files, directly or in a subfolder of the usual
        name. By default the environment's NIN_DATA_DIR; without that the user's own data
        folder, which the files are downloaded into once (or tensorflow-datasets' own folder).
        `digits` comes with scikit-learn and needs none.

    Returns:
      The data set, whole, in the host's memory.

    Raises:
      UserError: the name is unknown, a file is missing or damaged, a given folder does not
        hold the set, or the download failed.

    Warns:
      FallbackWarning: `name` is None, and `digits` stands in for Fashion-MNIST.

    >>> load_dataset("digits").image_shape
    (8, 8, 1)
    """
    folder = given_folder(data_dir)
    if name is None:
        return _load_default(folder)
    if not isinstance(name, str):
        raise UserError(f"a data set's name is a text, got {shown(name)}")
    if name == "digits":
        return _load_digits()
    if name in idx.IDX_SETS:
        return _load_idx(name, folder)
    if name.startswith(TFDS_PREFIX):
        return _load_tfds(name, folder)
    raise unknown_name("dataset", name, [*list_datasets(), f"{TFDS_PREFIX}NAME"])


def given_folder(data_dir: str | Path | None) -> Path | None:
    """The folder the user named; None where they named none."""
    # An empty variable means unset, as in a shell; an empty argument is the current folder.
    given = os.environ.get("NIN_DATA_DIR") or None if data_dir is None else data_dir
    if not isinstance(given, str | os.PathLike | None) or "\0" in str(given):
        raise UserError(f"a data folder is a path, got {shown(given)}")
    return None if given is None else Path(os.path.expanduser(given))


def _load_default(folder: Path | None) -> Dataset:
    try:
        return _load_idx("fashion_mnist", folder)
    except idx.FetchError as error:
        # Only a failed download ends here: a folder that the user named must be good.
        warnings.warn(
            f"TRAINING DATA IS NOT FASHION-MNIST: scikit-learn's 8x8 digits are used instead, "
            f"because {error}",
            FallbackWarning,
            stacklevel=3,
        )
        return _load_digits()


def _load_idx(name: str, folder: Path | None) -> Dataset:
    idx_set = idx.IDX_SETS[name]
    train_images, train_labels, test_images, test_labels = idx.load_idx(idx_set, folder)
    return _assemble(
        name,
        Split(train_images[..., np.newaxis], train_labels.astype(np.int32)),
        Split(test_images[..., np.newaxis], test_labels.astype(np.int32)),
        idx_set.class_names,
        source="idx files",
    )


def _load_digits() -> Dataset:
    """scikit-learn's 1,797 handwritten digits, 8x8, with 0..16 scaled to 0..255.

    The set has no official split. Here every fifth image of each class, in scikit-learn's
    order, is a test image: 1,442 for training and 355 for testing, stratified, always the same.
    """
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    images = np.rint(values * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    labels = labels.astype(np.int32)
    is_test = np.zeros(len(labels), bool)
    for label in range(10):
        is_test[np.flatnonzero(labels == label)[4::5]] = True
    return _assemble(
        "digits",
        Split(images[~is_test], labels[~is_test]),
        Split(images[is_test], labels[is_test]),
        idx.DIGIT_NAMES,
        source="scikit-learn",
    )


def _load_tfds(name: str, folder: Path | None) -> Dataset:
    prepared = tfds_reader.read_prepared(name.removeprefix(TFDS_PREFIX), folder)
    return _assemble(
        name,
        Split(*prepared.train),
        Split(*prepared.test),
        prepared.class_names,
        source=f"{TFDS_PREFIX}{prepared.full_name}",
    )


def _assemble(
    name: str, train: Split, test: Split, class_names: tuple[str, ...], source: str
) -> Dataset:
    if train.images.shape[1:] != test.images.shape[1:]:
        raise UserError(
            f"{name}: training images have shape {train.images.shape[1:]}, "
            f"test images {test.images.shape[1:]}"
        )
    digest = hashlib.sha256()
    for array in (train.images, train.labels, test.images, test.labels):
        digest.update(repr(array.shape).encode())
        digest.update(np.ascontiguousarray(array).data)
    return Dataset(name, train, test, class_names, digest.hexdigest(), source)
