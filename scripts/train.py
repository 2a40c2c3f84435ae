"""Train a Network in Network: python scripts/train.py --variant nin15."""

from dataclasses import replace

from nin_jax import cli
from nin_jax.config import TrainConfig


def run(config: TrainConfig) -> None:
    from nin_jax import loop, record, tables

    if config.list_variants:
        print(tables.variant_table())
        return
    if config.resume and config.workdir is not None:
        # What the command line leaves open is as the run has it.
        saved = record.read_config(config.workdir)
        saved = replace(saved, workdir=config.workdir, **record.NOT_CARRIED_OVER)
        config = cli.parse(TrainConfig, default=saved)
    loop.fit(config)


if __name__ == "__main__":
    cli.main(TrainConfig, run)
