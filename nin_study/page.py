"""The study as one self-contained page, as Markdown and as CSV.

Everything that comes from a file is escaped; nothing is fetched.
"""

import base64
import csv
import html
import io
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nin_study import figures
from nin_study.answers import Answer, answered_by, answers
from nin_study.grid import Row
from nin_study.summary import Group

HEADINGS = (
    *("variant", "recipe", "test accuracy", "±", "seeds", "collapsed", "reached 0.80"),
    *("epochs to 0.80", "parameters", "MACs an image", "FLOPs a training step", "ms a step"),
    *("images/s", "training MiB", "prediction MiB"),
)
NOTES = (
    "Accuracy is the mean over seeds at the end of training, the collapsed runs included, and the "
    "sample standard deviation. Collapsed: never above 1.2 times chance. Epochs to 0.80: mean over "
    "the runs that reached it. A step's time is of all networks in turns, apart from the runs; "
    "FLOPs are of products, memory is XLA's plan for the program that runs."
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
    network = group.network
    batch, step = network.get("batch_size"), network.get("step_ms")
    mebibytes = [network.get(f"{task}_bytes") for task in ("train", "predict")]
    return [
        group.variant,
        group.label,
        round(group.accuracy, 4),
        None if group.accuracy_std is None else round(group.accuracy_std, 4),
        group.seeds,
        group.collapsed,
        group.reached_80,
        None if group.epochs_to_80 is None else round(group.epochs_to_80, 1),
        network.get("params"),
        network.get("macs"),
        network.get("flops_per_training_step"),
        None if step is None else round(step, 1),
        None if step is None or batch is None else round(1e3 * batch / step, 1),
        *(None if size is None else round(size / 2**20, 1) for size in mebibytes),
    ]


def _text(cell: str | float | int | None) -> str:
    if cell is None:
        return UNKNOWN
    if isinstance(cell, str):
        return cell
    return f"{cell:,}" if isinstance(cell, int) else f"{cell:,.4f}".rstrip("0").rstrip(".")


def what_was_run(study: Study) -> list[str]:
    """Data, size, epochs and limits, recipes, devices and versions; where the run was reduced."""
    row = study.rows[0]
    height, width = row["image_size"]
    lines = [
        f"{row['dataset']} at {height}x{width}: {row['train_images']:,} training images, "
        f"{row['epochs']} epochs; {len(study.rows)} runs, evaluated on {row['test_images']:,} "
        f"{row['evaluated_on']}.",
        *(f"Recipe {recipe}: {_settings(study, recipe)}." for recipe in study.recipes),
    ]
    for device, versions in _distinct(study.rows):
        lines.append(f"{device}; " + ", ".join(f"{k} {v}" for k, v in versions.items()))
    if reduced := _reduced(row):
        lines.append(
            f"This study is reduced: {'; '.join(reduced)}. Accuracies are lower than a full run's, "
            "and a recipe that starts slowly may not have started at all; differences between "
            "variants are those of early training."
        )
    return lines


def _settings(study: Study, recipe: str) -> str:
    """A recipe's fields; a field in which the variants differ with all its values."""
    rows = [row for row in study.rows if row["recipe"] == recipe and not row["change"]]
    values: dict[str, list[str]] = {}
    for row in rows:
        for name, value in row["settings"].items():
            if name not in ("image_size", "epochs"):
                values.setdefault(name, []).append(str(value))
    return ", ".join(f"{name} {' or '.join(sorted(set(v)))}" for name, v in values.items())


def _distinct(rows: Sequence[Row]) -> list[tuple[str, dict[str, str]]]:
    found: list[tuple[str, dict[str, str]]] = []
    for row in rows:
        if (row["device"], row["versions"]) not in found:
            found.append((row["device"], row["versions"]))
    return found


WHOLE = {"fashion_mnist": 60_000, "mnist": 60_000, "kmnist": 60_000}  # training images


def _reduced(row: Row) -> list[str]:
    whole = WHOLE.get(row["dataset"])
    reduced = []
    if whole is None:
        reduced.append(f"{row['dataset']} in place of fashion_mnist")
    elif row["train_images"] < whole:
        reduced.append(f"{row['train_images']:,} of {whole:,} training images")
    if whole is not None and row["evaluated_on"] == "test images" and row["test_images"] < 10_000:
        reduced.append(f"{row['test_images']:,} of 10,000 test images")
    if row["epochs"] < 10:
        reduced.append(f"{row['epochs']} of 10 epochs")
    if row["image_size"] != [224, 224]:
        height, width = row["image_size"]
        reduced.append(f"images of {height}x{width} in place of 224x224")
    return reduced


def as_csv(groups: Sequence[Group]) -> str:
    """The table, raw; an empty field where nothing is known."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADINGS)
    writer.writerows(_cells(group) for group in groups)
    return text.getvalue()


def as_markdown(study: Study) -> str:
    """The tables, the answers and what was run."""
    parts = ["# Six questions about Network in Network, answered by measurement"]
    parts += [f"`{shlex.join(study.command)}`", *what_was_run(study)]
    parts.append(_markdown(HEADINGS, [[_text(c) for c in _cells(g)] for g in study.groups], 2))
    parts.append(NOTES)
    parts.append(f"The answers are by the runs of recipe {answered_by(study.groups)}.")
    parts += [f"## {answer.question}\n\n{answer.text}" for answer in study.answers()]
    parts += ["## Each class", _markdown(("", *study.class_names), _class_rows(study), 1)]
    return "\n\n".join(parts) + "\n"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    rule = ["---" if i < left else "---:" for i in range(len(head))]
    lines = [head, rule, *rows]
    return "\n".join(f"| {' | '.join(c.replace('|', '/') for c in line)} |" for line in lines)


def as_html(study: Study) -> str:
    """The page."""
    escape = html.escape
    sections = [
        "<h1>Network in Network: six questions, answered by measurement</h1>",
        *(f"<p>{escape(line)}</p>" for line in what_was_run(study)),
        f"<p><code>{escape(shlex.join(study.command))}</code></p>",
        f"<h2>Results</h2><p>{escape(NOTES)} A click on a heading sorts.</p>",
        _table(study.groups),
        f"<h2>The six questions</h2><p>By the runs of recipe {escape(answered_by(study.groups))}."
        "</p>",
        *_questions(study.answers()),
        "<h2>Learning curves</h2><p>The mean over seeds, of test accuracy (solid, left scale) and "
        "of training loss (dashed, right scale); a band goes from the lowest to the highest.</p>",
        *_curves(study),
        "<h2>Accuracy and cost</h2>",
        *_costs(study),
        *_ablation(study),
        "<h2>Each class</h2>",
        _classes(study),
        *_gallery(study.gallery),
    ]
    template = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
    return template.replace("<!--body-->", "\n".join(sections))


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


def _figure(draw: Callable[[str], str], words: str) -> str:
    """A drawing in the ink of a light page, and of a dark one where the reader's is dark."""
    light, dark = (
        f"data:image/svg+xml;base64,{base64.b64encode(draw(ink).encode()).decode()}"
        for ink in (figures.LIGHT, figures.DARK)
    )
    return (
        f'<div class="wide"><picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img class="drawn" alt="{html.escape(words)}" src="{light}"></picture></div>'
    )


def _of(study: Study, recipe: str) -> list[Group]:
    return [group for group in study.unchanged if group.recipe == recipe]


def _curves(study: Study) -> list[str]:
    found = []
    for recipe in study.recipes:
        words = f"test accuracy and training loss over epochs, recipe {recipe}"
        found.append(f"<h3>Recipe {html.escape(recipe)}</h3>")
        found.append(_figure(partial(figures.learning_curves, _of(study, recipe)), words))
    return found


def _costs(study: Study) -> list[str]:
    found = []
    for recipe in study.recipes:
        groups = _of(study, recipe)
        if any(group.network for group in groups):
            words = f"test accuracy against parameters, MACs and memory, recipe {recipe}"
            found.append(f"<h3>Recipe {html.escape(recipe)}</h3>")
            found.append(_figure(partial(figures.accuracy_against_costs, groups), words))
    return found


def _ablation(study: Study) -> list[str]:
    """A figure for each variant and recipe that was run with changes."""
    found = []
    for base in study.unchanged:
        same = [g for g in study.groups if (g.variant, g.recipe) == (base.variant, base.recipe)]
        if len(same) > 1:
            what = f"{base.variant}, recipe {base.recipe}"
            found.append(f"<h3>{html.escape(what)}</h3>")
            words = f"test accuracy with one ingredient changed: {what}"
            found.append(_figure(partial(figures.ablation, same), words))
    title = "<h2>What each ingredient of a recipe gives</h2>"
    return [title, *found] if found else []


def _class_rows(study: Study) -> list[list[str]]:
    return [
        [
            f"{group.variant}, {group.label}",
            *(UNKNOWN if share is None else f"{share:.3f}" for share in group.per_class),
        ]
        for group in study.unchanged
    ]


def _classes(study: Study) -> str:
    names = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in study.class_names)
    rows = [
        f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>"
        for row in _class_rows(study)
    ]
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
