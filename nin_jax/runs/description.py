"""A run in words, numbers and a picture: its first lines, its summary, its curves."""

from pathlib import Path
from typing import Any

from nin_jax.models import processor
from nin_jax.models.preprocessing import Preprocessing
from nin_jax.models.summary import describe
from nin_jax.runs import workdir
from nin_jax.runs.environment import device_name
from nin_jax.runs.preparation import Run
from nin_jax.runs.progress import Progress, Recorder
from nin_jax.runs.writers import read_metrics
from nin_jax.training.device import default_device


def headline(run: Run, folder: Path, progress: Progress) -> str:
    """Return the lines that a run prints before it trains."""
    config, dataset = run.config, run.dataset
    notes = "".join(f"\n{note}" for note in dataset.notes)
    if run.model.preprocessing != Preprocessing():
        notes += f"\npreprocessing: {run.model.preprocessing}"
    converts = default_device().platform == "cpu" and not processor.multiplies_bfloat16()
    if config.precision == "bfloat16" and converts:
        notes += "\nbfloat16: this processor computes convolutions in float32; float32 is faster"
    notes += "\nonly the head is trained" if config.freeze else ""
    if progress.step:
        notes += f"\nresumed after step {progress.step}"
    elif config.init_from is not None:
        notes += f"\nweights from {config.init_from}"
        notes += f"; drawn at random: {', '.join(run.new_layers)}" if run.new_layers else ""
    return (
        f"{describe(run.model.variant, **run.geometry)}\n"
        f"{dataset.name} ({dataset.source}): {len(dataset.train):,} training and "
        f"{len(dataset.test):,} {config.scored} images; recipe {config.recipe}, batch size "
        f"{run.recipe.batch_size} in micro-batches of {run.micro_batch_size}, "
        f"{len(run.learning_rates):,} steps; {device_name(run.layout.devices)}; into {folder}"
        f"{notes}"
    )


def early_end(run: Run, progress: Progress) -> str | None:
    """Return the line about a run that ends before its last epoch; None for any other run."""
    patience, best, epochs = run.config.patience, progress.best, run.recipe.epochs
    if best is None or progress.epochs >= epochs or not progress.out_of_patience(patience):
        return None
    return (
        f"ended after epoch {progress.epochs} of {epochs}: the accuracy on the held-out images has "
        f"not risen since epoch {best['epoch']} (--patience {patience})"
    )


def summary(run: Run, recorder: Recorder) -> dict[str, Any]:
    """Return what ``summary.json`` holds."""
    layers, progress = run.model.layers, recorder.progress
    kept = ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "images_per_second")
    return {
        "variant": run.model.variant.name,
        "recipe": run.config.recipe,
        "dataset": run.dataset.name,
        "image_size": list(run.model.image_size),
        "train_images": len(run.dataset.train),
        "test_images": len(run.dataset.test),
        "evaluated_on": "test images" if run.config.holdout is None else "held-out training images",
        "params": sum(layer.params for layer in layers),
        "macs_per_image": sum(layer.macs for layer in layers),
        "epochs": progress.epochs,
        "ended_by_patience": early_end(run, progress) is not None,
        "steps": progress.step,
        **{key: progress.last_epoch[key] for key in kept},
        "best_epoch": progress.best,
        "skipped_steps": progress.skipped,
        "test_accuracy_per_class": progress.accuracy_per_class,
        "at_chance_after_first_epoch": progress.at_chance,
        "dead_classes": [run.dataset.class_names[c] for c in progress.dead_classes],
        "time_to_first_step_seconds": recorder.time_to_first_step,
        "device": device_name(run.layout.devices),
    }


def title(run: Run) -> str:
    """Return the title of the run's figures."""
    height, width = run.model.image_size
    return (
        f"{run.model.variant.name} on {run.dataset.name}, {len(run.dataset.train):,} images "
        f"at {height}x{width}, recipe {run.config.recipe}"
    )


def draw_curves(run: Run, folder: Path) -> None:
    """Draw ``curves.png`` from the rows of ``metrics.jsonl``."""
    from nin_jax.plotting import plot_curves  # matplotlib is slow to import

    rows = read_metrics(folder / workdir.METRICS)
    plot_curves(rows, title(run), run.config.scored, folder / workdir.CURVES)
