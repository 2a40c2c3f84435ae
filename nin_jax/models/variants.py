"""The networks as data: what a NiN is, before any framework.

A network is a list of stages. A stage is one NiN block (Lin, Chen and Yan, "Network in
Network", 2013, section 3.1: a convolution and a small perceptron slid over its map, which is
a chain of 1x1 convolutions; ReLU after each) and, usually, a 3x3 max pool of stride 2.
Dropout stands before the last block, the head, which has one channel per class; its maps are
averaged (section 3.2) or, in ``nin_fc``, flattened into a linear layer.

This file imports no framework, so that command lines, reports and tests can read it for free.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from nin_jax.errors import UserError, unknown_name
from nin_jax.reading import parse_json, read_text, shown

POOL_SIZE, POOL_STRIDE = 3, 2

# Bounds far above any sane network, so that a slip or a hostile file is an error and not a machine
# without memory. A side is an image's, a kernel's, a stride's or a padding's, in pixels.
MAX_SIDE, MAX_CHANNELS = 2**14, 2**16
MAX_CONVOLUTIONS = 1000
MAX_NAME, MAX_RATE = 100, 1e30
MAX_FILE_BYTES = 2**18
# Python's TOML reader takes memory with the square of the parts of a dotted key: a quarter of a
# megabyte of "a.a.a..." fills any machine. A variant's keys have two parts at most.
MAX_DOTS = 16

ImageSize = int | tuple[int, int]
TWO_1X1 = ((1, 0), (1, 0))


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(message)


def _is_int(value: object, minimum: int, maximum: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= maximum


def _is_number(value: object) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool)


@dataclass(frozen=True)
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

    channels: int | None
    kernel: int
    stride: int = 1
    padding: int = 0
    mlp: tuple[tuple[int, int], ...] = TWO_1X1
    pool: bool = True

    def __post_init__(self) -> None:
        _require(
            self.channels is None or _is_int(self.channels, 1, MAX_CHANNELS),
            f"stage: channels must be a whole number >= 1 and <= {MAX_CHANNELS:,}, got "
            f"{shown(self.channels)}",
        )
        for name, minimum in (("kernel", 1), ("stride", 1), ("padding", 0)):
            value = getattr(self, name)
            _require(
                _is_int(value, minimum, MAX_SIDE),
                f"stage: {name} must be a whole number >= {minimum} and <= {MAX_SIDE:,}, got "
                f"{shown(value)}",
            )
        pairs = self.mlp
        _require(
            isinstance(pairs, tuple)
            and all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs)
            and all(
                _is_int(kernel, 1, MAX_SIDE) and _is_int(padding, 0, MAX_SIDE)
                for kernel, padding in pairs
            ),
            "stage: mlp must be (kernel, padding) pairs such as ((1, 0), (1, 0)), got "
            f"{shown(pairs)}",
        )
        _require(
            isinstance(self.pool, bool),
            f"stage: pool must be true or false, got {shown(self.pool)}",
        )

    def convolutions(self, in_channels: int, num_classes: int) -> Iterator["Convolution"]:
        """The block's convolutions in order, with every channel count filled in."""
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


@dataclass(frozen=True)
class Variant:
    """A whole network: stages, then dropout, then the head.

    A variant of your own::

        Variant("tiny", stages=(Stage(32, 5, padding=2), Stage(64, 3, padding=1)))

    Attributes:
        name: what reports and files call it: one line of at most 100 characters, no slash.
        stages: the blocks before the head, in order.
        head: the last block; its ``channels`` is None, for the number of classes.
        classifier: "mean", the global mean of each of the head's maps, or "linear", the maps
            flattened in channel, row, column order into a linear layer.
        dropout: rate of the dropout before the head, in [0, 1).
        published_lr: learning rate that the published exercise gives for plain SGD.

    Raises:
        UserError: a field is out of range, or there are more than 1,000 convolutions.
    """

    name: str
    stages: tuple[Stage, ...]
    head: Stage = Stage(None, 3, padding=1, pool=False)
    classifier: Literal["mean", "linear"] = "mean"
    dropout: float = 0.5
    published_lr: float = 0.1

    def __post_init__(self) -> None:
        _require(
            isinstance(self.name, str)
            and 0 < len(self.name) <= MAX_NAME
            and self.name.isprintable()
            and not set(self.name) & set("/\\"),  # it becomes part of file names
            f"variant: name must be 1 to {MAX_NAME} printable characters without slashes, got "
            f"{shown(self.name)}",
        )
        prefix = f"variant {self.name!r}: "
        _require(
            isinstance(self.stages, tuple) and all(isinstance(s, Stage) for s in self.stages),
            f"{prefix}stages must be a tuple of Stage",
        )
        _require(
            all(stage.channels is not None for stage in self.stages),
            f"{prefix}every stage before the head needs channels",
        )
        _require(
            isinstance(self.head, Stage) and self.head.channels is None and not self.head.pool,
            f"{prefix}the head must be a Stage with channels=None and pool=False",
        )
        _require(
            self.classifier in ("mean", "linear"),
            f"{prefix}classifier must be 'mean' or 'linear', got {shown(self.classifier)}",
        )
        _require(
            _is_number(self.dropout) and 0 <= self.dropout < 1,
            f"{prefix}dropout must be in [0, 1), got {shown(self.dropout)}",
        )
        _require(
            _is_number(self.published_lr) and 0 < self.published_lr < MAX_RATE,
            f"{prefix}published_lr must be a finite number > 0, got {shown(self.published_lr)}",
        )
        convolutions = sum(1 + len(stage.mlp) for stage in (*self.stages, self.head))
        _require(
            convolutions <= MAX_CONVOLUTIONS,
            f"{prefix}{convolutions:,} convolutions are more than {MAX_CONVOLUTIONS:,}",
        )


def _d2l_family(name: str, **changes: Any) -> Variant:
    """The d2l book's network; ``mlp`` changes every block, the head's included."""
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
    """Small kernels and growing width, as VGG (Simonyan and Zisserman 2014): question 6.

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
    """From 384 channels to one a class in three steps instead of one: question 5."""
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
    """Names of the built-in variants."""
    return list(VARIANTS)


def get_variant(variant: "str | Path | Variant") -> Variant:
    """The variant of that name, or read from that ``.json`` or ``.toml`` file, or itself.

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
    """Plain data that `variant_from_dict` turns back into an equal variant."""

    def stage_to_dict(stage: Stage) -> dict[str, Any]:
        return {f.name: getattr(stage, f.name) for f in fields(stage)} | {
            "mlp": [list(pair) for pair in stage.mlp]
        }

    plain = {f.name: getattr(variant, f.name) for f in fields(variant)}
    plain["stages"] = [stage_to_dict(stage) for stage in variant.stages]
    plain["head"] = stage_to_dict(variant.head)
    return plain


def variant_from_dict(data: Mapping[str, Any]) -> Variant:
    """The variant that plain data describes.

    Raises:
        UserError: a key is missing or unknown, or a value is out of range.
    """

    def build(cls: type, plain: object, what: str) -> Any:
        _require(
            isinstance(plain, Mapping), f"{what} must be a table of fields, got {shown(plain)}"
        )
        assert isinstance(plain, Mapping)
        names = {f.name for f in fields(cls)}
        for key in plain:
            if key not in names:
                raise unknown_name(f"{what} field", str(key)[:MAX_NAME], names)
        try:
            return cls(**plain)
        except TypeError as error:  # a required field is missing
            missing = str(error).partition("argument")[2].lstrip("s: ")
            raise UserError(f"{what}: missing {missing}") from None

    def stage(plain: object, what: str, **defaults: Any) -> Stage:
        _require(
            isinstance(plain, Mapping), f"{what} must be a table of fields, got {shown(plain)}"
        )
        assert isinstance(plain, Mapping)
        merged = {**defaults, **plain}
        if isinstance(merged.get("mlp"), list):
            merged["mlp"] = tuple(
                tuple(pair) if isinstance(pair, list) else pair for pair in merged["mlp"]
            )
        return build(Stage, merged, what)

    _require(isinstance(data, Mapping), f"variant must be a table of fields, got {shown(data)}")
    plain = dict(data)
    stages = plain.get("stages", [])
    _require(isinstance(stages, list | tuple), "variant: stages must be a list")
    plain["stages"] = tuple(stage(s, f"stage {i}") for i, s in enumerate(stages))
    if "head" in plain:  # TOML has no null, so a head may leave its channels out
        plain["head"] = stage(plain["head"], "head", channels=None, pool=False)
    return build(Variant, plain, "variant")


def _read_variant_file(path: Path) -> Variant:
    text = read_text(path, "variant file ", MAX_FILE_BYTES)
    try:
        data = parse_json(text) if path.suffix == ".json" else _parse_toml(text)
        _require(isinstance(data, dict), "must be a table of fields")
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
