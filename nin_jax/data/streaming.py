"""Datasets larger than memory: threads read the examples when they are needed."""

import contextlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nin_jax.data.datasets import (
    FOLDER_PREFIX,
    TFDS_PREFIX,
    Dataset,
    given_folder,
    open_dataset_files,
)
from nin_jax.data.image_folder import DEFAULT, FolderOptions
from nin_jax.data.sources import Source

# Grain handles this many examples at once. Its overhead per item exceeds the time to read a small
# image.
_CHUNK = 16


@dataclass(frozen=True)
class StreamedSplit:
    """Like `datasets.Split`, but read when needed: some examples of a source.

    Attributes:
        source: where the examples are read from.
        indices: int [N], the places of the split's examples in the source.
    """

    source: Source
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        return self.source.image_shape

    @property
    def labels(self) -> np.ndarray | None:
        """The labels, int32 [N]; None if the source knows them only by reading all examples."""
        labels = getattr(self.source, "labels", None)
        return None if labels is None else labels[self.indices]

    def __getitem__(self, which: slice | np.ndarray) -> "StreamedSplit":
        """Return the examples that a slice, an index array or a boolean mask selects."""
        return StreamedSplit(self.source, self.indices[which])

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the images of this split, uint8 [N, H, W, C], and its labels, int32 [N].

        Raises:
            UserError: an example cannot be read.
        """
        return self.source.arrays(self.indices)

    def read(self, indices: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Read batches as `datasets.Split.read` does, ahead of their use."""
        theirs = np.where(indices >= 0, self.indices[indices], -1)
        return batches(self.source, theirs, size)


def open_dataset(
    name: str, data_dir: str | Path | None = None, options: FolderOptions = DEFAULT
) -> Dataset[StreamedSplit]:
    """Open a dataset for streaming; no images are read but the first of `tfds:NAME`.

    The checksum of `tfds:NAME` is over the names and sizes of its files, while `load_dataset` uses
    all bytes.

    Args:
        name: `tfds:NAME` or `folder:PATH`, as `load_dataset` takes them.
        data_dir: as `load_dataset` takes it.
        options: how to read the images of `folder:PATH`.

    Raises:
        UserError: as `load_dataset`, but an error in a single image is raised when that image is
            read.
        ValueError: the dataset is small and can only be loaded.
    """
    if not name.startswith((TFDS_PREFIX, FOLDER_PREFIX)):
        raise ValueError(f"{name!r} cannot be streamed from disk")
    found = open_dataset_files(name, given_folder(data_dir), options)
    train, test = (StreamedSplit(each, np.arange(len(each))) for each in (found.train, found.test))
    return Dataset(name, train, test, found.class_names, found.checksum, found.source, found.notes)


def batches(
    source: Source, indices: np.ndarray, batch_size: int, *, threads: int = 8, prefetch: int = 2
) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
    """Read batches ahead of their use, in a fixed order.

    Args:
        source: where the examples are read from.
        indices: int64 [n * batch_size], the examples of all batches; -1 gives an image of zeros
            with label 0.
        batch_size: examples per batch.
        threads: the number of threads that read.
        prefetch: how many batches may be read ahead of the one in use.

    Yields:
        uint8 [batch_size, H, W, C] and int32 [batch_size], n times.

    Raises:
        UserError: an example cannot be read; raised when its batch is asked for.
    """
    import grain  # here, because it takes a second to import

    rows = indices.reshape(-1, batch_size)
    chunks = -(-batch_size // _CHUNK)  # per batch

    def read(chunk: int) -> tuple[np.ndarray, np.ndarray]:
        row, part = divmod(chunk, chunks)
        return _read(source, rows[row, part * _CHUNK : (part + 1) * _CHUNK])

    ahead = prefetch * chunks
    options = grain.ReadOptions(num_threads=min(threads, ahead), prefetch_buffer_size=ahead)
    dataset = grain.MapDataset.range(len(rows) * chunks).map(read).to_iter_dataset(options)
    # Closing stops the threads, also if the caller closes the generator early.
    with contextlib.closing(iter(dataset.batch(chunks, batch_fn=_join))) as joined:
        yield from joined


def _read(source: Source, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    images = np.zeros((len(indices), *source.image_shape), np.uint8)
    labels = np.zeros(len(indices), np.int32)
    for i, index in enumerate(indices.tolist()):
        if index >= 0:
            images[i], labels[i] = source[index]
    return images, labels


def _join(chunks: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    images, labels = zip(*chunks, strict=True)
    return np.concatenate(images), np.concatenate(labels)
