"""tensorflow-datasets builders for the project's own sets, prepared without TensorFlow.

Importing this module registers `nin_fashion_mnist`, `nin_mnist`, `nin_kmnist` and `nin_digits`.
tensorflow-datasets' own builders of the MNIST family need TensorFlow to prepare a set. Reading a
prepared one needs neither this module nor TensorFlow: `load_dataset("tfds:nin_digits", folder)`.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from PIL import Image

from nin_jax.data import datasets, idx
from nin_jax.errors import UserError, unknown_name


class _NinBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes the arrays of `load_dataset(SOURCE)` as array_record, in their order."""

    VERSION = tfds.core.Version("1.0.0")
    SOURCE: str
    CLASS_NAMES: tuple[str, ...]
    IMAGE_SHAPE: tuple[int, int, int] = (28, 28, 1)

    def __init__(self, *, dataset: datasets.Dataset | None = None, **kwargs: Any):
        """`dataset` holds the arrays to write; by default they are loaded when preparing."""
        self._dataset = dataset
        kwargs["file_format"] = kwargs.get("file_format") or "array_record"
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=self.IMAGE_SHAPE, encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=list(self.CLASS_NAMES)),
                }
            ),
            supervised_keys=("image", "label"),
            disable_shuffling=True,  # the arrays come back in the order they went in
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        del dl_manager  # load_dataset does the fetching
        dataset = self._dataset or datasets.load_dataset(self.SOURCE)
        return {
            "train": self._generate_examples(dataset.train),
            "test": self._generate_examples(dataset.test),
        }

    def _generate_examples(self, split: datasets.Split) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
            # An array would be encoded by TensorFlow, a Pillow image is encoded by Pillow, which
            # matplotlib and reading the set back need anyway.
            yield i, {"image": Image.fromarray(image[..., 0]), "label": int(label)}


class NinFashionMnist(_NinBuilder):
    """Fashion-MNIST, from its official files."""

    SOURCE = "fashion_mnist"
    CLASS_NAMES = idx.IDX_SETS["fashion_mnist"].class_names


class NinMnist(_NinBuilder):
    """MNIST, from its official files."""

    SOURCE = "mnist"
    CLASS_NAMES = idx.IDX_SETS["mnist"].class_names


class NinKmnist(_NinBuilder):
    """KMNIST, from its official files."""

    SOURCE = "kmnist"
    CLASS_NAMES = idx.IDX_SETS["kmnist"].class_names


class NinDigits(_NinBuilder):
    """scikit-learn's handwritten digits, in this project's split."""

    SOURCE = "digits"
    CLASS_NAMES = idx.DIGIT_NAMES
    IMAGE_SHAPE = (8, 8, 1)


_BUILDERS = {cls.SOURCE: cls for cls in (NinFashionMnist, NinMnist, NinKmnist, NinDigits)}


def prepare(name: str, data_dir: str | Path | None, out: str | Path) -> tuple[str, Path]:
    """Prepares one of the project's sets below the folder `out`.

    Args:
      name: one of `list_datasets()`.
      data_dir: where `load_dataset` reads the set from.
      out: a tensorflow-datasets folder, made if need be. A set that is already prepared there
        is left as it is.

    Returns:
      The name for `load_dataset`, such as "tfds:nin_digits", and the folder of the prepared set.

    Raises:
      UserError: the set cannot be loaded, or `out` cannot be written.
    """
    if name not in _BUILDERS:
        raise unknown_name("dataset", name, _BUILDERS)
    if os.path.lexists(out) and not os.path.isdir(out):  # before anything is printed of it
        raise UserError(f"cannot write to {str(out)!r}: it is a file, not a folder")
    dataset = datasets.load_dataset(name, data_dir)
    try:
        builder = _BUILDERS[name](dataset=dataset, data_dir=str(out))
        builder.download_and_prepare()
    except OSError as error:
        raise UserError(f"cannot write to {str(out)!r}: {error.strerror or error}") from error
    return f"{datasets.TFDS_PREFIX}{builder.name}", Path(builder.data_path)
