"""A table of raw values, and its cells as text."""

from collections.abc import Sequence
from dataclasses import dataclass

from nin_jax.study.statistics import Estimate

Cell = str | int | float | Estimate | None
UNKNOWN = "-"


@dataclass(frozen=True)
class Table:
    """Headings and rows; in a column either all cells are words or none is."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def as_text(cell: Cell) -> str:
    """Return a cell as people read it."""
    if cell is None:
        return UNKNOWN
    if isinstance(cell, str | Estimate):
        return str(cell)
    if isinstance(cell, int) or abs(cell) >= 100:
        return f"{cell:,.0f}"
    return f"{cell:.2f}" if abs(cell) >= 1 else f"{cell:.4g}"


def raw(cell: Cell) -> str | int | float:
    """Return a cell for sorting and for programs; empty where nothing is known."""
    if cell is None:
        return ""
    return round(cell.mean, 6) if isinstance(cell, Estimate) else cell


def markdown(table: Table) -> str:
    """Return the table in GitHub's Markdown, words to the left and numbers to the right."""
    first = table.rows[0] if table.rows else [""] * len(table.head)
    rule = ["---" if isinstance(cell, str) else "---:" for cell in first]
    lines = [table.head, rule, *([as_text(cell) for cell in row] for row in table.rows)]
    return "\n".join(f"| {' | '.join(c.replace('|', '/') for c in line)} |" for line in lines)
