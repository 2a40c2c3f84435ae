"""What the contenders are given to do: the same work, the same images."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from nin_jax.models.geometry import as_height_width
from nin_jax.models.variants import ImageSize

LEARNING_RATE = 0.01

# The contenders that are measured in processes of their own, where only their framework is.
OURS = "nin_jax"
TORCH = "torch eager channels_last"
TORCH_WITH_GRADIENTS = "torch eager channels_last, gradients on"

Task = Literal["train", "predict"]
Call = Callable[[], Any]
"""Does one training step or one batch, and returns when it is done."""


@dataclass(frozen=True)
class Work:
    """What is to be done: one training step, or the logits of one batch.

    The variant is a name or a file, the image size a side or (height, width).
    """

    task: Task
    variant: str
    batch_size: int
    image_size: ImageSize = 224
    in_channels: int = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    optimizer: Literal["sgd", "muon"] = "sgd"
    momentum: float = 0.0
    num_classes: int = 10

    @property
    def sides(self) -> tuple[int, int]:
        return as_height_width(self.image_size)

    def images(self) -> np.ndarray:
        """uint8 [B, H, W, C], the same for everyone."""
        shape = (self.batch_size, *self.sides, self.in_channels)
        return np.random.default_rng(0).integers(0, 256, shape, np.uint8)

    def labels(self) -> np.ndarray:
        return (
            np.random.default_rng(1).integers(0, self.num_classes, self.batch_size).astype(np.int32)
        )

    def row(self) -> dict[str, Any]:
        return {
            "benchmark": self.task,
            "variant": self.variant,
            "batch_size": self.batch_size,
            "image_size": self.image_size,
            "in_channels": self.in_channels,
            "precision": self.precision,
        }


def error_text(error: Exception) -> str:
    """Return what a row says of an exception: its type and the last line of its message."""
    return f"{type(error).__name__}: {last_line(str(error))}"


def last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:200] if lines else "no message"
