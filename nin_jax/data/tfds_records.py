"""A prepared tensorflow-datasets set, read an example at a time."""

import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nin_jax.data.tfds_reader import decode, find_prepared, other_shape
from nin_jax.errors import UserError, first_line


class RecordSource:
    """The examples of a prepared split; threads may read several at once.

    Attributes:
      image_shape: (height, width, channels) that every image must have: the first one's.
    """

    def __init__(self, where: str, records: Any, keys: tuple[str, str], num_classes: int):
        """`where` begins every message; `keys` name the image and the label in a record."""
        self._where, self._records, self._keys = where, records, keys
        self._num_classes = num_classes
        if len(records) == 0:
            raise UserError(f"{where}: no images")
        self._channels = records.dataset_info.features[keys[0]].shape[-1]
        self.image_shape: tuple[int, int, int] = self._read(0)[0].shape

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """uint8 [H, W, C] and the label.

        Raises:
          UserError: the record is damaged, its image has another shape than the first one, or
            its label is that of no class.
        """
        image, label = self._read(index)
        if image.shape != self.image_shape:
            raise UserError(f"{self._where}: {other_shape(index, image.shape, self.image_shape)}")
        if not 0 <= label < self._num_classes:
            raise UserError(
                f"{self._where}: image {index} has label {label}, classes: {self._num_classes}"
            )
        return image, label

    def _read(self, index: int) -> tuple[Any, int]:
        image_key, label_key = self._keys
        try:
            example = self._records[index]
            return decode(example[image_key], self._channels), int(example[label_key])
        except Exception as error:  # array_record, protobuf and Pillow each have their own
            raise UserError(f"{self._where}: image {index}: {first_line(error)}") from error


class OpenedSet(NamedTuple):
    """A prepared set whose examples are yet to be read."""

    full_name: str  # with configuration and version
    train: RecordSource
    test: RecordSource
    class_names: tuple[str, ...]
    checksum: str  # SHA-256, in hex, over names and sizes of the set and its files, not bytes


def open_prepared(name: str, folder: Path | None) -> OpenedSet:
    """As `tfds_reader.read_prepared`, but reads of each split the first image alone.

    What is wrong with another image is found out when that one is read.
    """
    found = find_prepared(name, folder)
    info = found.builder.info
    digest = hashlib.sha256(info.full_name.encode())
    sources = []
    for split, records in found.splits.items():
        where = f"tfds:{name}, split {split}"
        sources.append(RecordSource(where, records, found.keys, len(found.class_names)))
        # The bytes as well: array_record fills a file up to a multiple of 64 KiB.
        digest.update(f"\n{split} {len(records)} {info.splits[split].num_bytes}".encode())
        for path in info.splits[split].filepaths:
            digest.update(f"\n{path.name} {_size(path, where)}".encode())
    train, test = sources
    if train.image_shape != test.image_shape:
        raise UserError(
            f"tfds:{name}: training images have shape {train.image_shape}, "
            f"test images {test.image_shape}"
        )
    return OpenedSet(info.full_name, train, test, found.class_names, digest.hexdigest())


def _size(path: os.PathLike[str], where: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError as error:
        raise UserError(f"{where}: {os.fspath(path)!r}: {error.strerror}") from None
