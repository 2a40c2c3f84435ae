"""Prepare one of this project's datasets for tensorflow-datasets, without TensorFlow."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from nin_jax import cli


@dataclass(frozen=True)
class PrepareConfig:
    """Prepare one of this project's datasets for tensorflow-datasets, without TensorFlow."""

    out: Path
    """Folder for the tensorflow-datasets dataset."""
    dataset: str = "fashion_mnist"
    """Name of the dataset: any that scripts/train.py knows by name, such as digits or cifar10."""
    data_dir: Path | None = None
    """Folder of the dataset's files; by default NIN_DATA_DIR, then the user's data folder."""


def run(config: PrepareConfig) -> None:
    """Prepare the dataset and print how to train with it."""
    # Imported here so that --help does not wait for tensorflow-datasets.
    from nin_jax.data.tfds_builders import prepare

    name, folder = prepare(config.dataset, config.data_dir, config.out)
    print(f"prepared {name} in {folder}")
    print("train with it:")
    print(f"  python scripts/train.py --dataset {name} --data-dir {shlex.quote(str(config.out))}")


if __name__ == "__main__":
    cli.main(PrepareConfig, run)
