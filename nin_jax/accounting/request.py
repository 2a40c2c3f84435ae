"""What is asked of a report: its options, and sizes of memory as people write them."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nin_jax.errors import UserError

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


@dataclass(frozen=True)
class ReportConfig:
    """Count what a network costs: parameters, computation and memory, by everyone's convention.

    Counts are of one image, memory is of a batch. Figures are on paper, from XLA's analysis, or
    measured, and say which.
    """

    variant: str = "nin"
    """Network: a built-in name, or a .json or .toml file."""

    all: bool = False
    """One table that compares all built-in networks, on paper; with --train, a second one of what
    XLA plans and what was measured."""

    in_channels: int = 1
    """Channels of the images."""

    num_classes: int = 10
    """Number of logits."""

    image_size: int | tuple[int, int] = 224
    """Side of the images, or height and width, in pixels."""

    batch_size: int = 128
    """Images of a batch, for memory and the training step."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the computation."""

    recipe: str = "d2l"
    """d2l or modern: the optimiser, the loss and the last ReLU."""

    per_layer: bool = False
    """A row for each layer too."""

    train: bool = False
    """The training step too: in parts, on paper and from XLA, and memory measured."""

    measure: bool = True
    """With --train: run a few steps of ours and PyTorch's, each in a process of its own, and see
    how much memory they take."""

    memory: str | None = None
    """Find the largest batches that fit into that much memory, such as 8GiB or 500MB."""

    explain: bool = False
    """Write a worked derivation in Markdown instead, layer by layer, with the numbers filled in."""

    format: str = "table"
    """table, markdown, csv or json. csv holds with --all the networks, with --per-layer the layers,
    else keys and values; what --train and --memory add to the first two follows after an empty
    line, as tables of their own."""

    plots: Path | None = None
    """Folder for layers.png: parameters and MACs as bars; with --all also variants.png."""


def parse_memory(text: str) -> int:
    """Bytes of a text such as ``8GiB`` or ``500 MB``.

    Raises:
        UserError: it is none, or more than there is in the world.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*((?:[kmgt]i?)?b)?\s*", text, re.IGNORECASE)
    if found is None:
        raise UserError(f"--memory must be a size such as 8GiB or 500MB, got {text!r}")
    size = float(found[1]) * UNITS[(found[2] or "").upper()]
    if size >= 2**63:
        raise UserError(f"--memory {text[:20]}... is more than there is in the world")
    return int(size)
