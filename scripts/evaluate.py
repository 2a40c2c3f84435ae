"""Score a trained network on its test images: python scripts/evaluate.py --workdir RUN."""

from nin_jax import cli
from nin_jax.inference.scoring import EvaluateConfig, score_source

if __name__ == "__main__":
    cli.main(EvaluateConfig, score_source)
