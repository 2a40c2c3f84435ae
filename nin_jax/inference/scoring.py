"""Score a trained network again: a table of its classes, confusion.png, weights to ship."""

from dataclasses import dataclass, replace
from pathlib import Path

from flax import nnx
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nin_jax.data.datasets import Dataset
from nin_jax.errors import UserError, one_line
from nin_jax.inference import shipping
from nin_jax.runs import workdir
from nin_jax.runs.preparation import evaluation_images
from nin_jax.runs.trained import Source, Trained
from nin_jax.training.device import devices_for
from nin_jax.training.evaluate import Score, evaluate, make_eval_step
from nin_jax.training.sharding import EVERYWHERE, make_layout


@dataclass(frozen=True)
class EvaluateConfig(Source):
    """Score the weights of a run, or shipped weights, on their test images, and draw
    confusion.png."""

    test: bool = False
    """Score the test images for a run with --holdout. Default: its held-out training images."""

    data_dir: Path | None = None
    """Folder with the dataset's files. Default: the run's, $NIN_DATA_DIR, or the user's."""

    out: Path | None = None
    """Folder for confusion.png. Default: the run's; with --pretrained the current folder."""

    export: Path | None = None
    """Round the chosen weights of the run to float16, score them, and write them with a card into
    this folder. --pretrained looks in nin_jax/weights. For float32 use scripts/convert.py."""


def score_source(config: EvaluateConfig) -> Score:
    """Score a trained network on its test or held-out images; print and draw the result.

    Raises:
        UserError: there is no such network, the weights do not fit, the data are not those of the
            training, a folder or the figure cannot be written, the network cannot ship, ``test``
            is given for a run without held-out images, or ``export`` for the best weights by the
            test accuracy.
    """
    if config.export is not None and config.best and not config.test:
        raise UserError(
            "--export with --best needs --test and a run with --holdout: the test images must not "
            "decide which weights ship"
        )
    trained = config.load()
    out = config.out or trained.folder or Path()
    workdir.check_folder("--out", out)
    trained_with = trained.config
    if config.test:
        trained = _on_test_images(trained)
    if config.export is not None:
        shipping.check(trained, config.export)
        trained = shipping.rounded(trained)
    score, dataset = score_trained(trained, config.data_dir)
    workdir.make_folder("--out", out)
    figure = workdir.CONFUSION if trained.step is None else f"confusion-{trained.step}.png"
    _report(trained, dataset, score, out / figure)
    if config.export is not None:
        shipped = replace(trained, config=trained_with)  # for the card's command
        for path in shipping.write(shipped, score, config.export):
            print(f"wrote {path}")
    return score


def _on_test_images(trained: Trained) -> Trained:
    if trained.config.holdout is None:
        raise UserError("--test needs a run with --holdout: all others have test images only")
    config = replace(trained.config, holdout=None, patience=None)
    return replace(trained, config=config)


def score_trained(trained: Trained, data_dir: Path | None = None) -> tuple[Score, Dataset]:
    """Return the score of a trained network and the dataset that it was scored on.

    It is computed on one device in the batches of training, so it reproduces the accuracy of a run
    on one device to the last digit.

    Args:
        trained: the network.
        data_dir: folder with the dataset's files; None for that of the training.

    Raises:
        UserError: the data are missing, or are not those of the training.
    """
    model, dataset = trained.model, trained.dataset(data_dir)
    graphdef, params = nnx.split(model, nnx.Param)
    layout = make_layout(devices_for(1))
    score = evaluate(
        make_eval_step(graphdef, model.image_size, trained.batch_size, layout),
        layout.place(params, EVERYWHERE),
        evaluation_images(layout, dataset),
        count=len(dataset.test),
        num_classes=model.num_classes,
        batch_size=trained.batch_size,
        layout=layout,
    )
    return score, dataset


def _report(trained: Trained, dataset: Dataset, score: Score, path: Path) -> None:
    from nin_jax.plotting import plot_confusion  # matplotlib is slow to import

    step = "" if trained.step is None else f" after step {trained.step}"
    title = f"{trained.model.variant.name} on {dataset.name}{step}: "
    what = "test accuracy" if trained.config.holdout is None else "accuracy on held-out images"
    title += f"{what} {score.accuracy:.4f}"
    table = Table(title=f"{escape(title)}, loss {score.loss:.4f} nats", title_justify="left")
    for column in ("class", "precision", "recall", "images"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for name, row in zip(trained.class_names, score.per_class(), strict=True):
        figures = (f"{row[key]:.4f}" for key in ("precision", "recall"))
        table.add_row(escape(name), *figures, f"{row['images']:,}")
    Console(emoji=False).print(table)
    with one_line(f"cannot write {path}"):
        plot_confusion(score.confusion, trained.class_names, title, path)
    print(f"{what} {score.accuracy}\nwrote {path}")
