"""The interface of datasets that are read from disk one example at a time."""

from typing import NamedTuple, Protocol

import numpy as np


class Source(Protocol):
    """Examples that can be read in any order, and by several threads at the same time."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Return an image, uint8 [H, W, C], and its label."""
        ...

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return all images, uint8 [N, H, W, C], and all labels, int32 [N]."""
        ...


class OpenedDataset(NamedTuple):
    """A dataset on disk that is open for reading.

    Attributes:
        train: examples of the training split.
        test: examples of the test split.
        class_names: label `i` means `class_names[i]`.
        checksum: SHA-256, in hex, over the names and sizes of the files, not over their bytes.
        source: where the examples come from, such as "image folder"; never a path.
        notes: what a user should know about the examples, one line each.
    """

    train: Source
    test: Source
    class_names: tuple[str, ...]
    checksum: str
    source: str
    notes: tuple[str, ...] = ()
