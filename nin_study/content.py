"""What a study tells, in words and rows: for the page, as Markdown and as CSV."""

import csv
import io
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from nin_study.answers import MISSING, Answer, answered_by, answers
from nin_study.grid import Row
from nin_study.summary import Group

HEADINGS = (
    *("variant", "recipe", "accuracy", "±", "seeds", "collapsed", "reached 0.80"),
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

    def of_recipe(self, recipe: str) -> list[Group]:
        """The groups of a recipe as it is."""
        return [group for group in self.unchanged if group.recipe == recipe]

    def answers(self) -> list[Answer]:
        """To all questions; none if the study ran nothing that any of them needs."""
        found = answers(self.groups)
        return [] if all(answer.text == MISSING for answer in found) else found


Cells = list[str | float | int | None]


def cells(group: Group) -> Cells:
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


def as_text(cell: str | float | int | None) -> str:
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
    writer.writerows(cells(group) for group in groups)
    return text.getvalue()


def as_markdown(study: Study) -> str:
    """The tables, the answers and what was run."""
    parts = ["# Six questions about Network in Network, answered by measurement"]
    parts += [f"`{shlex.join(study.command)}`", *what_was_run(study)]
    parts.append(_markdown(HEADINGS, [[as_text(c) for c in cells(g)] for g in study.groups], 2))
    parts.append(NOTES)
    if found := study.answers():
        parts.append(f"The answers are by the runs of recipe {answered_by(study.groups)}.")
        parts += [f"## {answer.question}\n\n{answer.text}" for answer in found]
    parts += ["## Each class", _markdown(("", *study.class_names), class_rows(study), 1)]
    return "\n\n".join(parts) + "\n"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    rule = ["---" if i < left else "---:" for i in range(len(head))]
    lines = [head, rule, *rows]
    return "\n".join(f"| {' | '.join(c.replace('|', '/') for c in line)} |" for line in lines)


def class_rows(study: Study) -> list[list[str]]:
    return [
        [
            f"{group.variant}, {group.label}",
            *(UNKNOWN if share is None else f"{share:.3f}" for share in group.per_class),
        ]
        for group in study.unchanged
    ]
