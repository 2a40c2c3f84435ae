"""Find a learning rate for a run: python scripts/find_lr.py --variant nin15 --recipe modern."""

from nin_jax import cli
from nin_jax.runs.lr_range_test import FindLrConfig, find_lr

if __name__ == "__main__":
    cli.main(FindLrConfig, find_lr)
