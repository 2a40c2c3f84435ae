"""Data sets that need not fit into memory: examples read by threads as they are asked for."""

import contextlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from nin_jax.data import image_folder, tfds_records
from nin_jax.data.datasets import FOLDER_PREFIX, TFDS_PREFIX, Dataset, given_folder

# Grain's own work is done once for so many examples; for each it would take longer than to read
# a small one.
_AT_A_TIME = 16


class Source(Protocol):
    """Examples that can be read in any order, by several threads at once."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """The image, uint8 [H, W, C], and its label."""
        ...


@dataclass(frozen=True)
class StreamedSplit:
    """What `datasets.Split` is, but read as it is needed: examples of a source, in its order.

    Attributes:
      source: of the examples.
      indices: those of the source that are part of the split.
    """

    source: Source
    indices: range

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        return self.source.image_shape

    def chance(self, num_classes: int) -> float:
        """Accuracy of always naming the commonest class; of guessing, if a source does not tell its
        labels without reading all."""
        labels = getattr(self.source, "labels", None)
        if labels is None:
            return 1 / num_classes
        return np.bincount(labels[self.indices.start : self.indices.stop]).max() / len(self)

    def part(self, start: int | None, stop: int | None) -> "StreamedSplit":
        """Some of the examples, as a slice has them."""
        return StreamedSplit(self.source, self.indices[start:stop])

    def read(self, indices: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """As `datasets.Split.read`; the next ones are read meanwhile."""
        theirs = np.where(indices >= 0, indices + self.indices.start, -1)
        return batches(self.source, theirs, size)


def open_dataset(name: str, data_dir: str | Path | None = None) -> Dataset[StreamedSplit]:
    """Opens a data set for streaming; of its images only the first are read now.

    The checksum of `tfds:NAME` is over names and sizes of its files, where `load_dataset`'s is over
    all bytes.

    Args:
      name: `tfds:NAME` or `folder:PATH`, as `load_dataset` takes them.
      data_dir: as `load_dataset` takes it.

    Raises:
      UserError: as `load_dataset`; but what is wrong with a single image is found out when that
        one is read.
      ValueError: the name is of a set that is small and is loaded.
    """
    folder = given_folder(data_dir)
    if name.startswith(FOLDER_PREFIX):
        found = image_folder.open_folder(name.removeprefix(FOLDER_PREFIX), folder)
        source = image_folder.SOURCE
    elif name.startswith(TFDS_PREFIX):
        found = tfds_records.open_prepared(name.removeprefix(TFDS_PREFIX), folder)
        source = f"{TFDS_PREFIX}{found.full_name}"
    else:
        raise ValueError(f"{name!r} cannot be streamed from disk")
    train, test = (StreamedSplit(each, range(len(each))) for each in (found.train, found.test))
    return Dataset(name, train, test, found.class_names, found.checksum, source)


def batches(
    source: Source, indices: np.ndarray, batch_size: int, *, threads: int = 8, prefetch: int = 2
) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
    """Reads batches ahead of their use, in order whatever the threads do.

    Args:
      source: of the examples.
      indices: int64 [n * batch_size]: which examples make which batch; -1 stands for no example
        and becomes an image of zeros with label 0.
      batch_size: examples a batch.
      threads: that read at once.
      prefetch: how many batches may be read or waiting besides the one that is handed out.

    Yields:
      uint8 [batch_size, H, W, C] and int32 [batch_size], n times.

    Raises:
      UserError: as the source, when the batch of the example that failed is asked for.
    """
    import grain  # not above: it takes a second

    rows = indices.reshape(-1, batch_size)
    pieces = -(-batch_size // _AT_A_TIME)  # of a batch

    def read(piece: int) -> tuple[np.ndarray, np.ndarray]:
        row, part = divmod(piece, pieces)
        return _read(source, rows[row, part * _AT_A_TIME : (part + 1) * _AT_A_TIME])

    ahead = prefetch * pieces
    options = grain.ReadOptions(num_threads=min(threads, ahead), prefetch_buffer_size=ahead)
    dataset = grain.MapDataset.range(len(rows) * pieces).map(read).to_iter_dataset(options)
    # Closing stops the threads, also if the caller gives up on the generator half-way.
    with contextlib.closing(iter(dataset.batch(pieces, batch_fn=_join))) as joined:
        yield from joined


def _read(source: Source, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    images = np.zeros((len(indices), *source.image_shape), np.uint8)
    labels = np.zeros(len(indices), np.int32)
    for i, index in enumerate(indices.tolist()):
        if index >= 0:
            images[i], labels[i] = source[index]
    return images, labels


def _join(pieces: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    images, labels = zip(*pieces, strict=True)
    return np.concatenate(images), np.concatenate(labels)
