"""What datasets have in common, in memory, streamed, or read from disk one example at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

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

    def arrays(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return images, uint8 [N, H, W, C], and labels, int32 [N], of the examples ``indices``."""
        ...


class Examples(Protocol):
    """The interface that `datasets.Split` and `streaming.StreamedSplit` share."""

    @property
    def labels(self) -> np.ndarray | None: ...

    @property
    def image_shape(self) -> tuple[int, int, int]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, which: slice | np.ndarray) -> Self: ...

    def read(self, indices: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]: ...


SplitT = TypeVar("SplitT", bound=Examples | Source)


@dataclass(frozen=True)
class Dataset(Generic[SplitT]):
    """A training and a test split with the same image shape and classes.

    Attributes:
        name: the name that `datasets.load_dataset` takes.
        train: the training split, in memory, streamed or to be read.
        test: the test split, in the same form.
        class_names: label `i` means `class_names[i]`.
        checksum: SHA-256, in hex, over shapes and bytes of train images, train labels, test
            images and test labels; for image folders and streamed datasets, over the names and
            sizes of their files.
        source: where the arrays come from, such as "idx files"; never a path.
        notes: what a user should know about the examples, such as files left out; one line each.
    """

    name: str
    train: SplitT
    test: SplitT
    class_names: tuple[str, ...]
    checksum: str
    source: str
    notes: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        return self.train.image_shape
