"""Reading a prepared tensorflow-datasets set into arrays, without TensorFlow."""

import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nin_jax.data import pictures
from nin_jax.errors import UserError, first_line

# A set's name, its configuration, its version. tensorflow-datasets would also take namespaces,
# which reach for the network, and keyword arguments, which run the builder's own code.
_NAME = re.compile(r"\w+(/[\w.-]+)?(:[\d.]+)?", re.ASCII)


class PreparedSet(NamedTuple):
    """A set's arrays: (uint8 [N, H, W, C], int32 [N]) for train and for test."""

    full_name: str  # with configuration and version
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    class_names: tuple[str, ...]


def read_prepared(name: str, folder: Path | None) -> PreparedSet:
    """Reads the splits `train` and `test` of an image-classification set.

    Args:
      name: the set's name as tensorflow-datasets knows it, such as "mnist".
      folder: where it was prepared; by default tensorflow-datasets' own folder.

    Raises:
      UserError: the set is not prepared, not in a format that can be read without TensorFlow,
        not an image-classification set of one image shape, or damaged.
    """
    found = find_prepared(name, folder)
    arrays = []
    for split, records in found.splits.items():
        try:
            arrays.append(_read_split(records, *found.keys, len(found.class_names)))
        except Exception as error:  # array_record, protobuf and Pillow each have their own
            raise UserError(f"tfds:{name}, split {split}: {first_line(error)}") from error
    return PreparedSet(found.builder.info.full_name, arrays[0], arrays[1], found.class_names)


class FoundSet(NamedTuple):
    """A prepared set of which nothing but its description is read so far."""

    builder: Any
    keys: tuple[str, str]  # of image and label in a record
    splits: dict[str, Any]  # tensorflow-datasets' data sources, images undecoded: train and test
    class_names: tuple[str, ...]


def find_prepared(name: str, folder: Path | None) -> FoundSet:
    """As `read_prepared`, but reads no images."""
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} is not a tensorflow-datasets name, such as 'mnist'")
    builder = _prepared_builder(name, folder)
    image_key, label_key = _keys(builder, name)
    # Both splits are found before either is read: a missing one should not take minutes to tell.
    splits = {split: _data_source(builder, name, split, image_key) for split in ("train", "test")}
    class_names = tuple(builder.info.features[label_key].names)
    return FoundSet(builder, (image_key, label_key), splits, class_names)


def _prepared_builder(name: str, folder: Path | None) -> Any:
    where = "tensorflow-datasets' own folder" if folder is None else repr(str(folder))
    how = (
        "prepare it there with tensorflow-datasets, file_format='array_record'; for this "
        "project's own sets: python scripts/prepare_tfds.py --dataset digits --out FOLDER "
        "makes tfds:nin_digits"
    )
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(f"tfds:{name} needs the tensorflow-datasets package: {error}") from error
    try:
        builder = tfds.builder(name, data_dir=folder)
        # Not builder.is_prepared(): where it finds nothing it logs a line to stderr as well.
        prepared = os.path.isfile(os.path.join(builder.data_path, "dataset_info.json"))
    except Exception as error:  # unknown names, broken metadata: whatever its parsers raise
        problem = f"cannot be opened in {where} ({first_line(error)})"
        raise UserError(f"tfds:{name} {problem}; {how}") from error
    if not prepared:
        raise UserError(f"tfds:{name} is not prepared in {where}; {how}")
    return builder


def _keys(builder: Any, name: str) -> tuple[str, str]:
    """The names of the set's image and label features."""
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
                f"tfds:{name} is not an image-classification set, of one Image and one ClassLabel"
            )
    dtype, channels = np.dtype(image.np_dtype), image.shape[-1]
    if dtype != np.uint8 or channels not in (1, 3):
        raise UserError(
            f"tfds:{name} has {dtype} images of {channels} channels; "
            "uint8 with 1 or 3 channels can be read"
        )
    return keys


def _data_source(builder: Any, name: str, split: str, image_key: str) -> Any:
    import tensorflow_datasets as tfds

    if split not in builder.info.splits:
        found = ", ".join(sorted(builder.info.splits)) or "none"
        raise UserError(f"tfds:{name} has no split {split!r}, which is needed; it has {found}")
    try:
        # Pillow decodes the images in `decode`: half again as fast as tensorflow-datasets' own
        # decoder, which would also choose OpenCV where that happens to be installed.
        return builder.as_data_source(split, decoders={image_key: tfds.decode.SkipDecoding()})
    except NotImplementedError as error:
        raise UserError(
            f"tfds:{name} is prepared as {builder.info.file_format.value}, which needs TensorFlow "
            "to read; prepare it in another folder with file_format='array_record'"
        ) from error
    except Exception as error:  # missing or damaged files: whatever array_record raises
        raise UserError(f"tfds:{name}, split {split}: {first_line(error)}") from error


def _read_split(
    source: Any, image_key: str, label_key: str, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """All of a split: uint8 [N, H, W, C], int32 [N]."""
    if len(source) == 0:
        raise UserError("no images")
    channels = source.dataset_info.features[image_key].shape[-1]
    images = np.empty((0,), np.uint8)
    labels = np.empty(len(source), np.int32)
    for i, example in enumerate(_in_batches(source)):
        image = decode(example[image_key], channels)
        if i == 0:
            images = np.empty((len(source), *image.shape), np.uint8)
        if image.shape != images.shape[1:]:
            raise UserError(other_shape(i, image.shape, images.shape[1:]))
        images[i] = image
        labels[i] = example[label_key]
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UserError(f"labels go from {labels.min()} to {labels.max()}, classes: {num_classes}")
    return images, labels


def other_shape(index: int, shape: tuple[int, ...], first: tuple[int, ...]) -> str:
    """What is said of an image that is not shaped like the first one."""
    return f"image {index} has shape {shape}, image 0 {first}; all images must share one shape"


def _in_batches(source: Any, batch_size: int = 1024) -> Iterator[dict[str, Any]]:
    """The examples in order; read in batches, which takes half the time of one by one."""
    for start in range(0, len(source), batch_size):
        yield from source.__getitems__(range(start, min(start + batch_size, len(source))))


def decode(encoded: bytes, channels: int) -> np.ndarray:
    """An image file's bytes -> uint8 [H, W, channels]."""
    from PIL import Image

    with Image.open(io.BytesIO(encoded), formats=pictures.safe_formats()) as image:
        pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return pixels.reshape(*pixels.shape[:2], channels)
