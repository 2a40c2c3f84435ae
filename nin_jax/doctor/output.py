"""The findings for people and programs: a table, JSON or Markdown."""

import json
from dataclasses import asdict
from typing import Literal

from nin_jax.doctor.check import Findings, count_warnings
from nin_jax.tables import Table, markdown_section

Format = Literal["table", "json", "markdown"]

HEADINGS = ("topic", "what", "found", "status", "what to do")


def report(findings: Findings, form: Format) -> None:
    """Prints the findings."""
    if form == "json":
        plain = {topic: [asdict(check) for check in checks] for topic, checks in findings.items()}
        print(json.dumps(plain, indent=1))
    elif form == "markdown":
        table = Table("Doctor", HEADINGS, _rows(findings), _conclusion(findings))
        print(markdown_section(table), end="")
    else:
        _print_table(findings)


def _print_table(findings: Findings) -> None:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable()
    for heading in HEADINGS:
        drawn.add_column(heading, overflow="fold")  # a path is worth nothing when cut short
    for row in _rows(findings):
        style = "yellow" if row[3] == "warning" else ""
        # As Text, because '.[cuda12]' is no markup.
        drawn.add_row(*(Text(cell, style) for cell in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200
    console.print(drawn)
    console.print(_conclusion(findings))


def _rows(findings: Findings) -> list[tuple[str, ...]]:
    """A row for each check; the topic stands in its first one alone."""
    return [
        ("" if i else topic, check.name, check.found, check.status, check.advice)
        for topic, checks in findings.items()
        for i, check in enumerate(checks)
    ]


def _conclusion(findings: Findings) -> str:
    warnings = count_warnings(findings)
    return f"{warnings or 'No'} warning{'' if warnings == 1 else 's'}."
