"""Run one cell of the grid and summarize it as a row of the results."""

import time
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np

from nin_jax.data.datasets import Dataset, Split
from nin_jax.errors import UserError
from nin_jax.inference.predictor import Predictor
from nin_jax.models.geometry import smallest_image
from nin_jax.models.nin import NiN
from nin_jax.models.variants import get_variant
from nin_jax.runs import environment, manifest, workdir, writers
from nin_jax.runs.examples import load_data
from nin_jax.runs.fit import fit
from nin_jax.runs.trained import load_run
from nin_jax.study.grid import Cell, Row, Setting
from nin_jax.training.config import TrainConfig, recipe_of
from nin_jax.training.evaluate import is_at_chance
from nin_jax.training.recipes import Recipe
from nin_jax.validation import to_json

# What a row takes from the run's summary.json.
KEPT = ("dataset", "image_size", "train_images", "test_images", "evaluated_on", "epochs")
KEPT += ("test_accuracy", "test_accuracy_per_class", "device")

LEARNED = 0.8  # the test accuracy of epochs_to_80
SIZES = (0.75, 1.25, 1.5)  # further sides of test images, relative to the training size
IMAGES_BY_SIZE = 2000  # test images for those, at most: large images take long


def data_of(cell: Cell, setting: Setting) -> Dataset:
    """Return the data of a cell, in memory; with ``holdout``, each seed holds out other images.

    Raises:
        UserError: as for `load_data`.
    """
    return load_data(replace(cell.config(setting, Path(), resume=False), feed="resident"))


def run_cell(cell: Cell, setting: Setting, folder: Path) -> Row:
    """Train the cell, or resume it if it was interrupted, and return its row of the results.

    Args:
        cell: the run.
        setting: its data and budget.
        folder: where the run's folder is or will be.

    Raises:
        UserError: as for `fit`, or the run's folder holds a run with other options or of another
            version of nin_jax.
    """
    own = folder / cell.name
    started = time.perf_counter()
    begun = (own / workdir.CONFIG).exists()
    config = cell.config(setting, folder, resume=begun)
    if begun:
        _check_same_run(own, config)
    if not (own / workdir.SUMMARY).exists():
        fit(config)
    test = data_of(cell, setting).test
    row = result(cell, own, test.labels) | examine(load_run(own), test)
    return row | {"seconds": round(time.perf_counter() - started, 1)}


def _check_same_run(folder: Path, config: TrainConfig) -> None:
    """Check that a run, finished or not, is the one that the study would make.

    `fit` would continue it with another number of epochs, and does not see a finished run.
    """
    check_network(config.variant, folder)
    saved, recipe = manifest.read_run(folder), recipe_of(config)
    of_data = ("dataset", "limit_train", "limit_test", "holdout")
    of_recipe = [field.name for field in fields(Recipe)]
    other = [name for name in of_data if getattr(saved.config, name) != getattr(config, name)]
    other += [name for name in of_recipe if getattr(saved.recipe, name) != getattr(recipe, name)]
    if other:
        raise UserError(
            f"{folder} is a run with other options ({', '.join(other)}): give another --out"
        )


def check_network(variant: str, folder: Path) -> None:
    """Check that a variant, which may be a file that has changed, is the network of a run.

    A run that no longer exists is not compared.

    Raises:
        UserError: the variant is another network, or its file is gone.
    """
    now = get_variant(variant)
    if (folder / workdir.CONFIG).exists() and manifest.read_run(folder).variant != now:
        raise UserError(f"{variant} is not the network of {folder}: give another --out")


def examine(model: NiN, test: Split) -> Row:
    """Find the dead classes of a trained network and its accuracy at other image sizes.

    A class is dead if its maps are zero for every image. Without a ReLU on the logits, or with a
    linear layer, this cannot be seen from the maps: there a class is dead if it is never predicted.

    Returns:
        ``dead_classes``: indices. ``test_accuracy_by_size``: accuracy by side in pixels (as text)
        for the sizes that the network takes. ``test_images_by_size``: the number of images of
        each size, the first of the test set.
    """
    logits = Predictor(model)(test.images)  # [N, classes]
    predicted = logits.argmax(1)
    if model.head.last_relu and model.linear is None:
        alive = (logits > 0).any(0)
    else:
        alive = np.isin(np.arange(model.num_classes), predicted)
    images, labels = test.images[:IMAGES_BY_SIZE], test.labels[:IMAGES_BY_SIZE]
    side = model.image_size[0]
    found = {side: predicted[: len(labels)]}
    if model.linear is None:
        for other in (round(share * side) for share in SIZES):
            if other >= smallest_image(model.variant):
                model.image_size = other, other
                found[other] = Predictor(model)(images).argmax(1)
        model.image_size = side, side
    accuracies = {str(size): float((found[size] == labels).mean()) for size in sorted(found)}
    return {
        "dead_classes": np.flatnonzero(~alive).tolist(),
        "test_accuracy_by_size": accuracies,
        "test_images_by_size": len(labels),
    }


def result(cell: Cell, folder: Path, labels: np.ndarray) -> Row:
    """Return the row of the results for a finished run, from its files.

    Args:
        cell: the run.
        folder: its folder.
        labels: int32 [N] of the images that it was evaluated on.

    Raises:
        UserError: the run is of another version of nin_jax.
    """
    summary = manifest.read_json(folder / workdir.SUMMARY)
    if missing := set(KEPT) - summary.keys():
        raise UserError(
            f"{folder} is of another version of nin_jax: no {', '.join(sorted(missing))}"
        )
    rows = writers.read_metrics(folder / workdir.METRICS)
    epochs = [row for row in rows if row["kind"] == "epoch"]
    share = np.bincount(labels).max() / len(labels)
    accuracies = [row["test_accuracy"] for row in epochs]
    speeds = [row["images_per_second"] for row in epochs if row["images_per_second"]]
    return {
        "cell": cell.name,
        **asdict(cell),  # variant, recipe, seed and change
        **{name: summary[name] for name in KEPT},
        "settings": to_json(manifest.read_run(folder).recipe),
        "train_loss": [row["train_loss"] for row in epochs],
        "test_loss": [row["test_loss"] for row in epochs],
        "test_accuracy_by_epoch": accuracies,
        "epochs_to_80": next((i for i, a in enumerate(accuracies, 1) if a >= LEARNED), None),
        "collapsed": bool(is_at_chance(max(accuracies), share)),
        "images_per_second": float(np.median(speeds)) if speeds else None,
        "versions": environment.versions(),
    }
