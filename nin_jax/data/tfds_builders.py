"""Write this project's own datasets for tensorflow-datasets, without TensorFlow.

Importing this module registers a builder for each dataset of `list_datasets()`, such as
`nin_fashion_mnist`. tensorflow-datasets' own builders for the MNIST family need TensorFlow to
prepare a dataset. Reading needs neither this module nor TensorFlow:
`load_dataset("tfds:nin_digits", folder)`.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from PIL import Image

from nin_jax.data import datasets
from nin_jax.data.built_in import BUILT_IN, BuiltIn
from nin_jax.errors import UserError, one_line, unknown_name


class _NinBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Write the arrays of one dataset as array_record, in their order.

    Args:
        dataset: holds the arrays to write; by default it is loaded when it is needed.
        **kwargs: as for `tfds.core.GeneratorBasedBuilder`.
    """

    VERSION = tfds.core.Version("1.0.0")
    DATASET: str
    CLASS_NAMES: tuple[str, ...]
    IMAGE_SHAPE: tuple[int, int, int]

    def __init__(self, *, dataset: datasets.Dataset | None = None, **kwargs: Any):
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
            disable_shuffling=True,  # keep the order of the arrays
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        del dl_manager  # load_dataset downloads
        dataset = self._dataset or datasets.load_dataset(self.DATASET)
        return {
            "train": self._generate_examples(dataset.train),
            "test": self._generate_examples(dataset.test),
        }

    def _generate_examples(self, split: datasets.Split) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
            # tensorflow-datasets encodes arrays with TensorFlow, but Pillow images with Pillow.
            pixels = image[..., 0] if image.shape[-1] == 1 else image
            yield i, {"image": Image.fromarray(pixels), "label": int(label)}


def _builder(name: str, built_in: BuiltIn) -> type[_NinBuilder]:
    """Create and register a builder: `fashion_mnist` becomes NinFashionMnist, nin_fashion_mnist.

    `emnist:letters` becomes nin_emnist_letters.
    """
    fields = {
        "DATASET": name,
        "CLASS_NAMES": built_in.class_names,
        "IMAGE_SHAPE": built_in.image_shape,
        "__doc__": f"The dataset `{name}` as nin_jax reads it.",
    }
    title = name.replace(":", "_").title().replace("_", "")
    return type(f"Nin{title}", (_NinBuilder,), fields)


_BUILDERS = {name: _builder(name, each) for name, each in BUILT_IN.items()}


def prepare(name: str, data_dir: str | Path | None, out: str | Path) -> tuple[str, Path]:
    """Prepare one of this project's datasets below the folder `out`.

    Args:
        name: one of `list_datasets()`.
        data_dir: where `load_dataset` reads the dataset from.
        out: a tensorflow-datasets folder; created if it does not exist. A dataset that is already
            prepared there is not changed.

    Returns:
        The name for `load_dataset`, such as "tfds:nin_digits", and the folder of the prepared
        dataset.

    Raises:
        UserError: the dataset cannot be loaded, or `out` cannot be written.
    """
    if name not in _BUILDERS:
        raise unknown_name("dataset", name, _BUILDERS)
    if os.path.lexists(out) and not os.path.isdir(out):  # before tensorflow-datasets prints
        raise UserError(f"cannot write to {str(out)!r}: it is a file, not a folder")
    dataset = datasets.load_dataset(name, data_dir)
    with one_line(f"cannot write to {str(out)!r}"):
        builder = _BUILDERS[name](dataset=dataset, data_dir=str(out))
        builder.download_and_prepare()
    return f"{datasets.TFDS_PREFIX}{builder.name}", Path(builder.data_path)
