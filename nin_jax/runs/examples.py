"""The examples of a run: its dataset, opened or in memory, held out and within its limits."""

import math
from dataclasses import replace

import jax
import numpy as np

from nin_jax.data.datasets import FOLDER_PREFIX, TFDS_PREFIX, Dataset, Split, load_dataset
from nin_jax.data.holdout import held_out
from nin_jax.data.image_folder import FolderOptions
from nin_jax.data.streaming import StreamedSplit, open_dataset
from nin_jax.errors import UserError
from nin_jax.training.config import TrainConfig, recipe_of

RESIDENT_BYTES = 2**31  # training images that fit on every device


def load_data(config: TrainConfig) -> Dataset:
    """Return the run's dataset within its limits.

    With ``holdout``, some training images take the place of the test split.

    Raises:
        UserError: as `load_dataset`; there are more classes than ``num_classes``; or ``holdout``
            leaves no training images.
    """
    dataset = _open(config)
    if config.num_classes is not None and config.num_classes < dataset.num_classes:
        raise UserError(
            f"--num-classes {config.num_classes} is too few: {dataset.name} has labels "
            f"0 to {dataset.num_classes - 1}"
        )
    train, test = dataset.train, dataset.test
    held = _held_out(config, dataset)
    if held is not None:
        train, test = train[~held], train[held]
    train, test = train[: config.limit_train], test[: config.limit_test]
    if not streams(config, dataset):  # only what is left is read
        train, test = _in_memory(train), _in_memory(test)
    return replace(dataset, train=train, test=test)


def _held_out(config: TrainConfig, dataset: Dataset) -> np.ndarray | None:
    """Return which training images are held out, bool [N], whatever the feed; None for none."""
    if config.holdout is None:
        return None
    total = len(dataset.train)
    if config.holdout >= total:
        raise UserError(
            f"--holdout {config.holdout} leaves nothing to train on: {dataset.name} has "
            f"{total} training images"
        )
    return held_out(dataset.train.labels, total, config.holdout, config.seed)


def _open(config: TrainConfig) -> Dataset:
    """Return the dataset: opened for reading if it can be streamed, else in memory.

    A run may be resumed with the other feed, so both have the checksum of the opened dataset.
    """
    name = config.dataset or ""
    if name.startswith(TFDS_PREFIX):
        return open_dataset(name, config.data_dir)
    if not name.startswith(FOLDER_PREFIX):
        return load_dataset(config.dataset, config.data_dir)
    # `recipe_of` reads the variant's file, which may be gone when a trained network is scored.
    size = config.image_size or recipe_of(config).image_size
    options = FolderOptions(size, config.crop, config.follow_links, config.holdout is None)
    return open_dataset(name, config.data_dir, options)


def _in_memory(split: Split | StreamedSplit) -> Split:
    return split if isinstance(split, Split) else Split(*split.arrays())


def streams(config: TrainConfig, dataset: Dataset) -> bool:
    """Return whether a run sends each device only its own share of the examples.

    Args:
        config: its ``feed``.
        dataset: with ``feed="auto"``, what does not fit on a device is streamed.
    """
    if config.feed == "auto":
        size = len(dataset.train) * math.prod(dataset.image_shape)
        return jax.process_count() > 1 or size > RESIDENT_BYTES
    return config.feed == "stream"
