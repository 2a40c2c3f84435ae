"""A finished run scored again from its files: the table of each class, confusion.png."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from flax import nnx
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nin_jax import record
from nin_jax.datasets import Dataset
from nin_jax.device import devices_for, select_device
from nin_jax.evaluation import Score, evaluate
from nin_jax.preparation import evaluation_images, load_data, micro_batch_size
from nin_jax.sharding import EVERYWHERE, make_layout
from nin_jax.step import make_eval_step
from nin_jax.workdir import CONFUSION


def score_run(
    folder: Path,
    weights: Path | None = None,
    data_dir: Path | None = None,
    device: Literal["auto", "cpu", "gpu"] = "auto",
) -> Score:
    """Reloads a run's weights, scores them on its test images, prints and draws the result.

    On one device, in the batches that training would have there: a run on one device had the very
    same, so the accuracy is its summary's to the last digit.

    Args:
        folder: the run's workdir.
        weights: another ``.safetensors`` file.
        data_dir: folder of the data set's files, if they are elsewhere now.
        device: where to run.

    Raises:
        UserError: no run there, weights that do not fit, or other data than it was trained on.
    """
    select_device(device)
    model = record.load_model(folder, weights)
    config = record.read_config(folder)
    dataset = load_data(replace(config, data_dir=data_dir or config.data_dir))
    record.check_same_data(folder, dataset)
    graphdef, params = nnx.split(model, nnx.Param)
    batch_size = micro_batch_size(config, record.read_recipe(folder), model)
    layout = make_layout(devices_for(1))
    score = evaluate(
        make_eval_step(graphdef, model.image_size, model.num_classes, batch_size, layout),
        layout.place(params, EVERYWHERE),
        evaluation_images(layout, dataset),
        count=len(dataset.test),
        num_classes=model.num_classes,
        batch_size=batch_size,
        layout=layout,
    )
    _report(folder, model.variant.name, dataset, score)
    return score


def _report(folder: Path, variant: str, dataset: Dataset, score: Score) -> None:
    from nin_jax.plotting import plot_confusion  # matplotlib is slow to import

    title = f"{variant} on {dataset.name}: test accuracy {score.accuracy:.4f}"
    table = Table(title=f"{escape(title)}, loss {score.loss:.4f} nats", title_justify="left")
    for column in ("class", "precision", "recall", "images"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for i, row in enumerate(score.per_class()):
        name = dataset.class_names[i] if i < dataset.num_classes else f"class {i}"
        figures = (f"{row[key]:.4f}" for key in ("precision", "recall"))
        table.add_row(escape(name), *figures, f"{row['images']:,}")
    Console().print(table)
    names = (*dataset.class_names, *(f"class {i}" for i in range(len(score.confusion))))
    plot_confusion(score.confusion, names[: len(score.confusion)], title, folder / CONFUSION)
    print(f"test accuracy {score.accuracy}\nwrote {folder / CONFUSION}")
