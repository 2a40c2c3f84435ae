"""The grid of variants, recipes, changes and seeds, and the file of results."""

import json
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from pydantic import BaseModel, Field, model_validator

from nin_jax.errors import RunError, UserError, first_line, one_line, unknown_name
from nin_jax.models.geometry import check_image_size
from nin_jax.models.variants import get_variant
from nin_jax.reading import parse_json, read_text, shown
from nin_jax.training.config import TrainConfig, recipe_of
from nin_jax.training.recipes import RECIPES, Recipe
from nin_jax.validation import FAIL_FAST, Accuracy, Text, from_json

Row = dict[str, Any]
MAX_NAME = 255  # bytes of a folder's name, in the common file systems
RESULTS = "results.jsonl"

# The modern recipe with one ingredient replaced, removed or added.
ABLATION: Mapping[str, Mapping[str, Any]] = {
    "Xavier initialization": {"init": "xavier"},
    "He initialization": {"init": "he"},
    "SGD with Nesterov momentum": {
        "optimizer": "sgd",
        "lr": 0.03,
        "momentum": 0.9,
        "weight_decay": 5e-4,
    },
    "Adam": {"optimizer": "adam", "lr": 1e-3},
    "constant rate, no warm-up": {"schedule": "constant", "warmup": 0.0},
    "ReLU on the logits": {"logit_relu": True},
    "no clipping": {"clip_norm": 0.0},
    "flips and shifts": {"augment": "flip_shift"},
}


@dataclass(frozen=True)
class Setting:
    """The data and budget of all runs of a recipe, which are also options of the study."""

    dataset: str | None = None
    """A name as for scripts/train.py. Default: fashion_mnist."""

    data_dir: Path | None = None
    """Folder with the dataset's files. Default: $NIN_DATA_DIR, or the user's data folder."""

    image_size: int = 224
    """Side of the resized images, in pixels."""

    epochs: int = 10
    """Passes over the training images."""

    limit_train: int | None = None
    """Use only the first N training images. Default: all."""

    limit_test: int | None = None
    """Use only the first N test images. Default: all."""

    holdout: int | None = None
    """Evaluate on that many held-out training images and not on the test images: to choose between
    --changes without using the test set."""


@dataclass(frozen=True)
class Cell:
    """One run: a variant, a recipe with or without a change, and a seed."""

    variant: str
    recipe: str
    seed: int
    change: str = ""

    @property
    def name(self) -> str:
        """The name of the run's folder, also used in the results."""
        change = "-" + re.sub(r"[^a-z0-9.]+", "_", self.change.lower()) if self.change else ""
        return f"{Path(self.variant).stem}-{self.recipe}{change}-seed{self.seed}"

    def config(self, setting: Setting, folder: Path, resume: bool) -> TrainConfig:
        """Return the run's configuration for `nin_jax.runs.fit.fit`."""
        return TrainConfig(
            variant=self.variant,
            recipe=self.recipe,
            seed=self.seed,
            workdir=folder / self.name,
            resume=resume,
            exact_resume=False,  # a study may continue on another machine
            **asdict(setting),
            **changes_of(self.change),
        )


def changes_of(change: str) -> Mapping[str, Any]:
    """Return the fields of a change: a name in `ABLATION`, or text such as ``lr=0.06, init=he``.

    Raises:
        UserError: it is neither, a field is given twice, or it cannot have its value.
    """
    if change in ABLATION:
        return ABLATION[change]
    changes: dict[str, Any] = {}
    shared = {field.name for field in fields(Setting)}
    types = {name: t for name, t in get_type_hints(Recipe).items() if name not in shared}
    for part in filter(None, (part.strip() for part in change.split(","))):
        name, sign, text = (each.strip() for each in part.partition("="))
        if not sign:
            raise UserError(f"--changes: {part!r} is not of the form field=value, as lr=0.06")
        if name not in types:
            raise unknown_name("field of a recipe", name, types)
        if name in changes:
            raise UserError(f"--changes: {change!r} gives {name} twice")
        if get_origin(types[name]) is Literal:
            if text not in get_args(types[name]):
                raise UserError(
                    f"--changes: {name} must be one of {', '.join(get_args(types[name]))}"
                )
            changes[name] = text
            continue
        try:
            changes[name] = json.loads(text)
            if changes[name] is None:
                raise ValueError
        except ValueError:
            raise UserError(f"--changes: {part!r} needs a number, true or false") from None
    return changes


def cells(
    variants: Sequence[str],
    recipes: Sequence[str],
    seeds: int,
    ablation: str | None,
    changes: Sequence[str] = (),
) -> list[Cell]:
    """Return the cells, seed by seed, so that an interrupted study has runs of every network.

    Args:
        variants: names or files.
        recipes: names.
        seeds: how many, from 0.
        ablation: the variant that runs the modern recipe with each change of `ABLATION`, or None.
        changes: each is applied to every recipe and variant.
    """
    found = []
    for seed in range(seeds):
        found += [
            Cell(variant, recipe, seed, change)
            for change in ("", *changes)
            for recipe in recipes
            for variant in variants
        ]
        if ablation is not None:
            found += [Cell(ablation, "modern", seed, change) for change in ABLATION]
    return list(dict.fromkeys(found))


def check(grid: Iterable[Cell], setting: Setting) -> None:
    """Check every run.

    Raises:
        UserError: one cannot be run, or two would have the same folder.
    """
    cells: dict[str, Cell] = {}
    for cell in grid:
        if len(os.fsencode(cell.name)) > MAX_NAME:
            raise UserError(
                f"a run's folder would be {shown(cell.name)}, which is too long for a name: give "
                "a shorter name or shorter --changes"
            )
        if (other := cells.setdefault(cell.name, cell)) != cell:
            raise UserError(
                f"--changes: {shown(other.change)} and {shown(cell.change)} would have the same "
                f"folder, {cell.name}: write one of them in another way"
            )
        recipe = recipe_of(cell.config(setting, Path(), resume=False))
        check_image_size(get_variant(cell.variant), recipe.image_size)


_Number = Annotated[float, Field(gt=-1e30, lt=1e30)]
_Whole = Annotated[int, Field(ge=0, lt=2**63)]
_Side = Annotated[str, Field(pattern="^[1-9][0-9]{0,4}$")]


class _Settings(BaseModel, strict=True):
    lr: _Number


class _Result(BaseModel, strict=True, allow_inf_nan=False):
    """What is read from a row of the results."""

    cell: Text
    variant: Text
    recipe: Text
    change: Text
    seed: _Whole
    dataset: Text
    image_size: tuple[_Whole, _Whole]
    train_images: _Whole
    test_images: _Whole
    evaluated_on: Text
    epochs: _Whole
    settings: _Settings
    setting: dict[str, Any]
    test_accuracy: Accuracy
    test_accuracy_per_class: Annotated[list[Accuracy | None], Field(min_length=1), FAIL_FAST]
    train_loss: Annotated[list[_Number | None], Field(min_length=1), FAIL_FAST]
    test_loss: Annotated[list[_Number | None], Field(min_length=1), FAIL_FAST]
    test_accuracy_by_epoch: Annotated[list[Accuracy], Field(min_length=1), FAIL_FAST]
    test_accuracy_by_size: Annotated[dict[_Side, Accuracy], Field(min_length=1)]
    test_images_by_size: _Whole
    dead_classes: Annotated[list[_Whole], FAIL_FAST]
    epochs_to_80: _Whole | None
    collapsed: bool
    images_per_second: _Number | None
    device: Text
    versions: dict[str, Text]

    @model_validator(mode="after")
    def _fields_agree(self) -> "_Result":
        if self.recipe not in RECIPES:
            raise UserError(f"there is no recipe {shown(self.recipe)}")
        if self.cell != Cell(self.variant, self.recipe, self.seed, self.change).name:
            raise UserError(f"the cell cannot be {shown(self.cell)}")
        curves = (self.train_loss, self.test_loss, self.test_accuracy_by_epoch)
        if any(len(curve) != self.epochs for curve in curves):
            raise UserError("a curve is not as long as the run")
        if any(number >= len(self.test_accuracy_per_class) for number in self.dead_classes):
            raise UserError("a dead class is none of the classes")
        return self


_BUDGET = ("dataset", "image_size", "train_images", "test_images", "evaluated_on", "epochs")


def read_results(path: Path) -> list[Row]:
    """Return the rows of a results file, the last one of each cell; skip an incomplete last line.

    Warns:
        UserWarning: the last line is incomplete; its run will be repeated.

    Raises:
        UserError: another line is not a row, a value is invalid, the rows of a recipe have
            different budgets, or a cell's name, which names a folder, does not match its variant,
            recipe, change and seed.
    """
    if not os.path.exists(path):  # Path's own raises where a name is too long
        return []
    *lines, incomplete = read_text(path, errors="replace").split("\n")
    if incomplete:
        warnings.warn(
            f"{path}: the last line is incomplete; its run will be repeated", stacklevel=2
        )
    rows: dict[str, Row] = {}
    budgets: dict[str, Any] = {}
    for number, line in enumerate(lines, start=1):
        try:
            row = parse_json(line)
            from_json(_Result, row)
        except ValueError as problem:  # not JSON, or not a result
            raise UserError(
                f"{path} is damaged: line {number} is not a result: {first_line(problem)}"
            ) from None
        budget = [*(row[name] for name in _BUDGET), len(row["test_accuracy_per_class"])]
        if budgets.setdefault(row["recipe"], budget) != budget:
            raise UserError(
                f"{path} is damaged: line {number} differs from others of recipe {row['recipe']} "
                f"in {', '.join(_BUDGET)} or classes"
            )
        rows[row["cell"]] = row
    return list(rows.values())


def append_result(path: Path, row: Row) -> None:
    """Append a row and sync it to the disk. An incomplete last line is removed first.

    Raises:
        RunError: the file cannot be written.
    """
    with one_line(f"cannot write {path}", raised=RunError), open(path, "a+b") as file:
        file.seek(0)
        text = file.read()
        whole = text.rfind(b"\n") + 1
        if whole < len(text):
            file.truncate(whole)
        file.write(json.dumps(row).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
