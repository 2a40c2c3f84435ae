"""Image-classification datasets as uint8 arrays on the host, without torch or TensorFlow."""

import hashlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nin_jax.data import download, image_folder, tfds
from nin_jax.data.built_in import BUILT_IN
from nin_jax.data.image_folder import DEFAULT, FolderOptions
from nin_jax.data.sources import Dataset, Source
from nin_jax.errors import UserError, unknown_name
from nin_jax.reading import shown

TFDS_PREFIX = "tfds:"
FOLDER_PREFIX = "folder:"


class FallbackWarning(UserWarning):
    """The default dataset cannot be downloaded, and another one is used."""


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

    def __getitem__(self, which: slice | np.ndarray) -> "Split":
        """Return the examples that a slice, an index array or a boolean mask selects."""
        return Split(self.images[which], self.labels[which])

    def read(self, indices: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Read examples in batches.

        Args:
            indices: int [n * size]; -1 gives an image of zeros with label 0.
            size: examples per batch.

        Yields:
            uint8 [size, H, W, C] and int32 [size], n times.
        """
        for start in range(0, len(indices), size):
            some = indices[start : start + size]
            images, labels = self.images[some], self.labels[some]  # copies
            images[some < 0], labels[some < 0] = 0, 0
            yield images, labels


def list_datasets() -> tuple[str, ...]:
    """Return the names that `load_dataset` knows, besides `tfds:NAME` and `folder:PATH`."""
    return tuple(BUILT_IN)


def load_dataset(
    name: str | None = None,
    data_dir: str | Path | None = None,
    options: FolderOptions = DEFAULT,
) -> Dataset[Split]:
    """Load a dataset by name into the host's memory.

    Args:
        name: one of `list_datasets()`, such as "cifar10"; or `tfds:NAME` for a dataset prepared by
            tensorflow-datasets; or `folder:PATH` for images in PATH/train/CLASS/ and
            PATH/test/CLASS/ (a relative path is searched for in the data folder first, then in
            the current one). None means Fashion-MNIST, or scikit-learn's digits if Fashion-MNIST
            cannot be downloaded.
        data_dir: a folder that holds the dataset's files, directly or in a subfolder with the
            usual name. By default the environment variable NIN_DATA_DIR. If that is not set, the
            user's own data folder, into which missing files are downloaded; for `tfds:NAME`,
            tensorflow-datasets' own folder. `digits` comes with scikit-learn and needs no folder.
        options: how to read the images of `folder:PATH`; other datasets do not use it.

    Raises:
        UserError: the name is unknown, a file is missing or damaged, a given folder does not
            hold the dataset, the images do not share one shape and `options` names none, or the
            download failed.

    Warns:
        FallbackWarning: `name` is None, and `digits` is used because Fashion-MNIST cannot be
            downloaded.

    >>> load_dataset("digits").image_shape
    (8, 8, 1)
    """
    folder = given_folder(data_dir)
    if name is None:
        return _load_default(folder)
    if not isinstance(name, str):
        raise UserError(f"the name of a dataset must be text, got {shown(name)}")
    if name in BUILT_IN:
        return _load_built_in(name, folder)
    opened = open_dataset_files(name, folder, options)
    train, test = (Split(*each.arrays(range(len(each)))) for each in (opened.train, opened.test))
    # An image folder has the same checksum whether it is loaded or streamed, because a run may
    # be resumed in the other way.
    checksum = opened.checksum if name.startswith(FOLDER_PREFIX) else _checksum(train, test)
    return Dataset(name, train, test, opened.class_names, checksum, opened.source, opened.notes)


def open_dataset_files(name: str, folder: Path | None, options: FolderOptions) -> Dataset[Source]:
    """Open a dataset whose name has a prefix.

    Args:
        name: `tfds:NAME` or `folder:PATH`.
        folder: the data folder, if the user named one.
        options: how to read the images of `folder:PATH`.

    Raises:
        UserError: the name has no known prefix, or there is no such dataset.
    """
    if name.startswith(TFDS_PREFIX):
        return tfds.open_prepared(name.removeprefix(TFDS_PREFIX), folder)
    if name.startswith(FOLDER_PREFIX):
        return image_folder.open_folder(name.removeprefix(FOLDER_PREFIX), folder, options)
    forms = f"{TFDS_PREFIX}NAME, {FOLDER_PREFIX}PATH"
    raise unknown_name("dataset", name, [*list_datasets(), forms])


def given_folder(data_dir: str | Path | None) -> Path | None:
    """Return the data folder that the user named, or None.

    Args:
        data_dir: overrides the environment variable NIN_DATA_DIR.

    Raises:
        UserError: it is not a path.
    """
    # An empty variable means unset, as in a shell; an empty argument is the current folder.
    given = os.environ.get("NIN_DATA_DIR") or None if data_dir is None else data_dir
    if not isinstance(given, str | os.PathLike | None) or "\0" in str(given):
        raise UserError(f"a data folder is a path, got {shown(given)}")
    return None if given is None else Path(os.path.expanduser(given))


def _load_default(folder: Path | None) -> Dataset[Split]:
    try:
        return _load_built_in("fashion_mnist", folder)
    except download.DownloadError as error:
        # Only a failed download leads to the fallback. An error in a folder that the user named
        # is raised.
        warnings.warn(
            f"TRAINING DATA IS NOT FASHION-MNIST: scikit-learn's 8x8 digits are used instead, "
            f"because {error}",
            FallbackWarning,
            stacklevel=3,
        )
        return _load_built_in("digits", None)


def _load_built_in(name: str, folder: Path | None) -> Dataset[Split]:
    load, class_names, _, source, notes = BUILT_IN[name]
    train_images, train_labels, test_images, test_labels = load(folder)
    train, test = _split(train_images, train_labels), _split(test_images, test_labels)
    return Dataset(name, train, test, class_names, _checksum(train, test), source, notes)


def _split(images: np.ndarray, labels: np.ndarray) -> Split:
    images = images if images.ndim == 4 else images[..., np.newaxis]
    return Split(images, labels.astype(np.int32))


def _checksum(train: Split, test: Split) -> str:
    digest = hashlib.sha256()
    for array in (train.images, train.labels, test.images, test.labels):
        digest.update(repr(array.shape).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
