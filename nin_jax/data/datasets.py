"""Image-classification data sets as uint8 arrays on the host; neither torch nor TensorFlow."""

import hashlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, Self, TypeVar

import numpy as np

from nin_jax.data import idx, image_folder, tfds_reader
from nin_jax.errors import UserError, unknown_name
from nin_jax.reading import shown

TFDS_PREFIX = "tfds:"
FOLDER_PREFIX = "folder:"


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

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        _, height, width, channels = self.images.shape
        return height, width, channels

    def chance(self, num_classes: int) -> float:
        """Accuracy of always naming the commonest class."""
        del num_classes
        return np.bincount(self.labels).max() / len(self.labels)

    def part(self, start: int | None, stop: int | None) -> "Split":
        """Some of the examples, as a slice has them."""
        return Split(self.images[start:stop], self.labels[start:stop])

    def read(self, indices: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The examples at ``indices``, int [any n], ``size`` at a time; -1 gives zeros.

        Yields:
          uint8 [size, H, W, C] and int32 [size].
        """
        for start in range(0, len(indices), size):
            some = indices[start : start + size]
            images, labels = self.images[some], self.labels[some]  # copies
            images[some < 0], labels[some < 0] = 0, 0
            yield images, labels


class Examples(Protocol):
    """What `Split` and `streaming.StreamedSplit` are to those who train on them."""

    @property
    def image_shape(self) -> tuple[int, int, int]: ...

    def __len__(self) -> int: ...

    def chance(self, num_classes: int) -> float: ...

    def part(self, start: int | None, stop: int | None) -> Self: ...

    def read(self, indices: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]: ...


SplitT = TypeVar("SplitT", bound=Examples)


@dataclass(frozen=True)
class Dataset(Generic[SplitT]):
    """A training and a test split that share their image shape and classes.

    Attributes:
      name: what `load_dataset` knows it by.
      train: the training split, in memory or streamed.
      test: the test split, likewise.
      class_names: label `i` means `class_names[i]`.
      checksum: SHA-256, in hex, over shapes and bytes of train images, train labels,
        test images and test labels; of an image folder, and of a prepared
        set that is trained on, over its files' names and sizes.
      source: where the arrays come from, such as "idx files"; never a path.
    """

    name: str
    train: SplitT
    test: SplitT
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
        return self.train.image_shape


def list_datasets() -> tuple[str, ...]:
    """The names that `load_dataset` knows, besides `tfds:NAME` and `folder:PATH`."""
    return (*idx.IDX_SETS, "digits")


def load_dataset(name: str | None = None, data_dir: str | Path | None = None) -> Dataset[Split]:
    """Loads a data set by name.

    Args:
      name: one of `list_datasets()`, or `tfds:NAME` for a prepared tensorflow-datasets set,
        or `folder:PATH` for pictures in PATH/train/CLASS/ and PATH/test/CLASS/ (a relative path
        is looked for in the data folder first, then in the current one), or None for
        Fashion-MNIST where it can be had and scikit-learn's digits elsewhere.
      data_dir: a folder that holds the set's files, directly or in a subfolder of the usual
        name. By default the environment's NIN_DATA_DIR; without that the user's own data
        folder, which the files are downloaded into once (or tensorflow-datasets' own folder).
        `digits` comes with scikit-learn and needs none.

    Returns:
      The data set, whole, in the host's memory.

    Raises:
      UserError: the name is unknown, a file is missing or damaged, a given folder does not
        hold the set, the images are not all of one shape, or the download failed.

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
    if name.startswith(FOLDER_PREFIX):
        return _load_folder(name, folder)
    forms = f"{TFDS_PREFIX}NAME, {FOLDER_PREFIX}PATH"
    raise unknown_name("dataset", name, [*list_datasets(), forms])


def given_folder(data_dir: str | Path | None) -> Path | None:
    """The folder the user named; None where they named none."""
    # An empty variable means unset, as in a shell; an empty argument is the current folder.
    given = os.environ.get("NIN_DATA_DIR") or None if data_dir is None else data_dir
    if not isinstance(given, str | os.PathLike | None) or "\0" in str(given):
        raise UserError(f"a data folder is a path, got {shown(given)}")
    return None if given is None else Path(os.path.expanduser(given))


def _load_default(folder: Path | None) -> Dataset[Split]:
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


def _load_idx(name: str, folder: Path | None) -> Dataset[Split]:
    idx_set = idx.IDX_SETS[name]
    train_images, train_labels, test_images, test_labels = idx.load_idx(idx_set, folder)
    return _assemble(
        name,
        Split(train_images[..., np.newaxis], train_labels.astype(np.int32)),
        Split(test_images[..., np.newaxis], test_labels.astype(np.int32)),
        idx_set.class_names,
        source="idx files",
    )


def _load_digits() -> Dataset[Split]:
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


def _load_tfds(name: str, folder: Path | None) -> Dataset[Split]:
    prepared = tfds_reader.read_prepared(name.removeprefix(TFDS_PREFIX), folder)
    return _assemble(
        name,
        Split(*prepared.train),
        Split(*prepared.test),
        prepared.class_names,
        source=f"{TFDS_PREFIX}{prepared.full_name}",
    )


def _load_folder(name: str, folder: Path | None) -> Dataset[Split]:
    found = image_folder.open_folder(name.removeprefix(FOLDER_PREFIX), folder)
    train, test = Split(*found.train.arrays()), Split(*found.test.arrays())
    # Not a checksum of the bytes: a run may be resumed with its pictures streamed, unread.
    return Dataset(name, train, test, found.class_names, found.checksum, image_folder.SOURCE)


def _assemble(
    name: str, train: Split, test: Split, class_names: tuple[str, ...], source: str
) -> Dataset[Split]:
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
