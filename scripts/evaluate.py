"""Score a trained network on its test images: python scripts/evaluate.py --workdir RUN."""

from nin_jax import cli
from nin_jax.inference.scoring import EvaluateConfig, score_source
from nin_jax.training.device import use_compilation_cache


def run(config: EvaluateConfig) -> None:
    """Score the network, print and draw the result."""
    use_compilation_cache(config.compilation_cache)
    score_source(
        config,
        test=config.test,
        data_dir=config.data_dir,
        out=config.out,
        export=config.export,
    )


if __name__ == "__main__":
    cli.main(EvaluateConfig, run)
