"""What a study reports, in sentences and tables."""

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nin_jax.study.answers import MISSING, QUESTIONS, Answer, answered_by, answers
from nin_jax.study.comparison import compared, table_of
from nin_jax.study.grid import Row
from nin_jax.study.statistics import Group, difference, holm, standard_error
from nin_jax.tables import Cell, Quantity, Rounded, Table, rounded

NOTES = (
    "Accuracy is the mean over seeds at the end of training, collapsed runs included, with a 95 % "
    "confidence interval (Student's t). Differences are paired over the seeds that both networks "
    "have, and have such an interval too; if it contains 0, no difference was found (at most: the "
    "end that is farther from 0). The intervals cover other seeds with the same test images. They "
    "are not corrected for multiple comparisons. "
    "{corrected}"
    "If only some runs collapsed, the intervals are wide: see the counts. A run that diverged has "
    "no result and is in no mean.",
    "Collapsed: the test accuracy was never clearly better than by always predicting the most "
    "frequent class. With dead classes: the number "
    "of runs in which the maps of a class are zero for the whole test set or, without a ReLU on "
    "the logits, in which a class is never predicted. Epochs to 0.80: the mean over the runs that "
    "reached it. The time of a step was measured apart from the runs, for all networks in turns. "
    "FLOPs are those of products; memory is XLA's plan for the program that runs.",
)
Column = Callable[[Group], Cell | Quantity]


def _cost(field: str, unit: float = 1, digits: int | None = None) -> Column:
    def cell(group: Group) -> Cell | Quantity:
        value = group.network.get(field)
        return value if value is None or digits is None else rounded(value / unit, digits)

    return cell


def _images_per_second(group: Group) -> Rounded | None:
    batch, step = group.network.get("batch_size"), group.network.get("step_ms")
    return rounded(1e3 * batch / step, 1) if batch and step else None


def _epochs_to_80(group: Group) -> Rounded | None:
    reached = group.reached_80
    return rounded(sum(reached) / len(reached), 1) if reached else None


# The columns of study.csv; the page shows them in two tables.
ACCURACY: Mapping[str, Column] = {
    "accuracy": lambda group: group.accuracy,
    "runs": lambda group: len(group.rows),
    "collapsed": lambda group: group.collapsed,
    "with dead classes": lambda group: sum(map(bool, group.dead)),
    "reached 0.80": lambda group: len(group.reached_80),
    "epochs to 0.80": _epochs_to_80,
}
COSTS: Mapping[str, Column] = {
    "parameters": _cost("params"),
    "MACs per image": _cost("macs"),
    "FLOPs per training step": _cost("flops_per_training_step"),
    "ms per step": _cost("step_ms", digits=1),
    "images/s": _images_per_second,
    "training MiB": _cost("train_bytes", 2**20, 1),
    "prediction MiB": _cost("predict_bytes", 2**20, 1),
}


@dataclass(frozen=True)
class Picture:
    """A picture of the gallery: PNG bytes and a caption."""

    png: bytes
    caption: str


@dataclass(frozen=True)
class Study:
    """Everything that the page shows.

    Attributes:
        rows: of the results.
        groups: of the rows.
        class_names: of the dataset.
        commands: that made the study.
        gallery: pictures with class maps.
        diverged: names of runs that have no result, because their loss was not finite.
    """

    rows: Sequence[Row]
    groups: Sequence[Group]
    class_names: Sequence[str]
    commands: Sequence[Sequence[str]]
    gallery: Sequence[Picture] = ()
    diverged: Sequence[str] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What explains the tables of results."""
        return (NOTES[0].format(corrected=corrected(self)), *NOTES[1:])

    @property
    def unchanged(self) -> list[Group]:
        """The groups of recipes without a change."""
        return [group for group in self.groups if not group.change]

    @property
    def recipes(self) -> list[str]:
        """The recipes, in order of their first run."""
        return list(dict.fromkeys(group.recipe for group in self.unchanged))

    @property
    def answered_by(self) -> str:
        """The recipe whose runs the answers use."""
        return answered_by(self.groups)

    @property
    def command_lines(self) -> list[str]:
        """The commands as texts for a shell."""
        return [shlex.join(command) for command in self.commands]

    def of_recipe(self, recipe: str) -> list[Group]:
        """Return the groups of a recipe without a change."""
        return [group for group in self.unchanged if group.recipe == recipe]

    def measured(self, recipe: str) -> list[Group]:
        """Return the groups of a recipe whose costs are known."""
        costs = ("step_ms", "macs")
        return [g for g in self.of_recipe(recipe) if any(g.network.get(name) for name in costs)]

    def answers(self) -> Mapping[str, Answer]:
        """Return answers by question; empty if the study can answer none of them."""
        found = answers(self.groups)
        return {} if all(answer.finding == MISSING for answer in found.values()) else found

    def ablations(self) -> Mapping[str, list[Group]]:
        """Return the groups of each variant and recipe with changes, the unchanged one first."""
        found = {}
        for base in self.unchanged:
            same = [g for g in self.groups if (g.variant, g.recipe) == (base.variant, base.recipe)]
            if len(same) > 1:
                found[f"{base.variant}, recipe {base.recipe}"] = same
        return found

    def result_tables(self) -> list[Table]:
        """Return the tables of accuracies and costs; the latter only if any are known."""
        measured = [group for group in self.unchanged if group.network]
        tables = [group_table("Accuracy", self.unchanged, ACCURACY)]
        return [*tables, group_table("Cost", measured, COSTS)] if measured else tables

    def class_table(self) -> Table:
        """Return the test accuracy of each class."""
        rows = [[f"{group.variant}, {group.recipe}", *group.per_class] for group in self.unchanged]
        # A results file without study.json beside it has no class names.
        numbers = range(len(self.class_names), max((len(row) - 1 for row in rows), default=0))
        headings = ("network, recipe", *self.class_names, *map(str, numbers))
        padded = [[*row, *[None] * (len(headings) - len(row))] for row in rows]
        return table_of(headings, padded)

    def learning_rate_table(self) -> Table:
        """Count collapsed runs by learning rate, for recipes with no other change."""
        rows: dict[tuple[str, float], list[Row]] = {}
        for row in self.rows:
            if re.fullmatch(r"\s*(lr\s*=[^,]*)?", row["change"]):
                rows.setdefault((row["recipe"], row["settings"]["lr"]), []).append(row)
        headings = ("recipe", "networks", "learning rate", "runs", "collapsed")
        cells: list[list[Cell]] = []
        for (recipe, rate), found in sorted(rows.items()):
            names = ", ".join(dict.fromkeys(row["variant"] for row in found))
            collapsed = sum(row["collapsed"] for row in found)
            cells.append([recipe, names, f"{rate:g}", len(found), collapsed])
        return table_of(headings, cells, "Collapsed runs by learning rate")


def corrected(study: Study) -> str:
    """Say which differences of the answers remain if all their comparisons count together."""
    chosen = {group.variant: group for group in study.of_recipe(study.answered_by)}
    complete = [names for names, _ in QUESTIONS.values() if all(name in chosen for name in names)]
    p_values = {}
    for base, *others in complete:
        for name in others:
            found = difference(chosen[name].accuracies, chosen[base].accuracies)
            if found is not None and found.half is not None:
                p_values[f"{name} against {base}"] = found.p
    if len(p_values) < 2:
        return ""
    return (
        f"With Holm's correction for the {len(p_values)} comparisons of the answers with the "
        "unchanged recipe, these remain significant at 5 %: "
        f"{', '.join(holm(p_values)) or 'none'}. "
    )


def group_table(title: str, groups: Sequence[Group], columns: Mapping[str, Column]) -> Table:
    """Return a table with a row for each group."""
    rows = [[g.variant, g.label, *(cell(g) for cell in columns.values())] for g in groups]
    return table_of(("variant", "recipe", *columns), rows, title)


def ablation_table(groups: Sequence[Group]) -> Table:
    """Return each change's accuracy, and its difference from the unchanged recipe."""
    rows = [[g.change or "none", *compared(g, groups[0]), g.collapsed] for g in groups]
    return table_of(("change", "accuracy", "minus unchanged", "finding", "collapsed"), rows)


def what_was_run(study: Study) -> list[str]:
    """Describe each recipe's budget and settings, the machines, and how the runs are reduced."""
    lines = [f"{budget(study, recipe)} {_settings(study, recipe)}" for recipe in study.recipes]
    machines = [
        f"{row['device']}; " + ", ".join(f"{k} {v}" for k, v in row["versions"].items())
        for row in study.rows
    ]
    lines += dict.fromkeys(machines)
    if study.diverged:
        lines.append(f"Diverged, and without a result: {', '.join(study.diverged)}.")
    for recipe in study.recipes:
        if reduced := _reduced(study.of_recipe(recipe)[0].rows[0]):
            lines.append(f"The runs of recipe {recipe} are reduced: {'; '.join(reduced)}.")
    return lines


def budget(study: Study, recipe: str) -> str:
    """Describe a recipe's data, length and seeds, and the resolution of its accuracies."""
    rows = [row for row in study.rows if row["recipe"] == recipe and not row["change"]]
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
    """List a recipe's fields; a field that differs between variants has all its values."""
    values: dict[str, list[str]] = {}
    for row in study.rows:
        if row["recipe"] == recipe and not row["change"]:
            for name in row["settings"].keys() - {"image_size", "epochs"}:
                values.setdefault(name, []).append(str(row["settings"][name]))
    settings = (f"{name} {' or '.join(sorted(set(v)))}" for name, v in sorted(values.items()))
    return f"Settings: {', '.join(settings)}."


TRAIN_IMAGES = {"fashion_mnist": 60_000, "mnist": 60_000, "kmnist": 60_000}


def _reduced(row: Row) -> list[str]:
    """List how a run is smaller than the published one."""
    whole = TRAIN_IMAGES.get(row["dataset"])
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
