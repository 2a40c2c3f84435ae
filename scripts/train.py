"""Train a Network in Network: python scripts/train.py --variant nin15."""

from dataclasses import replace

from nin_jax import cli
from nin_jax.training.config import TrainConfig


def run(config: TrainConfig) -> None:
    """Train, or print the variants."""
    from nin_jax.models import summary
    from nin_jax.runs import manifest
    from nin_jax.runs.fit import fit

    if config.list_variants:
        print(summary.variant_table())
        return
    if config.resume and config.workdir is not None:
        # Options that are not given keep the values of the run.
        saved = manifest.read_run(config.workdir).config
        saved = replace(saved, workdir=config.workdir, **manifest.NOT_CARRIED_OVER)
        config = cli.parse(TrainConfig, default=saved)
    fit(config)


if __name__ == "__main__":
    cli.main(TrainConfig, run)
