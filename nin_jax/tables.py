"""Tables of raw values, printed as text, Markdown or CSV, or on a terminal."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from tabulate import tabulate

Align = Literal["left", "right"]
Cell = int | float | str | None
UNKNOWN = "not available"


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]], align: Sequence[Align]) -> str:
    """Return a table in GitHub's Markdown, without a newline at its end.

    Args:
        headings: one for each column.
        rows: cells as text. Vertical bars are escaped, and line breaks become spaces.
        align: one for each column.

    >>> print(markdown(("name", "count"), [("a|b", "1,234"), ("c", "5")], ("left", "right")))
    | name   |   count |
    |:-------|--------:|
    | a\\|b   |   1,234 |
    | c      |       5 |
    """
    lines = [[_escape(cell) for cell in row] for row in (headings, *rows)]
    return _tabulate(lines[0], lines[1:], align, "pipe")


def _escape(cell: str) -> str:
    """Escape what would end a cell of a Markdown table."""
    return " ".join(cell.replace("|", r"\|").splitlines())


def plain_text(
    headings: Sequence[str], rows: Iterable[Sequence[str]], align: Sequence[Align]
) -> str:
    """Return a table in aligned columns, a line of dashes below the headings.

    Args:
        headings, rows, align: as for `markdown`.
    """
    text = _tabulate(headings, rows, align, "simple")
    return "\n".join(line.rstrip() for line in text.splitlines())


def _tabulate(
    headings: Sequence[str], rows: Iterable[Sequence[str]], align: Sequence[Align], style: str
) -> str:
    # Numbers are formatted already: tabulate must not parse "1,234" or "1e5" again.
    return tabulate(rows, headings, tablefmt=style, colalign=align, disable_numparse=True)


@runtime_checkable
class Quantity(Protocol):
    """A cell that formats itself for people (`str`) and has a raw value for programs."""

    @property
    def raw(self) -> Cell: ...


@dataclass(frozen=True)
class Bytes:
    """A size that is printed in MiB for people and in bytes for programs."""

    bytes: int | None

    def __str__(self) -> str:
        return UNKNOWN if self.bytes is None else f"{self.bytes / 2**20:,.1f}"

    @property
    def raw(self) -> Cell:
        """The number of bytes."""
        return self.bytes


@dataclass(frozen=True)
class Rounded:
    """A number that is rounded to ``digits`` decimal places, for people only."""

    raw: float
    digits: int

    def __str__(self) -> str:
        return f"{self.raw:,.{self.digits}f}"


def rounded(value: float, digits: int) -> Rounded:
    """Return a cell that is rounded to ``digits`` decimal places for programs too."""
    return Rounded(round(value, digits), digits)


@dataclass(frozen=True)
class Table:
    """A title, headings, rows of raw values, and a note that is printed below them.

    Attributes:
        title: empty for a table without one.
        headings: one for each column.
        rows: cells.
        note: empty for none.
        unknown: the text of a cell without a value.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell | Quantity]]
    note: str = ""
    unknown: str = UNKNOWN

    @property
    def texts(self) -> list[list[str]]:
        """The rows, formatted for people."""
        return [[text_of(cell, self.unknown) for cell in row] for row in self.rows]

    @property
    def align(self) -> list[Align]:
        """Columns with a number in them to the right, the others to the left."""
        columns = range(len(self.headings))
        return ["right" if self._has_number(i) else "left" for i in columns]

    def _has_number(self, column: int) -> bool:
        return any(isinstance(row[column], int | float | Quantity) for row in self.rows)


def text_of(cell: Cell | Quantity, unknown: str = UNKNOWN) -> str:
    """Format a cell for people: digits in groups, bytes in MiB, ``unknown`` for None."""
    if cell is None:
        return unknown
    if isinstance(cell, Quantity):
        return str(cell)
    if isinstance(cell, float) and not cell.is_integer():
        return f"{cell:,.2f}" if abs(cell) >= 0.01 else f"{cell:.3g}"
    if isinstance(cell, int | float):
        return f"{int(cell):,}"
    return cell


def raw(cell: Cell | Quantity, unknown: str = UNKNOWN) -> int | float | str:
    """Return a cell for programs: bytes in bytes, ``unknown`` for None."""
    value = cell.raw if isinstance(cell, Quantity) else cell
    return unknown if value is None else value


def markdown_section(table: Table) -> str:
    """Return title, table and note in GitHub's Markdown, with a newline at the end."""
    title = table.title and f"### {table.title}"
    parts = [title, markdown(table.headings, table.texts, table.align), table.note]
    return "\n\n".join(filter(None, parts)) + "\n"


def as_csv(table: Table) -> str:
    """Return the table with raw values, sizes in bytes."""
    headings = [heading.replace("MiB", "bytes") for heading in table.headings]
    return csv_text([headings, *([raw(cell) for cell in row] for row in table.rows)])


def flat_csv(data: Mapping[str, Any]) -> str:
    """Return nested plain data as lines of key and value, the keys joined by dots."""
    return csv_text([("key", "value"), *_flatten(data, "")])


def csv_text(rows: Iterable[Sequence[Cell]]) -> str:
    """Return rows of raw values as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _flatten(data: Any, prefix: str) -> list[tuple[str, Cell]]:
    if isinstance(data, Mapping):
        items = data.items()
    elif isinstance(data, list | tuple):
        items = enumerate(data)
    else:
        return [(prefix, UNKNOWN if data is None else data)]
    return [
        line
        for key, value in items
        for line in _flatten(value, f"{prefix}.{key}" if prefix else str(key))
    ]


def print_table(table: Table, console: Any) -> None:
    """Draw the table on a `rich.console.Console`."""
    from rich.markup import escape
    from rich.table import Table as RichTable

    drawn = RichTable(title=escape(table.title), title_justify="left", caption=table.note or None)
    drawn.caption_justify = "left"
    for heading, align in zip(table.headings, table.align, strict=True):
        drawn.add_column(heading, justify=align)
    for row in table.texts:
        drawn.add_row(*map(escape, row))
    console.print(drawn)
    console.print()
