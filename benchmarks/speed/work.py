"""The work that every contender is given, and what it costs on paper.

nin_jax is imported only where it is used: it brings JAX, which would count in the memory of
PyTorch's process.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from nin_jax.models.geometry import Layer

LEARNING_RATE = 0.01

# Names of contenders.
OURS = "nin_jax"
TORCH = "torch eager channels_last"
PLAIN = "plain Flax: nnx.Conv, nnx.max_pool"
TORCH_WITH_GRADIENTS = "torch eager channels_last, gradients on"

Row = dict[str, Any]
Task = Literal["train", "predict"]
Call = Callable[[], Any]
"""Does one training step or one batch, and returns when it is done."""


@dataclass(frozen=True)
class Work:
    """One training step, or the logits of one batch.

    Attributes:
        task: which of the two.
        variant: a name or a file.
        batch_size: images in the batch.
        image_size: side or (height, width), in pixels.
        in_channels: channels of the images.
        precision: of the computation.
        optimizer: of the training step.
        momentum: of the optimizer.
        num_classes: classes to tell apart.
    """

    task: Task
    variant: str
    batch_size: int
    image_size: int | tuple[int, int] = 224
    in_channels: int = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    optimizer: Literal["sgd", "muon"] = "sgd"
    momentum: float = 0.0
    num_classes: int = 10

    @property
    def sides(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        size = self.image_size
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    @property
    def layers(self) -> "list[Layer]":
        """The layers of the network, with their shapes."""
        from nin_jax.models.geometry import trace
        from nin_jax.models.variants import get_variant

        return trace(get_variant(self.variant), self.in_channels, self.num_classes, self.sides)

    @property
    def params(self) -> int:
        """The number of parameters."""
        return sum(layer.params for layer in self.layers)

    def images(self) -> np.ndarray:
        """Return uint8 [B, H, W, C], the same for every contender."""
        shape = (self.batch_size, *self.sides, self.in_channels)
        return np.random.default_rng(0).integers(0, 256, shape, np.uint8)

    def labels(self) -> np.ndarray:
        """Return int32 [B], the same for every contender."""
        labels = np.random.default_rng(1).integers(0, self.num_classes, self.batch_size)
        return labels.astype(np.int32)

    def row(self) -> Row:
        """Return the columns of a result row that describe the work."""
        return {
            "benchmark": self.task,
            "variant": self.variant,
            "batch_size": self.batch_size,
            "image_size": self.image_size,
            "in_channels": self.in_channels,
            "precision": self.precision,
        }


def random_pixels(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 [N, 28, 28, 1] and int32 [N]."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 28, 28, 1), np.uint8)
    return images, rng.integers(0, 10, count).astype(np.int32)


def training_cost(work: Work) -> tuple[float, float]:
    """Count the FLOPs of one image's training step, and the least bytes that it moves.

    FLOPs: 2 a MAC, three times: forward, input gradient, weight gradient (the first layer has no
    input gradient). Bytes: each activation is written and read in the forward pass; in the
    backward pass it is read again, and its gradient is written once and read twice: 6 passes.
    """
    layers = work.layers
    macs = sum(layer.macs for layer in layers)
    first = next(layer.macs for layer in layers if layer.macs)
    width = 2 if work.precision == "bfloat16" else 4
    activations = sum(math.prod(layer.out_shape) for layer in layers)
    return 2.0 * (3 * macs - first), 6.0 * width * activations


def error_text(error: Exception) -> str:
    """Return the text of an error row: the exception's type and the last line of its message."""
    return f"{type(error).__name__}: {last_line(str(error))}"


def last_line(text: str) -> str:
    """Return the last line of a message, 200 characters of it at most."""
    lines = text.strip().splitlines()
    return lines[-1][:200] if lines else "no message"
