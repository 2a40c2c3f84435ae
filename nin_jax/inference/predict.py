"""A trained network's answers for pictures in files."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from nin_jax.data import pictures
from nin_jax.errors import UserError
from nin_jax.inference.predictor import Predictor
from nin_jax.runs.trained import Source

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Prediction:
    """What a network says of one picture: classes and their probabilities, likeliest first."""

    path: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]


def predict_files(
    paths: Sequence[Path],
    source: Source,
    *,
    top: int = 3,
    batch_size: int = 128,
    precision: Precision | None = None,
) -> tuple[list[Prediction], list[str]]:
    """The likeliest classes of pictures, by a trained network.

    Args:
        paths: picture files, and folders of them.
        source: where the network is taken from.
        top: classes a picture, at most.
        batch_size: pictures in memory and on the device at a time.
        precision: of the computation; None is the run's.

    Returns:
        A prediction for each picture that can be read, and a line for each that cannot.

    Raises:
        UserError: a path or the network does not exist, the weights do not fit, or a count is
            below 1.
    """
    if top < 1:
        raise UserError(f"--top must be a whole number >= 1, got {top}")
    files = pictures.find(paths)
    trained = source.load()
    model, names = trained.model, trained.class_names
    # No larger than what there is to do: a batch is filled up.
    size = min(batch_size, len(files)) if batch_size > 0 else batch_size
    predictor = Predictor(model, size, precision)
    done: list[Prediction] = []
    faults: list[str] = []
    console = Console(stderr=True)
    batches = range(0, len(files), batch_size)
    for start in track(batches, "pictures", console=console, disable=len(batches) < 2):
        readable: list[Path] = []
        batch: list[np.ndarray] = []
        for path in files[start : start + batch_size]:
            try:
                batch.append(pictures.read(path, model.in_channels, model.image_size))
                readable.append(path)
            except UserError as error:
                faults.append(str(error))
        if not readable:
            continue
        for path, row in zip(readable, predictor.probabilities(np.stack(batch)), strict=True):
            best = np.argsort(-row, kind="stable")[:top]
            done.append(
                Prediction(str(path), tuple(names[i] for i in best), tuple(map(float, row[best])))
            )
    return done, faults


def report(predictions: Sequence[Prediction], faults: Sequence[str], as_json: bool) -> None:
    """Prints predictions on standard output and what could not be read on standard error."""
    if as_json:
        print(json.dumps([asdict(prediction) for prediction in predictions], indent=2))
    elif predictions:
        console = Console()
        if not console.is_terminal:  # a file or another program: no name is broken
            console.width = 10_000
        console.print(_table(predictions))
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)


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
