"""Several runs side by side: a table of what they reached, and accuracy over training time."""

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from pydantic import BaseModel, Field

from nin_jax.errors import UserError, one_line
from nin_jax.models.geometry import as_height_width, trace
from nin_jax.models.variants import Variant
from nin_jax.runs import manifest, workdir
from nin_jax.runs.writers import read_metrics
from nin_jax.tables import Rounded, Table, as_csv, markdown_section, plain_text, text_of
from nin_jax.training.config import TrainConfig
from nin_jax.training.recipes import Recipe
from nin_jax.validation import Accuracy, Count, from_json


@dataclass(frozen=True)
class CompareConfig:
    """Compare runs of scripts/train.py: what they trained, what they reached, and in which time."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Folders of runs."""

    every_epoch: bool = False
    """Print a row for every epoch. Default: one for the last epoch of each run."""

    format: Literal["table", "markdown", "csv"] = "table"
    """How to print the table."""

    out: Path | None = None
    """Draw the accuracy over the training time into this file: .png, .pdf or .svg."""


class Epoch(BaseModel, strict=True, allow_inf_nan=False):
    """The row of an epoch in metrics.jsonl; None where a run has no number."""

    step: Count
    epoch: Count
    train_accuracy: Accuracy | None
    test_loss: float | None
    test_accuracy: Accuracy
    images_per_second: Annotated[float, Field(gt=0)] | None


@dataclass(frozen=True)
class History:
    """One run and its epochs.

    Attributes:
        name: of its folder.
        settings: its network, dataset, image size, costs, recipe, batch size and seed, by heading.
        options: the recipe's other options, the dropout, the number of training images, and other
            options that change what is learned.
        holdout: whether the accuracies are those of held-out training images.
        epochs: the "epoch" rows of metrics.jsonl.
        minutes: of training steps until the end of each epoch, computed from the images per second;
            compiling, evaluation and saving do not count. None if no epoch has a speed.
    """

    name: str
    settings: dict[str, Any]
    options: dict[str, str]
    holdout: bool
    epochs: list[Epoch]
    minutes: list[float | None]


def read_history(folder: Path) -> History:
    """Read a run's configuration and metrics.

    Raises:
        UserError: the folder is not a run, it is damaged, or no epoch is complete.
    """
    saved = manifest.read_run(folder)
    config, recipe, variant = saved.config, saved.recipe, saved.variant
    layers = trace(variant, **saved.sizes)
    path = folder / workdir.METRICS
    rows = [row for row in read_metrics(path) if row["kind"] == "epoch"]
    if not rows:
        raise UserError(f"{folder} has no complete epoch yet")
    try:
        epochs = [from_json(Epoch, row) for row in rows]
    except UserError as error:
        raise UserError(f"{path}, the row of an epoch: {error}") from None
    settings = {
        "variant": variant.name,
        "dataset": saved.dataset,
        "image size": "x".join(map(str, as_height_width(recipe.image_size))),
        "parameters": sum(layer.params for layer in layers),
        "million MACs": Rounded(sum(layer.macs for layer in layers) / 1e6, 1),
        "recipe": config.recipe,
        "batch size": recipe.batch_size,
        "seed": config.seed,
    }
    return History(
        folder.resolve().name,
        settings,
        _options(config, recipe, variant),
        config.holdout is not None,
        epochs,
        _minutes(epochs, saved.train_images),
    )


def _minutes(epochs: Sequence[Epoch], train_images: int) -> list[float | None]:
    """Return the minutes until the end of each epoch.

    An epoch has no speed if its only dispatch includes compilation; the first known one is taken.
    """
    speeds = [row.images_per_second for row in epochs]
    known = next(filter(None, speeds), None)
    if known is None:
        return [None] * len(epochs)
    numbers = pairwise([0, *(row.epoch for row in epochs)])
    images = [(after - before) * train_images for before, after in numbers]
    seconds = (count / (speed or known) for count, speed in zip(images, speeds, strict=True))
    return [total / 60 for total in accumulate(seconds)]


def _options(config: TrainConfig, recipe: Recipe, variant: Variant) -> dict[str, str]:
    options = {
        name.replace("_", " "): str(value)
        for name, value in asdict(recipe).items()
        if name not in ("image_size", "batch_size")  # these have columns of their own
    }
    images = "all" if config.limit_train is None else f"{config.limit_train:,}"
    rate = variant.dropout if recipe.dropout is None else recipe.dropout
    more = {name: str(getattr(config, name)) for name in ("precision", "init_from", "freeze")}
    more = {name.replace("_", " "): value for name, value in more.items()}
    return {**options, "dropout": str(rate), "training images": images, **more}


def table(runs: Sequence[History], every_epoch: bool = False) -> Table:
    """Return one row for the last epoch of each run, or for every epoch.

    A note below names what is the same in all rows, instead of a column. The options of the recipes
    are columns where they differ.
    """
    columns: dict[str, list[Any]] = {}
    for run in runs:
        chosen = list(zip(run.epochs, run.minutes, strict=True))[0 if every_epoch else -1 :]
        for row, minutes in chosen:
            for heading, cell in _cells(run, row, minutes).items():
                columns.setdefault(heading, []).append(cell)
    count = len(columns["run"])
    same = {
        heading: cells[0]
        for heading, cells in columns.items()
        if count > 1 and len(set(cells)) == 1 and heading in runs[0].settings
    }
    alike = {name for name in runs[0].options if len({run.options[name] for run in runs}) == 1}
    kept = {name: cells for name, cells in columns.items() if name not in alike | set(same)}
    shared = ", ".join(f"{heading} {text_of(cell)}" for heading, cell in same.items())
    notes = [f"All: {shared}."] if same else []
    notes.append("Minutes: training steps only, on the machine of the run.")
    if any(run.holdout for run in runs):
        names = ", ".join(run.name for run in runs if run.holdout)
        notes.append(f"Evaluated on held-out training images: {names}.")
    return Table("", list(kept), list(zip(*kept.values(), strict=True)), " ".join(notes))


def _cells(run: History, row: Epoch, minutes: float | None) -> dict[str, Any]:
    return {
        "run": run.name,
        **run.settings,
        **run.options,
        "epoch": row.epoch,
        "training accuracy": _shown(row.train_accuracy, 4),
        "test loss": _shown(row.test_loss, 4),
        "test accuracy": _shown(row.test_accuracy, 4),
        "minutes": _shown(minutes, 1),
    }


def _shown(value: float | None, digits: int) -> Rounded | None:
    return None if value is None else Rounded(value, digits)


def compare(config: CompareConfig) -> None:
    """Print the table, and draw the figure if a file is given.

    Raises:
        UserError: no run is given, a folder is not a run, or the file cannot be written.
    """
    if not config.runs:
        raise UserError("give one or more folders of runs")
    if config.out is not None and config.out.suffix not in (".png", ".pdf", ".svg"):
        raise UserError(f"--out must end in .png, .pdf or .svg, got {config.out}")
    if config.out is not None:
        workdir.check_file(config.out, replace=True)
    runs = [read_history(folder) for folder in config.runs]
    if len({run.name for run in runs}) < len(runs):  # as of a/run and b/run
        pairs = zip(runs, config.runs, strict=True)
        runs = [replace(run, name=str(folder)) for run, folder in pairs]
    found = table(runs, config.every_epoch)
    if config.format == "table":  # whole lines: a terminal's table would cut the numbers
        print(plain_text(found.headings, found.texts, found.align), found.note, sep="\n\n")
    else:
        print({"markdown": markdown_section, "csv": as_csv}[config.format](found), end="")
    if config.out is None:
        return
    from nin_jax.plotting import plot_progress  # matplotlib is slow to import

    lines = [
        (
            f"{run.settings['variant']}, {run.settings['image size']}, {run.name}",
            [math.nan if minutes is None else minutes for minutes in run.minutes],
            [row.test_accuracy for row in run.epochs],
        )
        for run in runs
    ]
    with one_line(f"cannot write {config.out}"):
        plot_progress(lines, config.out)
    print(f"wrote {config.out}", file=sys.stderr)
