"""What the contenders are given to do: the same work, the same images."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

LEARNING_RATE = 0.01
Task = Literal["train", "predict"]
Call = Callable[[], Any]
"""Does one training step or one batch, and returns when it is done."""


@dataclass(frozen=True)
class Work:
    """What is to be done: one training step, or the logits of one batch."""

    task: Task
    variant: str
    batch_size: int
    image_size: int = 224
    in_channels: int = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    momentum: float = 0.0

    def images(self) -> np.ndarray:
        """uint8 [B, H, W, C], the same for everyone."""
        shape = (self.batch_size, self.image_size, self.image_size, self.in_channels)
        return np.random.default_rng(0).integers(0, 256, shape, np.uint8)

    def labels(self) -> np.ndarray:
        return np.random.default_rng(1).integers(0, 10, self.batch_size).astype(np.int32)

    def row(self) -> dict[str, Any]:
        return {
            "benchmark": self.task,
            "variant": self.variant,
            "batch_size": self.batch_size,
            "image_size": self.image_size,
            "in_channels": self.in_channels,
            "precision": self.precision,
        }
