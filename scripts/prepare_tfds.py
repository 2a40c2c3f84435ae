"""Prepares one of the project's data sets for tensorflow-datasets, without TensorFlow."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from nin_jax import cli


@dataclass(frozen=True)
class PrepareConfig:
    """What to prepare, and where."""

    out: Path
    """Folder that the tensorflow-datasets set is written below."""
    dataset: str = "fashion_mnist"
    """fashion_mnist, mnist, kmnist or digits."""
    data_dir: Path | None = None
    """Folder of the set's files; by default NIN_DATA_DIR, then the user's data folder."""


def run(config: PrepareConfig) -> None:
    """Prepares the set and prints how to train from it."""
    # Here, so that --help does not wait for tensorflow-datasets.
    from nin_jax.data.tfds_builders import prepare

    name, folder = prepare(config.dataset, config.data_dir, config.out)
    print(f"prepared {name} in {folder}")
    print("train from it with:")
    print(f"  python scripts/train.py --dataset {name} --data-dir {shlex.quote(str(config.out))}")


if __name__ == "__main__":
    cli.main(PrepareConfig, run)
