"""Disturb runs on purpose, many times, and count the faults: python scripts/soak.py."""

import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # benchmarks/ is not installed

from benchmarks.soak.soak import SoakConfig, run_trials
from nin_jax import cli


def run(config: SoakConfig) -> None:
    """Run the trials, print their outcomes, and exit with 1 if anything was lost."""
    outcomes = run_trials(config, shlex.join(["python", "scripts/soak.py", *sys.argv[1:]]))
    if any(outcome.lost for outcome in outcomes):
        sys.exit(1)


if __name__ == "__main__":
    cli.main(SoakConfig, run)
