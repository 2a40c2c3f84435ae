"""Run every trial, print a table of the outcomes, and save it."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.soak import trials
from benchmarks.soak.small_run import SmallRun
from benchmarks.soak.trials import Outcome
from nin_jax.errors import UserError
from nin_jax.runs import environment, manifest, workdir
from nin_jax.tables import Table, markdown_section, print_table

SHORT = ("--epochs", "3", "--limit-train", "400", "--batch-size", "50", "--recipe", "modern")
SHORT += ("--augment", "flip_shift", "--checkpoint-every", "2", "--keep-checkpoints", "3")
LONG = ("--limit-train", "64", "--limit-test", "32")


@dataclass(frozen=True)
class SoakConfig:
    """Kill runs at random moments, damage checkpoints, train for many epochs; count the faults.

    The exit code is 1 if there is any fault.
    """

    kills: int = 100
    """How many times to kill a run."""

    epochs: int = 500
    """Epochs of the long run."""

    seed: int = 0
    """Seed of the moments and of the damage."""

    out: Path | None = None
    """Folder for results.json and results.md. Default: none are written."""


def run_trials(config: SoakConfig, command: str) -> list[Outcome]:
    """Run all trials, print their outcomes, and save them if the configuration has a folder.

    Args:
        config: how much to run.
        command: the command line, for the results.

    Raises:
        UserError: an option has a wrong value, or a run fails without being disturbed.
    """
    for name in ("kills", "epochs"):
        if getattr(config, name) < 1:
            raise UserError(f"--{name} must be a whole number >= 1, got {getattr(config, name)}")
    if config.out is not None:
        workdir.check_folder("--out", config.out)
    console = Console(highlight=False, emoji=False)
    with tempfile.TemporaryDirectory() as scratch, console.status("") as status:
        short = SmallRun(Path(scratch), SHORT)
        long = SmallRun(Path(scratch), ("--epochs", str(config.epochs), *LONG))
        outcomes = [
            trials.kill_runs(short, config.kills, config.seed, status.update),
            trials.damage_files(short, config.seed, status.update),
            trials.run_long(long, config.epochs, status.update),
        ]
    print_table(_table(outcomes), console)
    if config.out is not None:
        _write(outcomes, command, config.out)
    return outcomes


def _table(outcomes: Sequence[Outcome]) -> Table:
    rows = [(each.trial, each.tried, each.lost, _details(each)) for each in outcomes]
    return Table("soak", ("trial", "tried", "lost", "details"), rows)


def _details(outcome: Outcome) -> str:
    shown = {name: value for name, value in outcome.details.items() if value not in ([], {})}
    return "; ".join(f"{name.replace('_', ' ')} {_text(value)}" for name, value in shown.items())


def _text(value: object) -> str:
    return json.dumps(value).strip("{}[]").replace('"', "")


def _write(outcomes: Sequence[Outcome], command: str, folder: Path) -> None:
    """Write results.json and results.md, with the command, the device and the versions."""
    folder.mkdir(parents=True, exist_ok=True)
    device, versions = environment.device_name(), environment.versions()
    head = {"command": command, "device": device, "versions": versions}
    rows = [asdict(outcome) for outcome in outcomes]
    manifest.write_json(folder / "results.json", head | {"outcomes": rows})
    machine = f"{device}; " + ", ".join(f"{name} {version}" for name, version in versions.items())
    text = f"`{command}`\n\n{machine}\n\n{markdown_section(_table(outcomes))}"
    (folder / "results.md").write_text(text, encoding="utf-8")
