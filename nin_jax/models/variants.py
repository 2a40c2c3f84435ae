"""The networks as data: what a NiN is, before any framework.

A network is a list of stages. A stage is one NiN block (Lin, Chen and Yan, "Network in
Network", 2013, section 3.1: a convolution and a small perceptron slid over its map, which is
a chain of 1x1 convolutions; ReLU after each) and, usually, a 3x3 max pool of stride 2.
Dropout stands before the last block, the head, which has one channel per class; its maps are
averaged (section 3.2) or, in ``nin_fc``, flattened into a linear layer.

This file imports no deep-learning framework.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from nin_jax.errors import UserError, unknown_name
from nin_jax.reading import parse_json, read_text, shown
from nin_jax.validation import FAIL_FAST, Fraction, from_json, to_json, validated

POOL_SIZE, POOL_STRIDE = 3, 2

# Bounds far above any sensible network, so that a slip or a hostile file gives an error instead of
# filling the memory. A side is an image's, a kernel's, a stride's or a padding's, in pixels.
MAX_SIDE, MAX_CHANNELS = 2**14, 2**16
MAX_CONVOLUTIONS = 1000
MAX_NAME, MAX_RATE = 100, 1e30
MAX_FILE_BYTES = 2**18
# The memory of Python's TOML reader grows with the square of the number of parts in a dotted key: a
# quarter of a megabyte of "a.a.a..." fills any machine. A variant's keys have at most two parts.
MAX_DOTS = 16

TWO_1X1 = ((1, 0), (1, 0))


def _side_or_sides(size: object) -> object:
    """Return the size, a list as a tuple; pydantic's message would name one member of the union."""
    sides = tuple(size) if isinstance(size, list) else size
    types = [type(side) for side in sides] if isinstance(sides, tuple) else type(sides)
    if types in (int, [int, int], type(None)):
        return sides
    raise ValueError("must be a whole number, or a height and a width")


ImageSize = Annotated[int | tuple[int, int], BeforeValidator(_side_or_sides)]

Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Padding = Annotated[int, Field(ge=0, le=MAX_SIDE)]


@validated()
class Stage:
    """One NiN block and the max pool after it.

    Attributes:
        channels: output channels of every convolution in the block; None in a head, where it
            is the number of classes.
        kernel: side of the first convolution's square kernel, in pixels.
        stride: stride of the first convolution.
        padding: zeros added on each side before the first convolution.
        mlp: (kernel, padding) of each convolution that follows, all of stride 1; the paper's
            1x1 convolutions are ``(1, 0)``.
        pool: whether a 3x3 max pool of stride 2 follows the block; never after a head.

    Raises:
        UserError: a field is not a whole number in its range.
    """

    channels: Annotated[int, Field(ge=1, le=MAX_CHANNELS)] | None
    kernel: Side
    stride: Side = 1
    padding: Padding = 0
    mlp: Annotated[tuple[tuple[Side, Padding], ...], FAIL_FAST] = TWO_1X1
    pool: bool = True

    def convolutions(self, in_channels: int, num_classes: int) -> Iterator["Convolution"]:
        """Return the block's convolutions in order, with every channel count filled in."""
        channels = self.channels or num_classes
        yield Convolution(in_channels, channels, self.kernel, self.stride, self.padding)
        for kernel, padding in self.mlp:
            yield Convolution(channels, channels, kernel, 1, padding)


@dataclass(frozen=True)
class Convolution:
    """One square convolution with bias: input and output channels, kernel, stride, padding."""

    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    padding: int


def _file_name(name: str) -> str:
    """Check a name that becomes part of file names."""
    if not (0 < len(name) <= MAX_NAME and name.isprintable()) or set(name) & set("/\\"):
        raise ValueError(f"must be 1 to {MAX_NAME} printable characters without slashes")
    return name


@validated()
class Variant:
    """A whole network: stages, then dropout, then the head.

    Example::

        Variant("tiny", stages=(Stage(32, 5, padding=2), Stage(64, 3, padding=1)))

    Attributes:
        name: used in reports and file names: one line of at most 100 characters, no slash.
        stages: the blocks before the head, in order.
        head: the last block; its ``channels`` is None, for the number of classes.
        classifier: "mean", the global mean of each of the head's maps, or "linear", the maps
            flattened in channel, row, column order into a linear layer.
        dropout: rate of the dropout before the head, in [0, 1).
        published_lr: learning rate that the published exercise gives for plain SGD.

    Raises:
        UserError: a field is out of range, or there are more than 1,000 convolutions.
    """

    name: Annotated[str, AfterValidator(_file_name)]
    stages: Annotated[tuple[Stage, ...], FAIL_FAST]
    head: Stage = Stage(None, 3, padding=1, pool=False)
    classifier: Literal["mean", "linear"] = "mean"
    dropout: Fraction = 0.5
    published_lr: Annotated[float, Field(gt=0, lt=MAX_RATE)] = 0.1

    def __post_init__(self) -> None:
        if any(stage.channels is None for stage in self.stages):
            raise UserError(f"variant {self.name!r}: every stage before the head needs channels")
        if self.head.channels is not None or self.head.pool:
            raise UserError(
                f"variant {self.name!r}: the head must be a Stage with channels=None and pool=False"
            )
        convolutions = sum(1 + len(stage.mlp) for stage in (*self.stages, self.head))
        if convolutions > MAX_CONVOLUTIONS:
            raise UserError(
                f"variant {self.name!r}: {convolutions:,} convolutions are more than "
                f"{MAX_CONVOLUTIONS:,}"
            )


def _d2l_family(name: str, **changes: Any) -> Variant:
    """Build a network like the d2l book's; ``mlp`` is that of every block, the head included."""
    mlp = changes.pop("mlp", TWO_1X1)
    return Variant(
        name,
        stages=(
            Stage(96, 11, stride=4, mlp=mlp),
            Stage(256, 5, padding=2, mlp=mlp),
            Stage(384, 3, padding=1, mlp=mlp),
        ),
        head=Stage(None, 3, padding=1, mlp=mlp, pool=False),
        **changes,
    )


def _vgg_family(name: str, depths: tuple[int, int, int, int]) -> Variant:
    """Build a network with small kernels, like VGG (Simonyan and Zisserman 2014): question 6.

    Four stages of 64, 256, 256 and 384 channels, each of ``depth`` NiN blocks of 3x3 convolutions
    and a pool; the very first convolution has stride 2. With the head, a network of B blocks has
    3 B convolutions, which is its name. Depths of (1, 1, 1, 1) are the published nin15; as from
    VGG-11 to VGG-16 and VGG-19, depth is added where the maps are small: (1, 1, d, d).
    """
    stages: list[Stage] = []
    for channels, depth in zip((64, 256, 256, 384), depths, strict=True):
        for i in range(depth):
            stride = 1 if stages else 2
            stages.append(Stage(channels, 3, stride, padding=1, pool=i == depth - 1))
    return Variant(name, stages=tuple(stages), published_lr=0.05)


def _gradual(name: str, kernel: int) -> Variant:
    """Build a network that goes from 384 channels to one per class in three steps: question 5."""
    nin = _d2l_family(name, published_lr=0.03)
    steps = [Stage(n, kernel, padding=kernel // 2, pool=False) for n in (192, 48)]
    return replace(nin, stages=(*nin.stages, *steps))


VARIANTS: Mapping[str, Variant] = {
    variant.name: variant
    for variant in (
        _d2l_family("nin", published_lr=0.03),
        _d2l_family("nin_one_1x1", mlp=((1, 0),), published_lr=0.05),
        _d2l_family("nin_three_1x1", mlp=((1, 0), (1, 0), (1, 0))),
        _d2l_family("nin_3x3", mlp=((3, 1), (3, 1))),
        _d2l_family("nin_fc", classifier="linear"),
        _gradual("nin_gradual", kernel=3),
        _gradual("nin_gradual_1x1", kernel=1),
        _vgg_family("nin15", (1, 1, 1, 1)),
        _vgg_family("nin21", (1, 1, 2, 2)),
        _vgg_family("nin27", (1, 1, 3, 3)),
    )
}


def list_variants() -> list[str]:
    """Return the names of the built-in variants."""
    return list(VARIANTS)


def get_variant(variant: "str | Path | Variant") -> Variant:
    """Return a built-in variant by name, one from a ``.json`` or ``.toml`` file, or itself.

    Raises:
        UserError: no such name or file, or the file does not describe a variant.
    """
    if isinstance(variant, Variant):
        return variant
    if not isinstance(variant, str | Path):
        raise UserError(f"variant must be a name, a file or a Variant, got {shown(variant)}")
    if str(variant) in VARIANTS:
        return VARIANTS[str(variant)]
    if Path(variant).suffix in (".json", ".toml"):
        return _read_variant_file(Path(variant))
    raise unknown_name("variant", str(variant)[:MAX_NAME], VARIANTS)


def variant_to_dict(variant: Variant) -> dict[str, Any]:
    """Return plain data that `variant_from_dict` turns back into an equal variant."""
    return to_json(variant)


def variant_from_dict(data: Mapping[str, Any]) -> Variant:
    """Return the variant that plain data describe.

    Raises:
        UserError: a key is missing or unknown, or a value is out of range.
    """
    _check_fields(Variant, data, "variant")
    plain: dict[str, Any] = {"stages": [], **data}
    if isinstance(plain["stages"], list | tuple):
        for i, stage in enumerate(plain["stages"]):
            _check_fields(Stage, stage, f"stage {i}")
    if "head" in plain:  # TOML has no null, so a head may leave its channels out
        _check_fields(Stage, plain["head"], "head")
        plain["head"] = {"channels": None, "pool": False, **plain["head"]}
    return from_json(Variant, plain)


def _check_fields(cls: type, plain: object, what: str) -> None:
    if not isinstance(plain, Mapping):
        raise UserError(f"{what} must be a table of fields, got {shown(plain)}")
    names = {field.name for field in fields(cls)}
    for key in plain:
        if key not in names:
            raise unknown_name(f"{what} field", str(key)[:MAX_NAME], names)


def _read_variant_file(path: Path) -> Variant:
    text = read_text(path, "variant file ", MAX_FILE_BYTES)
    try:
        data = parse_json(text) if path.suffix == ".json" else _parse_toml(text)
        if not isinstance(data, dict):
            raise ValueError("must be a table of fields")
        return variant_from_dict({"name": path.stem, **data})
    except ValueError as error:  # JSON, TOML and UserError are ValueErrors
        raise UserError(f"variant file {path}: {error}") from None


def _parse_toml(text: str) -> dict[str, Any]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.count(".") > MAX_DOTS and not line.lstrip().startswith("#"):
            raise ValueError(f"line {number} has more than {MAX_DOTS} dots")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
