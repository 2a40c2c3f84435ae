"""The study as a self-contained HTML page, as Markdown and as CSV.

The page fetches nothing, and everything that comes from a file is escaped.
"""

import base64
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from nin_jax.study import figures
from nin_jax.study.content import (
    ACCURACY,
    COSTS,
    Study,
    ablation_table,
    budget,
    group_table,
    what_was_run,
)
from nin_jax.study.statistics import Group
from nin_jax.tables import Table, csv_text, markdown_section, raw

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def as_html(study: Study) -> str:
    """Return the page as HTML, with figures and pictures inside it."""
    return _TEMPLATES.get_template("page.html").render(
        study=study,
        budget=budget,
        what_was_run=what_was_run(study),
        ablation_table=ablation_table,
        figures=figures,
        cells=_cells,
        base64=lambda data: base64.b64encode(data).decode(),
    )


def _cells(table: Table) -> list[list[tuple[str, str, str]]]:
    """Return alignment, value for sorting (empty if not known) and text of each cell."""
    values = ([str(raw(cell, unknown="")) for cell in row] for row in table.rows)
    return [
        list(zip(table.align, row, texts, strict=True))
        for row, texts in zip(values, table.texts, strict=True)
    ]


def as_markdown(study: Study) -> str:
    """Return the page in Markdown, without its figures."""
    parts = ["# Six questions about Network in Network, answered by measurement"]
    if found := study.answers():
        parts.append(f"The answers use these runs. {budget(study, study.answered_by)}")
    for question, answer in found.items():
        parts += [f"## {question}", f"**{answer.finding}**", answer.text]
        parts += [markdown_section(table) for table in answer.tables]
    parts += ["## Results", *study.notes]
    parts += [markdown_section(table) for table in study.result_tables()]
    parts.append(markdown_section(study.learning_rate_table()))
    for title, groups in study.ablations().items():
        parts += [f"## One ingredient changed: {title}", markdown_section(ablation_table(groups))]
    parts += [
        "## Test accuracy of each class",
        markdown_section(study.class_table()),
        "## What was run",
    ]
    parts += [*what_was_run(study), *(f"`{line}`" for line in study.command_lines)]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def as_csv(groups: Sequence[Group]) -> str:
    """Return all columns with raw values; a field is empty if its value is not known."""
    columns = {"accuracy": ACCURACY["accuracy"], "± 95 %": _half, **ACCURACY, **COSTS}
    table = group_table("", groups, columns)
    return csv_text(
        [table.headings, *([raw(cell, unknown="") for cell in row] for row in table.rows)]
    )


def _half(group: Group) -> float | None:
    """Return half of the width of the accuracy's interval."""
    half = group.accuracy.half
    return None if half is None else round(half, 6)
