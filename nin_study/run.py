"""One cell of the grid run, and what came out of it."""

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from nin_jax import metrics, record, workdir
from nin_jax.accounting import account
from nin_jax.loop import fit
from nin_jax.variants import get_variant
from nin_study.grid import Cell, Row, Setting

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
    resume = (own / workdir.CONFIG).exists() and any((own / workdir.CHECKPOINTS).glob("[0-9]*"))
    if not resume and own.exists():  # it was stopped before its first checkpoint
        shutil.rmtree(own)
    started = time.perf_counter()
    if not (own / workdir.SUMMARY).exists():
        fit(cell.config(setting, folder, resume))
    return result(cell, own) | {"seconds": round(time.perf_counter() - started, 1)}


def result(cell: Cell, folder: Path) -> Row:
    """What a finished run's files say, as a row of the results."""
    summary = record.read_json(folder / workdir.SUMMARY)
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
        "batch_size": recipe.batch_size,
        "lr": recipe.lr,
        "test_accuracy": summary["test_accuracy"],
        "test_accuracy_per_class": summary["test_accuracy_per_class"],
        "train_loss": [row["train_loss"] for row in epochs],
        "test_loss": [row["test_loss"] for row in epochs],
        "test_accuracy_by_epoch": accuracies,
        "epochs_to_80": next((i for i, a in enumerate(accuracies, 1) if a >= LEARNT), None),
        "collapsed": max(accuracies) < CHANCE * chance,
        "images_per_second": float(np.median(speeds)) if speeds else None,
        "step_ms": 1e3 * recipe.batch_size / float(np.median(speeds)) if speeds else None,
        "device": summary["device"],
        "versions": record.versions(),
    }


def cost(variant: str, row: Row) -> dict[str, Any]:
    """What the network of a row costs: on paper, and XLA's plan for memory."""
    counted = account(
        get_variant(variant),
        image_size=tuple(row["image_size"]),
        num_classes=len(row["test_accuracy_per_class"]),
        batch_size=row["batch_size"],
        recipe=row["recipe"],
        train=True,
    )
    plans = {task: memory.as_run for task, memory in counted.memory.items()}
    return {
        "params": counted.params,
        "macs": counted.macs,
        "flops_per_training_step": counted.flops_per_training_step,
        "train_bytes": plans["train"].total_bytes if plans["train"] else None,
        "predict_bytes": plans["predict"].total_bytes if plans["predict"] else None,
    }
