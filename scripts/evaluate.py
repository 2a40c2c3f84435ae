"""Score a trained network on its test images: python scripts/evaluate.py --workdir RUN."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from nin_jax import cli


@dataclass(frozen=True)
class EvaluateConfig:
    """Reload a run's weights, score them on its test images, and draw confusion.png."""

    workdir: Path
    """Folder of the run, as scripts/train.py wrote it."""

    weights: Path | None = None
    """Another .safetensors file to take the parameters from. Default: the run's own."""

    data_dir: Path | None = None
    """Folder with the data set's files. Default: the run's, $NIN_DATA_DIR, or the user's."""

    device: Annotated[Literal["auto", "cpu", "gpu"], tyro.conf.arg(help="Where to run.")] = "auto"

    compilation_cache: bool = True
    """Keep compiled programs in the user's cache folder, for a quick next start."""


def run(config: EvaluateConfig) -> None:
    from nin_jax.device import use_compilation_cache
    from nin_jax.scoring import score_run

    use_compilation_cache(config.compilation_cache)
    score_run(config.workdir, config.weights, config.data_dir, config.device)


if __name__ == "__main__":
    cli.main(EvaluateConfig, run)
