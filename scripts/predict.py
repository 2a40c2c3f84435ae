"""Classify pictures: python scripts/predict.py PICTURE... --workdir RUN."""

from nin_jax import cli
from nin_jax.inference import files, predict
from nin_jax.inference.predict import PredictConfig


def run(config: PredictConfig) -> None:
    """Print the predictions, and exit as `files.finish` does."""
    predictions, faults = predict.predict_files(config)
    predict.report(predictions, config.json)
    files.finish(faults, bool(predictions))


if __name__ == "__main__":
    cli.main(PredictConfig, run)
