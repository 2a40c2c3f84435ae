"""Measure speed and memory against PyTorch and plain Flax: python scripts/bench.py."""

import os
import shlex
import sys
from pathlib import Path

# PyTorch needs memory of a GPU beside JAX, which otherwise takes three quarters of it.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # benchmarks/ is not installed

from benchmarks.speed.config import BenchConfig
from nin_jax import cli
from nin_jax.errors import UserError


def run(config: BenchConfig) -> None:
    """Run the benchmarks that are named, and print their rows."""
    config.check()
    try:
        from benchmarks.speed.bench import run_benchmarks  # imports PyTorch, which is slow
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise UserError("the benchmark needs PyTorch: pip install -e '.[test]'") from None
    run_benchmarks(config, shlex.join(["python", "scripts/bench.py", *sys.argv[1:]]))


if __name__ == "__main__":
    cli.main(BenchConfig, run)
