"""Disturb runs on purpose, many times over: python scripts/soak.py."""

import shlex
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from nin_jax import cli

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # benchmarks/ is not installed


@dataclass(frozen=True)
class SoakConfig:
    """Kill runs at random moments, damage checkpoints, run for long; count what is lost.

    Exits with 1 if anything is.
    """

    kills: int = 100
    """How often to kill a run."""

    epochs: int = 500
    """Of the long run."""

    seed: int = 0
    """Of the moments and the damages."""

    out: Path | None = None
    """Folder for results.json and results.md. Default: none are written."""


def run(config: SoakConfig) -> None:
    from rich.console import Console

    from benchmarks.soak import output, trials
    from benchmarks.soak.small_run import SmallRun
    from nin_jax import UserError
    from nin_jax.runs import workdir

    for name in ("kills", "epochs"):
        if getattr(config, name) < 1:
            raise UserError(f"--{name} must be a whole number >= 1, got {getattr(config, name)}")
    if config.out is not None:
        workdir.check_folder("--out", config.out)
    short = ("--epochs", "3", "--limit-train", "400", "--batch-size", "50", "--recipe", "modern")
    short += ("--augment", "flip_shift", "--checkpoint-every", "2", "--keep-checkpoints", "3")
    long = ("--epochs", str(config.epochs), "--limit-train", "64", "--limit-test", "32")
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory() as scratch, console.status("") as status:
        small = SmallRun(Path(scratch), short)
        outcomes = [
            trials.kill_runs(small, config.kills, config.seed, status.update),
            trials.damage_files(small, config.seed, status.update),
            trials.run_long(SmallRun(Path(scratch), long), config.epochs, status.update),
        ]
    console.print(output.table(outcomes))
    if config.out is not None:
        output.write(outcomes, shlex.join(["python", "scripts/soak.py", *sys.argv[1:]]), config.out)
    if any(outcome.lost for outcome in outcomes):
        sys.exit(1)


if __name__ == "__main__":
    cli.main(SoakConfig, run)
