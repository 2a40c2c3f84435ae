"""One cell of the grid run, and what came out of it."""

import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from nin_jax import metrics, record, workdir
from nin_jax.errors import UserError
from nin_jax.loop import fit
from nin_study.grid import Cell, Row, Setting

_KEPT = {
    *("dataset", "image_size", "train_images", "test_images", "evaluated_on", "epochs"),
    *("test_accuracy", "test_accuracy_per_class", "device"),
}

LEARNT = 0.8  # the test accuracy whose epoch is noted
CHANCE = 1.2  # a run whose test accuracy stays below this times chance has collapsed


def run_cell(cell: Cell, setting: Setting, folder: Path) -> Row:
    """Trains the cell, or goes on with it where it was interrupted, and sums it up.

    Args:
        cell: which run.
        setting: what all runs have in common.
        folder: for the run's own folder.

    Raises:
        UserError: as `fit`.
    """
    own = folder / cell.name
    started = time.perf_counter()
    if not (own / workdir.SUMMARY).exists():
        fit(cell.config(setting, folder, resume=(own / workdir.CONFIG).exists()))
    return result(cell, own) | {"seconds": round(time.perf_counter() - started, 1)}


def result(cell: Cell, folder: Path) -> Row:
    """What a finished run's files say, as a row of the results."""
    summary = record.read_json(folder / workdir.SUMMARY)
    if missing := _KEPT - summary.keys():
        raise UserError(
            f"{folder} is of another version of nin_jax: no {', '.join(sorted(missing))}"
        )
    recipe = record.read_recipe(folder)
    rows = metrics.read_metrics(folder / workdir.METRICS)
    epochs = [row for row in rows if row["kind"] == "epoch"]
    chance = 1 / len(summary["test_accuracy_per_class"])
    accuracies = [row["test_accuracy"] for row in epochs]
    speeds = [row["images_per_second"] for row in epochs if row["images_per_second"]]
    return {
        "cell": cell.name,
        "variant": cell.variant,
        "recipe": cell.recipe,
        "change": cell.change,
        "seed": cell.seed,
        "dataset": summary["dataset"],
        "image_size": summary["image_size"],
        "train_images": summary["train_images"],
        "test_images": summary["test_images"],
        "evaluated_on": summary["evaluated_on"],
        "epochs": summary["epochs"],
        "settings": asdict(recipe),
        "test_accuracy": summary["test_accuracy"],
        "test_accuracy_per_class": summary["test_accuracy_per_class"],
        "train_loss": [row["train_loss"] for row in epochs],
        "test_loss": [row["test_loss"] for row in epochs],
        "test_accuracy_by_epoch": accuracies,
        "epochs_to_80": next((i for i, a in enumerate(accuracies, 1) if a >= LEARNT), None),
        "collapsed": max(accuracies) < CHANCE * chance,
        "images_per_second": float(np.median(speeds)) if speeds else None,
        "device": summary["device"],
        "versions": record.versions(),
    }
