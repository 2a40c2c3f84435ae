"""Options of scripts/report.py, and sizes of memory as users write them."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nin_jax.errors import UserError
from nin_jax.models.stages import ImageSize

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


@dataclass(frozen=True)
class ReportConfig:
    """Count the parameters, computation and memory of a network, by the convention of each tool.

    Counts are of one image, memory is of a batch. Each figure says whether it comes from a formula
    ("on paper"), from XLA's analysis or from a measurement.
    """

    variant: str = "nin"
    """Network: a built-in name, or a .json or .toml file."""

    all: bool = False
    """Compare all built-in networks in one table, on paper; with --train, add a table of the memory
    that XLA plans and that was measured."""

    in_channels: int = 1
    """Channels of the images."""

    num_classes: int = 10
    """Number of logits."""

    image_size: ImageSize | None = None
    """Side of the images, or height and width, in pixels (default: the network's: 224, or 32 for
    those of CIFAR and SVHN)."""

    batch_size: int = 128
    """Images in a batch, for memory and the training step."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the computation."""

    recipe: str = "d2l"
    """d2l, modern or paper; sets the optimizer, the loss and the last ReLU."""

    per_layer: bool = False
    """Add a table with a row for each layer."""

    train: bool = False
    """Add the training step: its parts, on paper and by XLA, and measured memory."""

    measure: bool = True
    """With --train: run a few steps of nin_jax and of PyTorch, each in a separate process, and
    measure their memory."""

    memory: str | None = None
    """Find the largest batches that fit into this memory, such as 8GiB or 500MB."""

    explain: bool = False
    """Print a derivation in Markdown instead of the tables, layer by layer, with all numbers."""

    format: Literal["table", "markdown", "csv", "json"] = "table"
    """How to print. In csv, --all gives a row for each network and --per-layer a row for each
    layer; without both, each line is a key and its value. With either, the tables of --train and
    --memory follow, each after an empty line."""

    plots: Path | None = None
    """Folder for layers.png, parameters and MACs as bars; with --all also variants.png."""


def parse_memory(text: str) -> int:
    """Return the bytes of a size such as ``8GiB`` or ``500 MB``.

    Raises:
        UserError: the text is not a size, or the size is 2**63 bytes or more.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*((?:[kmgt]i?)?b)?\s*", text, re.IGNORECASE)
    if found is None:
        raise UserError(f"--memory must be a size such as 8GiB or 500MB, got {text!r}")
    size = float(found[1]) * UNITS[(found[2] or "").upper()]
    if size >= 2**63:
        raise UserError(f"--memory must be less than 2**63 bytes, got {text[:20]}")
    return int(size)
