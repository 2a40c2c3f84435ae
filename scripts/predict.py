"""Name what pictures show: python scripts/predict.py PICTURE... --workdir RUN."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from nin_jax import cli
from nin_jax.runs.trained import Source


@dataclass(frozen=True)
class PredictConfig(Source):
    """Print the likeliest classes of pictures, by the trained network of a run or one that ships.

    A picture is turned to grey or colour and resized as in training. One that cannot be read is
    named and the others go on; the exit code is then 1, or 2 if none is left.
    """

    pictures: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Picture files (PNG, JPEG and what else Pillow reads), or folders of them."""

    top: int = 3
    """Classes to print for a picture, at most."""

    batch_size: int = 128
    """Pictures worked on at a time."""

    precision: Literal["float32", "bfloat16"] | None = None
    """Of the computation. Default: the run's."""

    json: bool = False
    """Print JSON in place of a table."""


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
