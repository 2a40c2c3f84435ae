"""Examples in memory, as a source that streams them."""

import numpy as np


class ArraySource:
    """Examples that are in memory already."""

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        """uint8 [N, H, W, C] and integers [N]; neither is copied."""
        self._images, self.labels = images, labels
        self.image_shape: tuple[int, int, int] = images.shape[1:]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self._images[index], int(self.labels[index])
