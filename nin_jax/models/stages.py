"""The parts of a network as data: a block, its convolutions and its pool; no framework."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from nin_jax.errors import UserError
from nin_jax.validation import FAIL_FAST, Fraction, validated

# Bounds far above any sensible network, so that a slip or a hostile file gives an error instead of
# filling the memory. A side is an image's, a kernel's, a stride's or a padding's, in pixels.
MAX_SIDE, MAX_CHANNELS = 2**14, 2**16

TWO_1X1 = ((1, 0), (1, 0))


def _side_or_sides(size: object) -> object:
    """Return the size; a list becomes a tuple.

    It is checked here because pydantic's message would name only one of the two allowed types.
    """
    sides = tuple(size) if isinstance(size, list) else size
    types = [type(side) for side in sides] if isinstance(sides, tuple) else type(sides)
    if types in (int, [int, int], type(None)):
        return sides
    raise ValueError("must be a whole number, or a height and a width")


def _pool_or_none(pool: object) -> object:
    """Return the pool. JSON gives a table; older files give true or false."""
    if isinstance(pool, bool):
        return Pool() if pool else None
    if isinstance(pool, Mapping):
        return Pool(**pool)
    if pool is None or isinstance(pool, Pool):
        return pool
    raise ValueError("must be a Pool, or true or false")


def _width_or_widths(channels: object) -> object:
    """Return the channels; a list becomes a tuple.

    They are checked here because pydantic's message would name only one of the allowed types.
    """
    widths = tuple(channels) if isinstance(channels, list) else channels
    for width in widths if isinstance(widths, tuple) else (widths,):
        if not isinstance(width, int) or isinstance(width, bool):
            if widths is None:
                break
            raise ValueError("must be a whole number, or one for each layer")
        if width < 1:
            raise ValueError("must be >= 1")
        if width > MAX_CHANNELS:
            raise ValueError(f"must be <= {MAX_CHANNELS}")
    return widths


ImageSize = Annotated[int | tuple[int, int], BeforeValidator(_side_or_sides)]

Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Padding = Annotated[int, Field(ge=0, le=MAX_SIDE)]


@validated()
class Pool:
    """A pool of square windows.

    Attributes:
        kind: "max", or "average".
        size: side of a window, in pixels.
        stride: distance between windows.
        padding: pixels added on each side, at most half the size: of -infinity for the maximum, of
            zeros for the average.
        round_up: whether the windows cover the last pixels too, as in cuda-convnet, Caffe and
            PyTorch's ``ceil_mode``; else rows and columns that fill no window are left out.
        count_padding: whether an average divides by the padded pixels too, as PyTorch does by
            default (``count_include_pad``).

    Raises:
        UserError: a field is not in its range.
    """

    kind: Literal["max", "average"] = "max"
    size: Side = 3
    stride: Side = 2
    padding: Padding = 0
    round_up: bool = False
    count_padding: bool = True

    def __post_init__(self) -> None:
        if 2 * self.padding > self.size:
            raise UserError(
                f"Pool.padding must be at most half the size of {self.size}, got {self.padding}"
            )


@validated()
class Stage:
    """One NiN block and the pool after it.

    Attributes:
        channels: output channels of the block's convolutions, one number for all or one for each.
            In a head, None: all have one channel per class; or one number for each convolution but
            the last, which has one channel per class.
        kernel: side of the first convolution's square kernel, in pixels.
        stride: stride of the first convolution.
        padding: zeros added on each side before the first convolution.
        mlp: (kernel, padding) of each convolution that follows, all of stride 1; the paper's
            1x1 convolutions are ``(1, 0)``.
        pool: the pool after the block; None for none, as always after a head. True and False, the
            older form, stand for ``Pool()`` and None.
        dropout: rate of the dropout after the pool, in [0, 1); 0 in a head, where
            `Variant.dropout` stands before the block.

    Raises:
        UserError: a field is not a whole number in its range.
    """

    channels: Annotated[int | tuple[int, ...] | None, BeforeValidator(_width_or_widths)]
    kernel: Side
    stride: Side = 1
    padding: Padding = 0
    mlp: Annotated[tuple[tuple[Side, Padding], ...], FAIL_FAST] = TWO_1X1
    pool: Annotated[Pool | None, BeforeValidator(_pool_or_none)] = Pool()
    dropout: Fraction = 0.0

    def widths(self, num_classes: int) -> tuple[int, ...]:
        """Return the output channels of each convolution of the block."""
        if isinstance(self.channels, tuple):
            missing = 1 + len(self.mlp) - len(self.channels)
            return (*self.channels, *[num_classes] * missing)
        return (self.channels or num_classes,) * (1 + len(self.mlp))

    def convolutions(self, in_channels: int, num_classes: int) -> Iterator["Convolution"]:
        """Return the block's convolutions in order, with every channel count filled in."""
        geometry = ((self.kernel, self.stride, self.padding), *((k, 1, pad) for k, pad in self.mlp))
        for out_channels, numbers in zip(self.widths(num_classes), geometry, strict=True):
            yield Convolution(in_channels, out_channels, *numbers)
            in_channels = out_channels


@dataclass(frozen=True)
class Convolution:
    """One square convolution with bias: input and output channels, kernel, stride, padding."""

    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    padding: int
