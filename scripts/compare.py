"""Compare runs: python scripts/compare.py RUN RUN... --out comparison.png."""

from nin_jax import cli
from nin_jax.runs.comparison import CompareConfig, compare

if __name__ == "__main__":
    cli.main(CompareConfig, compare)
