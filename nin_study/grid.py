"""What is run: a grid of variants, recipes and seeds, and the file of what came out."""

import json
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from nin_jax.config import Recipe, TrainConfig, recipe_of
from nin_jax.errors import UserError, unknown_name

Row = dict[str, Any]
RESULTS = "results.jsonl"

# The modern recipe with one ingredient put back to what the published recipe has, or added.
ABLATION: Mapping[str, Mapping[str, Any]] = {
    "Xavier initialisation": {"init": "xavier"},
    "constant rate, no warm-up": {"schedule": "constant", "warmup_steps": 0},
    "no momentum": {"momentum": 0.0, "nesterov": False},
    "ReLU on the logits": {"logit_relu": True},
    "no clipping": {"clip_norm": 0.0},
    "flips and shifts": {"augment": "flip_shift"},
}


@dataclass(frozen=True)
class Setting:
    """What every run of a study has in common."""

    dataset: str | None = None
    data_dir: Path | None = None
    image_size: int = 224
    epochs: int = 10
    limit_train: int | None = None
    limit_test: int | None = None
    holdout: int | None = None


@dataclass(frozen=True)
class Cell:
    """One run: a variant, a recipe, perhaps with a change, and a seed."""

    variant: str
    recipe: str
    seed: int
    change: str = ""

    @property
    def name(self) -> str:
        """Of its folder, and in the results."""
        change = "-" + re.sub(r"[^a-z0-9.]+", "_", self.change.lower()) if self.change else ""
        return f"{Path(self.variant).stem}-{self.recipe}{change}-seed{self.seed}"

    def config(self, setting: Setting, folder: Path, resume: bool) -> TrainConfig:
        """The run's configuration, for `nin_jax.loop.fit`."""
        return TrainConfig(
            variant=self.variant,
            recipe=self.recipe,
            seed=self.seed,
            workdir=folder / self.name,
            resume=resume,
            **asdict(setting),
            **changes_of(self.change),
        )


def changes_of(change: str) -> Mapping[str, Any]:
    """What a change changes: by its name in `ABLATION`, or written as ``lr=0.06, init=he``.

    Raises:
        UserError: it is neither, or a value is not one of the field's.
    """
    if change in ABLATION:
        return ABLATION[change]
    changes: dict[str, Any] = {}
    types = get_type_hints(Recipe)
    for part in filter(None, (part.strip() for part in change.split(","))):
        name, sign, text = part.partition("=")
        if not sign:
            raise UserError(f"--changes: {part!r} is not of the form field=value, as lr=0.06")
        if name not in types:
            raise unknown_name("field of a recipe", name, types)
        if get_origin(types[name]) is Literal:
            if text not in get_args(types[name]):
                raise UserError(f"--changes: {name} must be one of {', '.join(get_args(types[name]))}")
            changes[name] = text
            continue
        try:
            changes[name] = json.loads(text)
        except ValueError:
            raise UserError(f"--changes: {part!r} holds no number, true or false") from None
    return changes


def cells(
    variants: Sequence[str],
    recipes: Sequence[str],
    seeds: int,
    ablation: str | None,
    changes: Sequence[str] = (),
) -> list[Cell]:
    """The grid, seed by seed, so that an interrupted study has something of everything.

    Args:
        variants: names or files.
        recipes: names.
        seeds: how many, from 0.
        ablation: the variant for which the modern recipe is taken apart, or None.
        changes: each is tried on every recipe and variant.
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
    """Raises a UserError if any of the runs cannot be."""
    from nin_jax.geometry import check_image_size
    from nin_jax.variants import get_variant

    for cell in grid:
        recipe = recipe_of(cell.config(setting, Path(), resume=False))
        check_image_size(get_variant(cell.variant), recipe.image_size)


def read_results(path: Path) -> list[Row]:
    """The rows of a results file, the last of each cell; a torn last line is left out.

    Warns:
        UserWarning: the last line is torn; its cell will be run again.

    Raises:
        UserError: another line is no row.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    rows: dict[str, Row] = {}
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            rows[row["cell"]] = row
        except (ValueError, TypeError, KeyError):
            if number == len(lines):
                warnings.warn(f"{path}: the last line is torn; its run is made again", stacklevel=2)
                continue
            raise UserError(f"{path} is damaged: line {number} is no result") from None
    return list(rows.values())


def append_result(path: Path, row: Row) -> None:
    """Adds a row; it is on the disk when this returns. A torn line before it is cut off."""
    with open(path, "a+b") as file:
        file.seek(0)
        text = file.read()
        whole = text.rfind(b"\n") + 1
        if whole < len(text):
            file.truncate(whole)
        file.write(json.dumps(row).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
