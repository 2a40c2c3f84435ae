"""A table of raw values, and the same as text, Markdown or CSV, or on a screen."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Cell = int | float | str | None
UNKNOWN = "not available"


@dataclass(frozen=True)
class Bytes:
    """A cell that people read in MiB, and programs in bytes."""

    bytes: int | None


@dataclass(frozen=True)
class Table:
    """A title, headings and rows of raw values, and what is to be said below."""

    title: str
    headings: tuple[str, ...]
    rows: Sequence[Sequence[Cell | Bytes]]
    note: str = ""


def text_of(cell: Cell | Bytes) -> str:
    """A cell for people: digits in groups, bytes in MiB, what is not known said so."""
    if isinstance(cell, Bytes):
        return UNKNOWN if cell.bytes is None else f"{cell.bytes / 2**20:,.1f}"
    if cell is None:
        return UNKNOWN
    if isinstance(cell, float) and not cell.is_integer():
        return f"{cell:,.2f}" if abs(cell) >= 0.01 else f"{cell:.3g}"
    if isinstance(cell, int | float):
        return f"{int(cell):,}"
    return cell


def raw(cell: Cell | Bytes) -> Cell:
    """A cell for programs; bytes in bytes, what is not known said so."""
    value = cell.bytes if isinstance(cell, Bytes) else cell
    return UNKNOWN if value is None else value


def markdown(table: Table, *, heading: bool = True) -> str:
    """The table in GitHub's Markdown."""
    columns = range(len(table.headings))
    rule = ["---:" if _is_number(table, i) else "---" for i in columns]
    lines = [table.headings, rule, *([text_of(cell) for cell in row] for row in table.rows)]
    parts = [f"### {table.title}"] if heading else []
    parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    parts += [table.note] if table.note else []
    return "\n\n".join(parts) + "\n"


def as_csv(table: Table) -> str:
    """The table with raw values; bytes in bytes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heading.replace("MiB", "bytes") for heading in table.headings)
    writer.writerows([raw(cell) for cell in row] for row in table.rows)
    return text.getvalue()


def flat_csv(data: Mapping[str, Any]) -> str:
    """Nested plain data as lines of key and value, keys joined by dots."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("key", "value"))
    writer.writerows(_flatten(data, ""))
    return text.getvalue()


def _flatten(data: Any, prefix: str) -> list[tuple[str, Cell]]:
    if isinstance(data, Mapping):
        items = [(str(key), value) for key, value in data.items()]
    elif isinstance(data, list | tuple):
        items = [(str(i), value) for i, value in enumerate(data)]
    else:
        return [(prefix, UNKNOWN if data is None else data)]
    return [
        line
        for key, value in items
        for line in _flatten(value, f"{prefix}.{key}" if prefix else key)
    ]


def _is_number(table: Table, column: int) -> bool:
    return any(isinstance(row[column], int | float | Bytes) for row in table.rows)


def print_table(table: Table, console: Any) -> None:
    """The table on a `rich.console.Console`."""
    from rich.markup import escape
    from rich.table import Table as RichTable

    drawn = RichTable(title=escape(table.title), title_justify="left", caption=table.note or None)
    drawn.caption_justify = "left"
    for i, heading in enumerate(table.headings):
        drawn.add_column(heading, justify="right" if _is_number(table, i) else "left")
    for row in table.rows:
        drawn.add_row(*(escape(text_of(cell)) for cell in row))
    console.print(drawn)
    console.print()
