"""Score a trained network on its test images: python scripts/evaluate.py --workdir RUN."""

from dataclasses import dataclass
from pathlib import Path

from nin_jax import cli
from nin_jax.runs.trained import Source


@dataclass(frozen=True)
class EvaluateConfig(Source):
    """Score the weights of a run, or shipped weights, on their test images, and draw
    confusion.png."""

    data_dir: Path | None = None
    """Folder with the dataset's files. Default: the run's, $NIN_DATA_DIR, or the user's."""

    out: Path | None = None
    """Folder for confusion.png. Default: the run's; with --pretrained the current folder."""

    export: Path | None = None
    """Round the run's weights to float16, score them, and write them with a card into this folder.
    --pretrained looks in nin_jax/weights."""


def run(config: EvaluateConfig) -> None:
    from nin_jax.inference.scoring import score_source
    from nin_jax.training.device import use_compilation_cache

    use_compilation_cache(config.compilation_cache)
    score_source(config, data_dir=config.data_dir, out=config.out, export=config.export)


if __name__ == "__main__":
    cli.main(EvaluateConfig, run)
