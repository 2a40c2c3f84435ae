"""A source of examples that are in memory."""

from collections.abc import Sequence

import numpy as np


class ArraySource:
    """Examples in arrays."""

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        """uint8 [N, H, W, C] and integers [N]; neither is copied."""
        self._images, self.labels = images, labels
        self.image_shape: tuple[int, int, int] = images.shape[1:]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self._images[index], int(self.labels[index])

    def arrays(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        places = np.asarray(indices)
        return self._images[places], self.labels[places]
