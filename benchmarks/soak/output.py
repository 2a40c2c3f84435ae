"""What the trials came to, as a table and as files."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from benchmarks.soak.trials import Outcome
from nin_jax.runs import manifest


def table(outcomes: Sequence[Outcome]) -> Table:
    """For the screen."""
    found = Table("trial", "tried", "lost", "details", title="soak", title_justify="left")
    for outcome in outcomes:
        found.add_row(outcome.trial, f"{outcome.tried:,}", str(outcome.lost), _details(outcome))
    return found


def write(outcomes: Sequence[Outcome], command: str, folder: Path) -> None:
    """``results.json`` and ``results.md``, with the command, the device and the versions."""
    folder.mkdir(parents=True, exist_ok=True)
    head = {"command": command, "device": manifest.device_name(), "versions": manifest.versions()}
    rows = [asdict(outcome) for outcome in outcomes]
    manifest.write_json(folder / "results.json", head | {"outcomes": rows})
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions().items())
    lines = ["# Soak", "", f"`{command}`", "", f"{head['device']}; {versions}", ""]
    lines += ["| trial | tried | lost | details |", "|---|---:|---:|---|"]
    lines += [f"| {o.trial} | {o.tried:,} | {o.lost} | {_details(o)} |" for o in outcomes]
    (folder / "results.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _details(outcome: Outcome) -> str:
    shown = {name: value for name, value in outcome.details.items() if value not in ([], {})}
    return "; ".join(f"{name.replace('_', ' ')} {_text(value)}" for name, value in shown.items())


def _text(value: object) -> str:
    return json.dumps(value).strip("{}[]").replace('"', "")
