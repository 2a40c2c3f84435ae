"""Datasets prepared by tensorflow-datasets, read without TensorFlow."""

import hashlib
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nin_jax.data import pictures
from nin_jax.data.sources import Dataset, Source
from nin_jax.errors import UserError, first_line, one_line

# A dataset's name, its configuration, its version. tensorflow-datasets also accepts namespaces,
# which access the network, and keyword arguments, which run the builder's own code.
_NAME = re.compile(r"\w+(/[\w.-]+)?(:[\d.]+)?", re.ASCII)

# Reading records in batches takes half the time of reading them one by one.
_READ_BATCH = 1024


class RecordSource:
    """The examples of one prepared split; several threads may read at the same time.

    Attributes:
        image_shape: (height, width, channels) of the first image; all images must share it.
    """

    def __init__(self, where: str, records: Any, keys: tuple[str, str], num_classes: int):
        """Read the first image.

        Args:
            where: the start of every message.
            records: the data source of tensorflow-datasets, with undecoded images.
            keys: the names of the image and of the label in a record.
            num_classes: labels must be less than this.

        Raises:
            UserError: there are no images, or the first one is damaged.
        """
        self._where, self._records, self._keys = where, records, keys
        self._num_classes = num_classes
        if len(records) == 0:
            raise UserError(f"{where}: no images")
        self._channels = records.dataset_info.features[keys[0]].shape[-1]
        with one_line(f"{where}: image 0", Exception):
            first = _decode(records[0][keys[0]], self._channels)
        self.image_shape: tuple[int, int, int] = first.shape

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Return an image, uint8 [H, W, C], and its label.

        Raises:
            UserError: the record is damaged, its image does not have the shape of the first one,
                or its label is not the label of a class.
        """
        with one_line(f"{self._where}: image {index}", Exception):
            return self._example(index, self._records[index])

    def arrays(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return images, uint8 [N, H, W, C], and labels, int32 [N], of the examples ``indices``.

        Raises:
            UserError: as `__getitem__`, or the arrays do not fit into memory.
        """
        with one_line(self._where, Exception):
            images = np.empty((len(indices), *self.image_shape), np.uint8)
            labels = np.empty(len(indices), np.int32)
        for start in range(0, len(indices), _READ_BATCH):
            batch = [int(index) for index in indices[start : start + _READ_BATCH]]
            with one_line(f"{self._where}: images {batch[0]} to {batch[-1]}", Exception):
                records = self._records.__getitems__(batch)
            for place, (index, record) in enumerate(zip(batch, records, strict=True), start):
                with one_line(f"{self._where}: image {index}", Exception):
                    images[place], labels[place] = self._example(index, record)
        return images, labels

    def _example(self, index: int, record: dict[str, Any]) -> tuple[np.ndarray, int]:
        image_key, label_key = self._keys
        image, label = _decode(record[image_key], self._channels), int(record[label_key])
        if image.shape != self.image_shape:
            raise UserError(
                f"{self._where}: image {index} has shape {image.shape}, image 0 "
                f"{self.image_shape}; all images must share one shape"
            )
        if not 0 <= label < self._num_classes:
            raise UserError(
                f"{self._where}: image {index} has label {label}, classes: {self._num_classes}"
            )
        return image, label


def open_prepared(name: str, folder: Path | None) -> Dataset[Source]:
    """Open the splits `train` and `test` of an image-classification dataset.

    Only the first image of each split is read. An error in another image is raised when that image
    is read.

    Args:
        name: the name that tensorflow-datasets uses, such as "mnist".
        folder: where the dataset was prepared; by default tensorflow-datasets' own folder.

    Raises:
        UserError: the dataset is not prepared, is in a format that needs TensorFlow, is not an
            image-classification dataset with one image shape, or is damaged.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} is not a tensorflow-datasets name, such as 'mnist'")
    builder = _prepared_builder(name, folder)
    keys = _feature_names(builder, name)
    class_names = tuple(builder.info.features[keys[1]].names)
    # Open both splits before reading an image: a missing split is then reported at once.
    records = {split: _data_source(builder, name, split, keys[0]) for split in ("train", "test")}
    checksum = _checksum(builder.info, name, records)
    train, test = (
        RecordSource(f"tfds:{name}, split {split}", each, keys, len(class_names))
        for split, each in records.items()
    )
    if train.image_shape != test.image_shape:
        raise UserError(
            f"tfds:{name}: training images have shape {train.image_shape}, "
            f"test images {test.image_shape}"
        )
    source = f"tfds:{builder.info.full_name}"
    return Dataset(f"tfds:{name}", train, test, class_names, checksum, source)


def _prepared_builder(name: str, folder: Path | None) -> Any:
    where = "tensorflow-datasets' own folder" if folder is None else repr(str(folder))
    how = (
        "prepare it there with tensorflow-datasets, file_format='array_record'; for this "
        "project's own datasets: python scripts/prepare_tfds.py --dataset digits --out FOLDER "
        "makes tfds:nin_digits"
    )
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(f"tfds:{name} needs the tensorflow-datasets package: {error}") from error
    try:
        builder = tfds.builder(name, data_dir=folder)
        # builder.is_prepared() would also log a line to stderr if it finds nothing.
        prepared = os.path.isfile(os.path.join(builder.data_path, "dataset_info.json"))
    except Exception as error:  # unknown names, damaged metadata: its parsers raise any type
        problem = f"cannot be opened in {where} ({first_line(error)})"
        raise UserError(f"tfds:{name} {problem}; {how}") from error
    if not prepared:
        raise UserError(f"tfds:{name} is not prepared in {where}; {how}")
    return builder


def _feature_names(builder: Any, name: str) -> tuple[str, str]:
    """Return the names of the image and label features."""
    from tensorflow_datasets import features

    keys = builder.info.supervised_keys or ("image", "label")
    found = []
    if isinstance(builder.info.features, features.FeaturesDict):
        known = dict(builder.info.features)
        found = [known[key] for key in keys if isinstance(key, str) and key in known]
    match found:
        case [features.Image(), features.ClassLabel()]:
            image: Any = found[0]
        case _:
            raise UserError(
                f"tfds:{name} is not an image-classification dataset with one Image and one "
                "ClassLabel"
            )
    dtype, channels = np.dtype(image.np_dtype), image.shape[-1]
    if dtype != np.uint8 or channels not in (1, 3):
        raise UserError(
            f"tfds:{name} has {dtype} images with {channels} channels; "
            "only uint8 with 1 or 3 channels is supported"
        )
    return keys


def _data_source(builder: Any, name: str, split: str, image_key: str) -> Any:
    import tensorflow_datasets as tfds

    if split not in builder.info.splits:
        found = ", ".join(sorted(builder.info.splits)) or "none"
        raise UserError(f"tfds:{name} has no split {split!r}, which is required; it has {found}")
    try:
        # `_decode` uses Pillow: 1.5 times as fast as tensorflow-datasets' own decoder, which would
        # also use OpenCV if that happens to be installed.
        return builder.as_data_source(split, decoders={image_key: tfds.decode.SkipDecoding()})
    except NotImplementedError as error:
        raise UserError(
            f"tfds:{name} is prepared as {builder.info.file_format.value}, which needs TensorFlow "
            "to read; prepare it in another folder with file_format='array_record'"
        ) from error
    except Exception as error:  # missing or damaged files: array_record raises any type
        raise UserError(f"tfds:{name}, split {split}: {first_line(error)}") from error


def _checksum(info: Any, name: str, records: dict[str, Any]) -> str:
    digest = hashlib.sha256(info.full_name.encode())
    for split, each in records.items():
        # num_bytes too: array_record pads its files to a multiple of 64 KiB.
        digest.update(f"\n{split} {len(each)} {info.splits[split].num_bytes}".encode())
        for path in info.splits[split].filepaths:
            with one_line(f"tfds:{name}, split {split}: {os.fspath(path)!r}"):
                size = os.path.getsize(path)
            digest.update(f"\n{path.name} {size}".encode())
    return digest.hexdigest()


def _decode(encoded: bytes, channels: int) -> np.ndarray:
    """Decode an image file's bytes to uint8 [H, W, channels]."""
    from PIL import Image

    with Image.open(io.BytesIO(encoded), formats=pictures.formats()) as image:
        pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return pixels.reshape(*pixels.shape[:2], channels)
