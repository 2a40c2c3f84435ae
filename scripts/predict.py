"""Classify pictures: python scripts/predict.py PICTURE... --workdir RUN."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from nin_jax import cli
from nin_jax.runs.trained import Source


@dataclass(frozen=True)
class PredictConfig(Source):
    """Print the most probable classes of pictures, by the network of a run or shipped weights.

    Pictures are converted to gray or color and resized as in training. For one that cannot be read
    an error is printed and the exit code is 1, or 2 if none can be read.
    """

    pictures: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Picture files (PNG, JPEG or another format of Pillow), or folders of them."""

    top: int = 3
    """Maximum number of classes to print for each picture."""

    batch_size: int = 128
    """Pictures to compute at a time."""

    precision: Literal["float32", "bfloat16"] | None = None
    """Precision of the computation. Default: the run's."""

    json: bool = False
    """Print JSON instead of a table."""


def run(config: PredictConfig) -> None:
    from nin_jax import UserError
    from nin_jax.inference import predict
    from nin_jax.training import device

    if not config.pictures:
        raise UserError("give one or more pictures, or folders of them")
    device.use_compilation_cache(config.compilation_cache)
    predictions, faults = predict.predict_files(
        config.pictures,
        config,
        top=config.top,
        batch_size=config.batch_size,
        precision=config.precision,
    )
    predict.report(predictions, faults, config.json)
    if faults:
        sys.exit(1 if predictions else 2)


if __name__ == "__main__":
    cli.main(PredictConfig, run)
