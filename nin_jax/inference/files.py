"""Picture files in batches, as a network takes them."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console
from rich.progress import track

from nin_jax.data import listing, pictures
from nin_jax.errors import UserError
from nin_jax.models.preprocessing import Preprocessing
from nin_jax.runs.trained import Source, Trained


@dataclass(frozen=True)
class PictureSource(Source):
    """A trained network and the pictures that it gets."""

    pictures: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Picture files (PNG, JPEG, TIFF and others), or folders, whose sub-folders are read too."""


def find(paths: Sequence[Path]) -> list[Path]:
    """Return the given files and the pictures in the given folders; print what is left out.

    Raises:
        UserError: no path is given, or as `listing.find`.
    """
    if not paths:
        raise UserError("give one or more pictures, or folders of them")
    files, left_out = listing.find(paths)
    for note in listing.counted(left_out, "file", "left out"):
        print(f"note: {note}", file=sys.stderr)
    return files


def finish(faults: Sequence[str], any_done: bool) -> None:
    """Print the errors of pictures; if there are any, exit with 1, or 2 if none was done."""
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    if faults:
        sys.exit(1 if any_done else 2)


def read_batches(
    files: Sequence[Path], trained: Trained, batch_size: int
) -> Iterator[tuple[list[Path], np.ndarray, list[str]]]:
    """Read picture files in batches, with a progress bar if there are several batches.

    Args:
        files: picture files.
        trained: the network that takes the pictures; they get its number of channels and size, as
            in its training. A note says what its preprocessing is.
        batch_size: files per batch.

    Yields:
        The files that could be read, their pictures as uint8 [n, H, W, C], and one error message
        for each file that could not.
    """
    model, preprocessing = trained.model, trained.model.preprocessing
    size, channels = model.image_size, model.in_channels
    if preprocessing != Preprocessing():
        print(f"note: preprocessing of {trained.origin}: {preprocessing}", file=sys.stderr)
    starts = range(0, len(files), batch_size)
    console = Console(stderr=True)
    for start in track(starts, "pictures", console=console, disable=len(starts) < 2):
        readable: list[Path] = []
        images: list[np.ndarray] = []
        errors: list[str] = []
        for path in files[start : start + batch_size]:
            try:
                images.append(pictures.read(path, channels, size, preprocessing))
                readable.append(path)
            except UserError as error:
                errors.append(str(error))
        shape = (len(images), *size, channels)
        yield readable, np.asarray(images, np.uint8).reshape(shape), errors
