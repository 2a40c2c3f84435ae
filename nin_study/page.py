"""The study as one self-contained page, as Markdown and as CSV.

Everything that comes from a file is escaped; nothing is fetched.
"""

import base64
import csv
import html
import io
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from nin_study import figures
from nin_study.answers import Answer, answered_by, answers
from nin_study.grid import Row
from nin_study.summary import Group

HEADINGS = (
    *("variant", "recipe", "seeds", "collapsed", "test accuracy", "±", "epochs to 0.80"),
    *("images/s", "ms a step", "parameters", "MACs", "training MiB", "prediction MiB"),
)


UNKNOWN = "-"


@dataclass(frozen=True)
class Picture:
    """A picture of the gallery: PNG bytes, and what it shows."""

    png: bytes
    caption: str


@dataclass(frozen=True)
class Study:
    """All that the page tells."""

    rows: Sequence[Row]
    groups: Sequence[Group]
    class_names: Sequence[str]
    command: Sequence[str]
    gallery: Sequence[Picture] = ()

    @property
    def unchanged(self) -> list[Group]:
        return [group for group in self.groups if not group.change]

    @property
    def recipes(self) -> list[str]:
        return list(dict.fromkeys(group.recipe for group in self.unchanged))

    def answers(self) -> list[Answer]:
        return answers(self.groups)


Cells = list[str | float | int | None]


def _cells(group: Group) -> Cells:
    """A row of the table, raw: what is not known is None."""
    return [
        group.variant,
        group.label,
        group.seeds,
        group.collapsed,
        round(group.accuracy, 4),
        None if group.accuracy_std is None else round(group.accuracy_std, 4),
        None if group.epochs_to_80 is None else round(group.epochs_to_80, 1),
        None if group.images_per_second is None else round(group.images_per_second, 1),
        None if group.step_ms is None else round(group.step_ms, 1),
        group.params,
        group.macs,
        None if group.train_bytes is None else round(group.train_bytes / 2**20, 1),
        None if group.predict_bytes is None else round(group.predict_bytes / 2**20, 1),
    ]


def _text(cell: str | float | int | None) -> str:
    if cell is None:
        return UNKNOWN
    if isinstance(cell, str):
        return cell
    return f"{cell:,}" if isinstance(cell, int) else f"{cell:,.4f}".rstrip("0").rstrip(".")


def what_was_run(study: Study) -> list[str]:
    """Data, size, epochs and limits, device and versions; and where the run was reduced."""
    row = study.rows[0]
    height, width = row["image_size"]
    lines = [
        f"{row['dataset']} at {height}x{width}: {row['train_images']:,} training images, "
        f"{row['epochs']} epochs; {len(study.rows)} runs, evaluated on {row['test_images']:,} "
        f"{row['evaluated_on']}.",
        f"{row['device']}; " + ", ".join(f"{k} {v}" for k, v in row["versions"].items()),
    ]
    reduced = []
    if row["train_images"] < 60_000:
        reduced.append(f"{row['train_images']:,} of 60,000 training images")
    if row["epochs"] < 10:
        reduced.append(f"{row['epochs']} of 10 epochs")
    if (height, width) != (224, 224):
        reduced.append(f"images of {height}x{width} in place of 224x224")
    if reduced:
        lines.append(
            f"This study is reduced: {'; '.join(reduced)}. Accuracies are lower than a full run's, "
            "and a recipe that starts slowly may not have started at all; differences between "
            "variants are those of early training."
        )
    return lines


def as_csv(groups: Sequence[Group]) -> str:
    """The table, raw; an empty field where nothing is known."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADINGS)
    writer.writerows(_cells(group) for group in groups)
    return text.getvalue()


def as_markdown(study: Study) -> str:
    """The table, the answers and what was run."""
    rule = ["---" if i < 2 else "---:" for i in range(len(HEADINGS))]
    lines = [HEADINGS, rule, *([_text(c) for c in _cells(group)] for group in study.groups)]
    parts = ["# Six questions about Network in Network, answered by measurement"]
    parts += [f"`{shlex.join(study.command)}`", *what_was_run(study)]
    parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    parts.append(f"The answers are by the runs of recipe {answered_by(study.groups)}.")
    parts += [f"## {answer.question}\n\n{answer.text}" for answer in study.answers()]
    return "\n\n".join(parts) + "\n"


def as_html(study: Study) -> str:
    """The page."""
    escape = html.escape
    sections = [
        "<h1>Network in Network: six questions, answered by measurement</h1>",
        *(f"<p>{escape(line)}</p>" for line in what_was_run(study)),
        f"<p><code>{escape(shlex.join(study.command))}</code></p>",
        "<h2>Results</h2><p>Mean over seeds and their standard deviation; a click on a heading "
        "sorts.</p>",
        _table(study.groups),
        f"<h2>The six questions</h2><p>By the runs of recipe {escape(answered_by(study.groups))}."
        "</p>",
        *_questions(study.answers()),
        "<h2>Learning curves</h2><p>The mean over seeds; the band goes from the lowest to the "
        "highest.</p>",
        *_curves(study),
        "<h2>Accuracy and cost</h2>",
        *_costs(study),
        *_ablation(study),
        "<h2>Each class</h2>",
        _classes(study),
        *_gallery(study.gallery),
    ]
    return PAGE.replace("<!--body-->", "\n".join(sections))


def _table(groups: Sequence[Group]) -> str:
    head = "".join(f'<th scope="col"><button>{html.escape(h)}</button></th>' for h in HEADINGS)
    body = []
    for group in groups:
        cells = []
        for cell in _cells(group):
            value = "" if cell is None else html.escape(str(cell))
            cells.append(f'<td data-value="{value}">{html.escape(_text(cell))}</td>')
        body.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<div class="wide"><table class="sortable"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _questions(found: Sequence[Answer]) -> list[str]:
    return [f"<h3>{html.escape(a.question)}</h3><p>{html.escape(a.text)}</p>" for a in found]


def _figure(svg: str, words: str) -> str:
    data = base64.b64encode(svg.encode()).decode()
    return (
        f'<div class="wide"><img class="drawn" alt="{html.escape(words)}" '
        f'src="data:image/svg+xml;base64,{data}"></div>'
    )


def _curves(study: Study) -> list[str]:
    found = []
    for recipe in study.recipes:
        groups = [group for group in study.unchanged if group.recipe == recipe]
        words = f"test accuracy over epochs, recipe {recipe}"
        found.append(_figure(figures.learning_curves(groups, f"recipe {recipe}"), words))
    return found


def _costs(study: Study) -> list[str]:
    found = []
    for recipe in study.recipes:
        groups = [group for group in study.unchanged if group.recipe == recipe]
        if any(group.params for group in groups):
            words = f"test accuracy against parameters, MACs and memory, recipe {recipe}"
            found.append(f"<p>Recipe {html.escape(recipe)}</p>")
            found.append(_figure(figures.accuracy_against_costs(groups), words))
    return found


def _ablation(study: Study) -> list[str]:
    changed = [group for group in study.groups if group.change]
    if not changed:
        return []
    base = [g for g in study.unchanged if (g.variant, g.recipe) == (changed[0].variant, "modern")]
    words = "test accuracy of the modern recipe with one ingredient changed"
    return [
        f"<h2>What each ingredient of the modern recipe gives ({html.escape(changed[0].variant)})"
        "</h2>",
        _figure(figures.ablation([*base, *changed]), words),
    ]


def _classes(study: Study) -> str:
    names = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in study.class_names)
    rows = []
    for group in study.unchanged:
        cells = "".join(
            f"<td>{UNKNOWN if share is None else f'{share:.3f}'}</td>" for share in group.per_class
        )
        label = html.escape(f"{group.variant}, {group.label}")
        rows.append(f"<tr><td>{label}</td>{cells}</tr>")
    return (
        f'<div class="wide"><table><thead><tr><th scope="col"></th>{names}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _gallery(pictures: Sequence[Picture]) -> list[str]:
    if not pictures:
        return []
    found = [
        "<h2>Where a network sees each class</h2><p>The maps of the last block, whose means are "
        "the logits (figure 4 of the paper).</p>"
    ]
    for picture in pictures:
        data = base64.b64encode(picture.png).decode()
        words = html.escape(picture.caption)
        found.append(
            f'<figure class="wide"><img alt="{words}" src="data:image/png;base64,{data}">'
            f"<figcaption>{words}</figcaption></figure>"
        )
    return found


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Network in Network: six questions</title>
<style>
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #ffffff; --line: #d0d0d0; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --paper: #15181c; --line: #444a52; }
}
body { margin: 0 auto; max-width: 72rem; padding: 1rem; color: var(--ink);
  background: var(--paper); font: 16px/1.5 system-ui, sans-serif; }
h1 { line-height: 1.2; } h3 { margin-bottom: 0.2rem; } h3 + p { max-width: 50rem; }
code { overflow-wrap: anywhere; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: 0.85rem; }
th, td { padding: 0.25rem 0.6rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
th:first-child, td:first-child, .sortable td:nth-child(2), .sortable th:nth-child(2) {
  text-align: left; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid currentColor; }
th[aria-sort="ascending"] button::after { content: " \\2191"; }
th[aria-sort="descending"] button::after { content: " \\2193"; }
img { max-width: 100%; height: auto; }
.drawn { min-width: 40rem; }
figure { margin: 1rem 0; } figure img { background: #ffffff; min-width: 40rem; }
</style>
</head>
<body>
<!--body-->
<script>
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstChild.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    const key = row => row.cells[column].dataset.value;
    const order = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      const numbers = !isNaN(x) && !isNaN(y);
      return (numbers ? x - y : (x > y) - (x < y)) * (up ? 1 : -1);
    };
    for (const row of [...body.rows].sort(order)) body.append(row);
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
  }));
}
</script>
</body>
</html>
"""
