"""Picture files in batches, as a network takes them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from nin_jax.data import pictures
from nin_jax.errors import UserError
from nin_jax.models.nin import NiN


def read_batches(
    files: Sequence[Path], model: NiN, batch_size: int
) -> Iterator[tuple[list[Path], np.ndarray, list[str]]]:
    """Read picture files in batches, with a progress bar if there are several batches.

    Args:
        files: picture files.
        model: the network that takes the pictures; they get its number of channels and size.
        batch_size: files per batch.

    Yields:
        The files that could be read, their pictures as uint8 [n, H, W, C], and one error message
        for each file that could not.
    """
    height, width = model.image_size
    starts = range(0, len(files), batch_size)
    console = Console(stderr=True)
    for start in track(starts, "pictures", console=console, disable=len(starts) < 2):
        readable: list[Path] = []
        images: list[np.ndarray] = []
        errors: list[str] = []
        for path in files[start : start + batch_size]:
            try:
                images.append(pictures.read(path, model.in_channels, (height, width)))
                readable.append(path)
            except UserError as error:
                errors.append(str(error))
        shape = (len(images), height, width, model.in_channels)
        yield readable, np.asarray(images, np.uint8).reshape(shape), errors
