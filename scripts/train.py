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
        # Options that are not given keep the values of the run; --steps replaces --epochs.
        saved = manifest.read_run(config.workdir).config
        length = {"steps": saved.steps, "epochs": saved.epochs}
        others = {"steps": None, "epochs": None, "workdir": config.workdir}
        others = replace(saved, **others, **manifest.NOT_CARRIED_OVER)
        config = cli.parse(TrainConfig, default=others)
        if config.steps is None and config.epochs is None:
            config = replace(config, **length)
    fit(config)


if __name__ == "__main__":
    cli.main(TrainConfig, run)
