"""What a study tells, in words and tables: for the page, as Markdown and as CSV."""

import csv
import io
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nin_jax.study.answers import MISSING, Answer, answered_by, answers
from nin_jax.study.grid import Row
from nin_jax.study.statistics import difference, standard_error
from nin_jax.study.summary import Group
from nin_jax.study.tables import Cell, Table, markdown, raw

NOTES = (
    "Accuracy is the mean over seeds at the end of training, the collapsed runs included, with its "
    "95 % confidence interval over seeds (Student's t). Differences are over the seeds that "
    "both have, paired, and have such an interval too; one that holds 0 is no difference found. "
    "The intervals are about other seeds and the same test images, and are not widened for the "
    "number of comparisons. Where some runs collapsed and others did not, they are wide, and the "
    "counts say more.",
    "Collapsed: never above 1.2 times chance. Dead classes: in how many runs a class has maps of "
    "zero for the whole test set or, without a ReLU on the logits, is never predicted. Epochs to "
    "0.80: mean over the runs that reached it. A step's time is of all networks in turns, apart "
    "from the runs; FLOPs are of products, memory is XLA's plan for the program that runs.",
)


def _network(field: str, unit: float = 1, digits: int | None = None) -> Callable[[Group], Cell]:
    def cell(group: Group) -> Cell:
        value = group.network.get(field)
        return value if value is None or digits is None else round(value / unit, digits)

    return cell


def _images_a_second(group: Group) -> Cell:
    batch, step = group.network.get("batch_size"), group.network.get("step_ms")
    return round(1e3 * batch / step, 1) if batch and step else None


def _epochs_to_80(group: Group) -> Cell:
    reached = group.reached_80
    return round(sum(reached) / len(reached), 1) if reached else None


# The columns of study.csv; two tables of the page have some of them each.
ACCURACY: dict[str, Callable[[Group], Cell]] = {
    "accuracy": lambda group: group.accuracy,
    "runs": lambda group: len(group.rows),
    "collapsed": lambda group: group.collapsed,
    "with dead classes": lambda group: sum(map(bool, group.dead)),
    "reached 0.80": lambda group: len(group.reached_80),
    "epochs to 0.80": _epochs_to_80,
}
COSTS: dict[str, Callable[[Group], Cell]] = {
    "parameters": _network("params"),
    "MACs an image": _network("macs"),
    "FLOPs a training step": _network("flops_per_training_step"),
    "ms a step": _network("step_ms", digits=1),
    "images/s": _images_a_second,
    "training MiB": _network("train_bytes", 2**20, 1),
    "prediction MiB": _network("predict_bytes", 2**20, 1),
}


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
    commands: Sequence[Sequence[str]]
    gallery: Sequence[Picture] = ()

    notes = NOTES

    @property
    def unchanged(self) -> list[Group]:
        return [group for group in self.groups if not group.change]

    @property
    def recipes(self) -> list[str]:
        return list(dict.fromkeys(group.recipe for group in self.unchanged))

    @property
    def answered_by(self) -> str:
        return answered_by(self.groups)

    @property
    def command_lines(self) -> list[str]:
        return [shlex.join(command) for command in self.commands]

    def of_recipe(self, recipe: str) -> list[Group]:
        """Return the groups of a recipe as it is."""
        return [group for group in self.unchanged if group.recipe == recipe]

    def measured(self, recipe: str) -> list[Group]:
        """Return those of them whose costs are known."""
        costs = ("step_ms", "macs")
        return [g for g in self.of_recipe(recipe) if any(g.network.get(name) for name in costs)]

    def answers(self) -> Mapping[str, Answer]:
        """Return answers by question; none if the study ran nothing that any of them needs."""
        found = answers(self.groups)
        return {} if all(answer.finding == MISSING for answer in found.values()) else found

    def ablations(self) -> Mapping[str, list[Group]]:
        """Return by title each variant and recipe that was run with changes, and the changes."""
        found = {}
        for base in self.unchanged:
            same = [g for g in self.groups if (g.variant, g.recipe) == (base.variant, base.recipe)]
            if len(same) > 1:
                found[f"{base.variant}, recipe {base.recipe}"] = same
        return found

    def accuracy_table(self) -> Table:
        return _columns(self.unchanged, ACCURACY)

    def cost_table(self) -> Table:
        return _columns([group for group in self.unchanged if group.network], COSTS)

    def class_table(self) -> Table:
        rows = [[f"{group.variant}, {group.recipe}", *group.per_class] for group in self.unchanged]
        return Table(("network, recipe", *self.class_names), rows)

    def rate_table(self) -> Table:
        """Count collapsed runs by learning rate, where recipes are changed in no more than that."""
        rows: dict[tuple[str, float], list[Row]] = {}
        for row in self.rows:
            if re.fullmatch("(lr=[^,]*)?", row["change"]):
                rows.setdefault((row["recipe"], row["settings"]["lr"]), []).append(row)
        head = ("recipe", "networks", "learning rate", "runs", "collapsed")
        cells: list[list[Cell]] = []
        for (recipe, rate), found in sorted(rows.items()):
            names = ", ".join(dict.fromkeys(row["variant"] for row in found))
            collapsed = sum(row["collapsed"] for row in found)
            cells.append([recipe, names, rate, len(found), collapsed])
        return Table(head, cells)


def ablation_table(groups: Sequence[Group]) -> Table:
    """Return each change's accuracy, and its difference from the recipe as it is."""
    base, *changed = groups
    rows: list[list[Cell]] = [["as it is", base.accuracy, None, "", base.collapsed]]
    for group in changed:
        found = difference(group.accuracies, base.accuracies)
        verdict = "" if found is None else found.verdict
        rows.append([group.change, group.accuracy, found, verdict, group.collapsed])
    return Table(("change", "accuracy", "minus as it is", "finding", "collapsed"), rows)


def _columns(groups: Sequence[Group], columns: Mapping[str, Callable[[Group], Cell]]) -> Table:
    rows = [[g.variant, g.label, *(cell(g) for cell in columns.values())] for g in groups]
    return Table(("variant", "recipe", *columns), rows)


def what_was_run(study: Study) -> list[str]:
    """Say budget and settings of each recipe, devices, versions, and how runs were reduced."""
    lines = [f"{budget(study, recipe)} {_settings(study, recipe)}" for recipe in study.recipes]
    machines = [
        f"{row['device']}; " + ", ".join(f"{k} {v}" for k, v in row["versions"].items())
        for row in study.rows
    ]
    lines += dict.fromkeys(machines)
    for recipe in study.recipes:
        if reduced := _reduced(study.of_recipe(recipe)[0].rows[0]):
            lines.append(f"The runs of recipe {recipe} are reduced: {'; '.join(reduced)}.")
    return lines


def budget(study: Study, recipe: str) -> str:
    """Say a recipe's data, length and seeds, and how finely its test images tell accuracies."""
    rows = [row for row in study.rows if row["recipe"] == recipe]
    first, (height, width) = rows[0], rows[0]["image_size"]
    seeds = sorted({row["seed"] for row in rows})
    accuracy = max(row["test_accuracy"] for row in rows)
    error = standard_error(accuracy, first["test_images"]) if first["test_images"] else 0.0
    return (
        f"Recipe {recipe}: {first['dataset']} at {height}x{width}, {first['train_images']:,} "
        f"training images, {_counted(first['epochs'], 'epoch')}; {_counted(len(rows), 'run')}, "
        f"{_counted(len(seeds), 'seed')} ({', '.join(map(str, seeds))}); evaluated on "
        f"{first['test_images']:,} {first['evaluated_on']}, where the best accuracy, {accuracy:.4f}"
        f", has a binomial standard error of {error:.4f}."
    )


def _counted(count: int, name: str) -> str:
    return f"{count:,} {name}{'' if count == 1 else 's'}"


def _settings(study: Study, recipe: str) -> str:
    """Say a recipe's fields; one in which the variants differ with all its values."""
    values: dict[str, list[str]] = {}
    for row in study.rows:
        if row["recipe"] == recipe and not row["change"]:
            for name in row["settings"].keys() - {"image_size", "epochs"}:
                values.setdefault(name, []).append(str(row["settings"][name]))
    settings = (f"{name} {' or '.join(sorted(set(v)))}" for name, v in sorted(values.items()))
    return f"Settings: {', '.join(settings)}."


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
    """Return all columns, raw; an empty field where nothing is known."""
    table = _columns(groups, ACCURACY | COSTS)
    place = table.head.index("accuracy") + 1
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*table.head[:place], "± 95 %", *table.head[place:]])
    for group, row in zip(groups, table.rows, strict=True):
        cells = [raw(cell) for cell in row]
        half = group.accuracy.half
        writer.writerow([*cells[:place], "" if half is None else round(half, 6), *cells[place:]])
    return text.getvalue()


def as_markdown(study: Study) -> str:
    """Return the page without its figures."""
    parts = ["# Six questions about Network in Network, answered by measurement"]
    if found := study.answers():
        parts.append(f"The answers are by these runs. {budget(study, study.answered_by)}")
    for question, answer in found.items():
        parts += [f"## {question}", f"**{answer.finding}**", *filter(None, [answer.text])]
        parts += [markdown(table) for table in answer.tables]
    parts += ["## Results", *study.notes, markdown(study.accuracy_table())]
    parts += [markdown(study.cost_table()), markdown(study.rate_table())]
    for title, groups in study.ablations().items():
        parts += [f"## One ingredient changed: {title}", markdown(ablation_table(groups))]
    parts += ["## Each class", markdown(study.class_table()), "## What was run"]
    parts += [*what_was_run(study), *(f"`{line}`" for line in study.command_lines)]
    return "\n\n".join(parts) + "\n"
