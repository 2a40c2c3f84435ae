"""The predictions of a trained network for picture files."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nin_jax.errors import UserError
from nin_jax.inference.files import PictureSource, find, read_batches
from nin_jax.inference.predictor import Predictor
from nin_jax.training.config import Precision


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one picture and their probabilities, in descending order."""

    path: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class PredictConfig(PictureSource):
    """Print the most probable classes of pictures, by the network of a run or shipped weights.

    Pictures are converted to gray or color and resized as in training. If a picture cannot be read,
    an error is printed and the exit code is 1, or 2 if none can be.
    """

    top: int = 3
    """Maximum number of classes to print for each picture."""

    batch_size: int = 128
    """Pictures to compute at a time."""

    precision: Precision | None = None
    """Precision of the computation. Default: the run's."""

    json: bool = False
    """Print JSON instead of a table."""


def predict_files(config: PredictConfig) -> tuple[list[Prediction], list[str]]:
    """Return the most probable classes of pictures.

    Returns:
        A prediction for each picture that can be read, and an error message for each that cannot.

    Raises:
        UserError: no path is given, a path or the network does not exist, the weights do not fit,
            or a count is below 1.
    """
    if config.top < 1:
        raise UserError(f"--top must be a whole number >= 1, got {config.top}")
    batch_size, files = config.batch_size, find(config.pictures)
    trained = config.load()
    # A batch is padded, so it should not be larger than the number of pictures.
    size = min(batch_size, len(files)) if batch_size > 0 else batch_size
    # Batch size 1 makes the weights constants, so each network needs a compilation.
    predictor = Predictor(trained.model, 2 if size == 1 else size, config.precision)
    predictions: list[Prediction] = []
    faults: list[str] = []
    for readable, images, errors in read_batches(files, trained, size):
        faults += errors
        for path, row in zip(readable, predictor.probabilities(images), strict=True):
            best = np.argsort(-row, kind="stable")[: config.top]
            names = tuple(trained.class_names[i] for i in best)
            predictions.append(Prediction(str(path), names, tuple(map(float, row[best]))))
    return predictions, faults


def report(predictions: Sequence[Prediction], as_json: bool) -> None:
    """Print predictions on standard output, as a table or as JSON."""
    if as_json:
        print(json.dumps([asdict(prediction) for prediction in predictions], indent=2))
    elif predictions:
        console = Console(emoji=False)
        if not console.is_terminal:  # a file or another program: do not wrap names
            console.width = 10_000
        console.print(_table(predictions))


def _table(predictions: Sequence[Prediction]) -> Table:
    table = Table("picture")
    for rank in range(len(predictions[0].classes)):
        table.add_column("class" if rank == 0 else f"{rank + 1}.")
        table.add_column("probability" if rank == 0 else "", justify="right")
    for prediction in predictions:
        cells = [escape(prediction.path)]
        for name, probability in zip(prediction.classes, prediction.probabilities, strict=True):
            cells += [escape(name), f"{probability:.4f}"]
        table.add_row(*cells)
    return table
