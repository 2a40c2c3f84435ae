"""The layers of a variant at one image size: shapes, parameters and MACs; no framework.

The model, its summary and the accounting use the same list of layers.
"""

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from nin_jax.errors import UserError
from nin_jax.models.stages import MAX_SIDE, Convolution, ImageSize, Pool, Stage
from nin_jax.models.variants import Variant
from nin_jax.reading import shown

# Upper bounds for a network's parameters, and for the numbers in one layer's maps for one image:
# a hundred times those of any built-in variant.
MAX_PARAMS, MAX_MAPS = 2**30, 2**32


@dataclass(frozen=True)
class Layer:
    """One layer at one image size, for a batch of one.

    Attributes:
        name: block and position, such as ``block2.conv1`` or ``head.conv3``.
        kind: its operation.
        detail: its kernel and other numbers, as text.
        in_shape: [H, W, C] of the input.
        out_shape: [H, W, C] of the output, or [C] after the mean or the linear layer.
        params: number of weights and biases.
        macs: multiply-adds of one image, with those on padding, without biases.
        convolution: channels, kernel, stride and padding if the kind is "conv".
        pool: size, stride and so on if the kind is "pool".
        dropout: the rate if the kind is "dropout".
    """

    name: str
    kind: Literal["conv", "pool", "dropout", "mean", "linear"]
    detail: str
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    params: int = 0
    macs: int = 0
    convolution: Convolution | None = None
    pool: Pool | None = None
    dropout: float = 0.0


def as_height_width(image_size: ImageSize) -> tuple[int, int]:
    """Return (height, width) of an image size that is one number or two.

    Raises:
        UserError: the size is not one or two whole numbers from 1 to `MAX_SIDE`.
    """
    pair = image_size if isinstance(image_size, tuple | list) else (image_size, image_size)
    valid = len(pair) == 2 and all(
        isinstance(side, int) and not isinstance(side, bool) and 1 <= side <= MAX_SIDE
        for side in pair
    )
    if not valid:
        raise UserError(
            f"image size must be one or two whole numbers >= 1 and <= {MAX_SIDE:,}, got "
            f"{shown(image_size)}"
        )
    return pair[0], pair[1]


def pooled_side(side: int, size: int, stride: int, padding: int, round_up: bool) -> int:
    """Return a side of the output of a pool, or of a convolution; 0 or less if no window fits.

    With ``round_up``, windows are added until the last pixel is covered. A window that would start
    in the padding after the last pixel is left out, as in Caffe and in PyTorch's ``ceil_mode``.

    Args:
        side: of the input, in pixels.
        size, stride, padding: of the windows.
        round_up: whether a window may reach over the padding's edge.
    """
    room = side + 2 * padding - size
    if not round_up:
        return room // stride + 1
    windows = -(-room // stride) + 1
    return windows - 1 if (windows - 1) * stride >= side + padding else windows


def _sides_after(layer: Convolution | Pool, sides: tuple[int, int]) -> tuple[int, int]:
    """Return the sides of a layer's output; 0 or less if the kernel or window does not fit."""
    of_pool = isinstance(layer, Pool)
    size, round_up = (layer.size, layer.round_up) if of_pool else (layer.kernel, False)
    height, width = (pooled_side(s, size, layer.stride, layer.padding, round_up) for s in sides)
    return height, width


Blocks = Sequence[Sequence[Convolution]]  # the convolutions of each block, the head last


def blocks_of(variant: Variant, in_channels: int = 1, num_classes: int = 1) -> Blocks:
    """Return the convolutions of a variant's blocks."""
    blocks: list[list[Convolution]] = []
    channels = in_channels
    for stage in (*variant.stages, variant.head):
        blocks.append(list(stage.convolutions(channels, num_classes)))
        channels = stage.widths(num_classes)[-1]
    return blocks


def _stages(variant: Variant, blocks: Blocks) -> Iterator[tuple[str, Stage, Sequence[Convolution]]]:
    names = [*(f"block{i + 1}" for i in range(len(variant.stages))), "head"]
    return zip(names, (*variant.stages, variant.head), blocks, strict=True)


def _first_vanishing(variant: Variant, blocks: Blocks, sides: tuple[int, int]) -> str | None:
    """Return the name of the first block, or its pool, whose map has no pixels; else None."""
    for name, stage, convolutions in _stages(variant, blocks):
        for layer in (*convolutions, *([stage.pool] if stage.pool else [])):
            sides = _sides_after(layer, sides)
            if min(sides) < 1:
                return f"{name}'s pool" if layer is stage.pool else name
    return None


def smallest_image(variant: Variant, blocks: Blocks | None = None) -> int:
    """Return the side of the smallest square image for which every map has pixels.

    If none of up to `MAX_SIDE` is large enough, it is `MAX_SIDE` + 1.
    """
    blocks = blocks or blocks_of(variant)

    def is_enough(side: int) -> bool:  # a larger image has no smaller map
        return _first_vanishing(variant, blocks, (side, side)) is None

    return 1 + bisect_left(range(1, MAX_SIDE + 1), True, key=is_enough)


def check_image_size(
    variant: Variant, image_size: ImageSize, blocks: Blocks | None = None
) -> tuple[int, int]:
    """Return (height, width) after checking that every block's map has pixels.

    Args:
        variant: of the network.
        image_size: to check.
        blocks: the network's convolutions, if they may differ from the variant's.

    Raises:
        UserError: a map vanishes; the message names its block and the smallest size that works.
    """
    sides = as_height_width(image_size)
    blocks = blocks or blocks_of(variant)
    if where := _first_vanishing(variant, blocks, sides):
        least = smallest_image(variant, blocks)
        works = f"the smallest size that works is {least}x{least}"
        if least > MAX_SIDE:
            works = f"no size up to {MAX_SIDE:,} works"
        raise UserError(
            f"image size {sides[0]}x{sides[1]} is too small for {variant.name}: the map of "
            f"{where} vanishes; {works}"
        )
    return sides


def trace(
    variant: Variant, in_channels: int, num_classes: int, image_size: ImageSize | None
) -> list[Layer]:
    """Return the layers of the network at this image size, in the order of execution.

    Args:
        variant: the network.
        in_channels: of the images.
        num_classes: the number of logits.
        image_size: side in pixels, or (height, width); None for the variant's.

    Raises:
        UserError: a count is below 1, the image is too small, or the network is larger than the
            bounds above.
    """
    for name, value in (("in_channels", in_channels), ("num_classes", num_classes)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"{name} must be a whole number >= 1, got {shown(value)}")
    blocks = blocks_of(variant, in_channels, num_classes)
    image_size = variant.image_size if image_size is None else image_size
    return trace_blocks(variant, blocks, num_classes, image_size)


def trace_blocks(
    variant: Variant, blocks: Blocks, num_classes: int, image_size: ImageSize
) -> list[Layer]:
    """Return the layers of a network whose convolutions may differ from its variant's.

    Args:
        variant: gives the pools, the dropout and the kind of classifier.
        blocks: the convolutions of each block, the head last.
        num_classes: the number of logits.
        image_size: side in pixels, or (height, width).

    Raises:
        UserError: the image is too small, or the network is larger than the bounds above.
    """
    sides = check_image_size(variant, image_size, blocks)
    layers: list[Layer] = []
    channels = blocks[0][0].in_channels
    for block, stage, convolutions in _stages(variant, blocks):
        if stage is variant.head:
            layers.append(_dropout_layer("dropout", variant.dropout, (*sides, channels)))
        for i, conv in enumerate(convolutions, start=1):
            layers.append(_conv_layer(f"{block}.conv{i}", conv, sides))
            sides = _sides_after(conv, sides)
            channels = conv.out_channels
        if stage.pool:
            layers.append(_pool_layer(f"{block}.pool", stage.pool, sides, channels))
            sides = _sides_after(stage.pool, sides)
        if stage.dropout:
            shape = (*sides, channels)
            layers.append(_dropout_layer(f"{block}.dropout", stage.dropout, shape))
    layers.append(_classifier_layer(variant, sides, channels, num_classes))
    _check_sizes(variant, layers)
    return layers


def _check_sizes(variant: Variant, layers: list[Layer]) -> None:
    """Check the network's size before any memory is allocated for it."""
    params = sum(layer.params for layer in layers)
    if params > MAX_PARAMS:
        raise UserError(
            f"{variant.name} would have {shown(params)} parameters, more than {MAX_PARAMS:,}"
        )
    for layer in layers:
        maps = max(math.prod(layer.in_shape), math.prod(layer.out_shape))
        if maps > MAX_MAPS:
            raise UserError(
                f"{variant.name}: the maps of {layer.name} would hold {shown(maps)} numbers for "
                f"one image, more than {MAX_MAPS:,}"
            )


def _conv_layer(name: str, conv: Convolution, in_sides: tuple[int, int]) -> Layer:
    sides = _sides_after(conv, in_sides)
    weights = conv.kernel**2 * conv.in_channels * conv.out_channels
    detail = f"{conv.kernel}x{conv.kernel}, {conv.in_channels} -> {conv.out_channels}"
    detail += f" /{conv.stride}" if conv.stride > 1 else ""
    detail += f" pad {conv.padding}" if conv.padding else ""
    return Layer(
        name,
        "conv",
        detail,
        (*in_sides, conv.in_channels),
        (*sides, conv.out_channels),
        params=weights + conv.out_channels,
        macs=weights * math.prod(sides),
        convolution=conv,
    )


def _pool_layer(name: str, pool: Pool, in_sides: tuple[int, int], channels: int) -> Layer:
    detail = f"{pool.kind} {pool.size}x{pool.size} /{pool.stride}"
    detail += f" pad {pool.padding}" if pool.padding else ""
    detail += " rounded up" if pool.round_up else ""
    if pool.kind == "average" and pool.padding and not pool.count_padding:
        detail += " without padding"  # in the divisor
    shapes = (*in_sides, channels), (*_sides_after(pool, in_sides), channels)
    return Layer(name, "pool", detail, *shapes, pool=pool)


def _dropout_layer(name: str, rate: float, shape: tuple[int, int, int]) -> Layer:
    return Layer(name, "dropout", f"p={rate:g}", shape, shape, dropout=rate)


def _classifier_layer(
    variant: Variant, sides: tuple[int, int], channels: int, num_classes: int
) -> Layer:
    shape = (*sides, channels)
    if variant.classifier == "mean":
        return Layer("mean", "mean", f"{sides[0]}x{sides[1]}", shape, (num_classes,))
    features = math.prod(sides) * channels
    return Layer(
        "linear",
        "linear",
        f"{features} -> {num_classes}",
        shape,
        (num_classes,),
        params=(features + 1) * num_classes,
        macs=features * num_classes,
    )
