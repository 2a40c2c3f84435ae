"""The networks as data: what a NiN is, before any framework.

A network is a list of stages. A stage is one NiN block (Lin, Chen and Yan, "Network in
Network", 2013, section 3.1: a convolution and a small perceptron slid over its map, which is
a chain of 1x1 convolutions; ReLU after each) and, usually, a pool. Dropout stands before the last
block, the head, which ends with one channel per class; its maps are averaged (section 3.2) or, in
``nin_fc``, flattened into a linear layer.

This file imports no deep-learning framework.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from nin_jax.errors import UserError, unknown_name
from nin_jax.models.stages import TWO_1X1, ImageSize, Pool, Stage
from nin_jax.reading import parse_json, read_text, shown
from nin_jax.validation import FAIL_FAST, Fraction, from_json, to_json, validated

# Bounds far above any sensible network, so that a slip or a hostile file gives an error.
MAX_CONVOLUTIONS = 1000
MAX_NAME, MAX_RATE = 100, 1e30
MAX_FILE_BYTES = 2**18
# The memory of Python's TOML reader grows with the square of the number of parts in a dotted key: a
# quarter of a megabyte of "a.a.a..." fills any machine. A variant's keys have at most two parts.
MAX_DOTS = 16


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
        head: the last block, without a pool; its last convolution has one channel per class.
        classifier: "mean", the global mean of each of the head's maps, or "linear", the maps
            flattened in channel, row, column order into a linear layer.
        dropout: rate of the dropout before the head, in [0, 1).
        published_lr: learning rate that the published exercise gives for plain SGD.
        image_size: side in pixels, or (height, width), of the images that it was published for:
            what the recipes resize to.

    Raises:
        UserError: a field is out of range, the channels do not fit the convolutions, the head has a
            pool or a dropout, or there are more than 1,000 convolutions.
    """

    name: Annotated[str, AfterValidator(_file_name)]
    stages: Annotated[tuple[Stage, ...], FAIL_FAST]
    head: Stage = Stage(None, 3, padding=1, pool=None)
    classifier: Literal["mean", "linear"] = "mean"
    dropout: Fraction = 0.5
    published_lr: Annotated[float, Field(gt=0, lt=MAX_RATE)] = 0.1
    image_size: ImageSize = 224

    def __post_init__(self) -> None:
        for i, stage in enumerate(self.stages):
            self._check_widths(stage, f"stage {i}", 1 + len(stage.mlp))
            if stage.channels is None:
                raise UserError(
                    f"variant {self.name!r}: every stage before the head needs channels"
                )
        self._check_widths(self.head, "the head", len(self.head.mlp))
        if isinstance(self.head.channels, int) or self.head.pool or self.head.dropout:
            raise UserError(
                f"variant {self.name!r}: the head must have channels=None, or one number for each "
                "convolution but the last, and neither pool nor dropout"
            )
        convolutions = sum(1 + len(stage.mlp) for stage in (*self.stages, self.head))
        if convolutions > MAX_CONVOLUTIONS:
            raise UserError(
                f"variant {self.name!r}: {convolutions:,} convolutions are more than "
                f"{MAX_CONVOLUTIONS:,}"
            )

    def _check_widths(self, stage: Stage, where: str, wanted: int) -> None:
        given = len(stage.channels) if isinstance(stage.channels, tuple) else wanted
        if given != wanted:
            raise UserError(
                f"variant {self.name!r}: {where} has {1 + len(stage.mlp)} convolutions, so its "
                f"channels must be one number or {wanted} of them, got {given}"
            )


def _d2l_family(name: str, **changes: Any) -> Variant:
    """Build a network like the d2l book's.

    ``mlp`` is that of every block, the head included, and ``pool`` that after each other block.
    """
    mlp, pool = changes.pop("mlp", TWO_1X1), changes.pop("pool", Pool())
    stages = (
        Stage(96, 11, stride=4, mlp=mlp, pool=pool),
        Stage(256, 5, padding=2, mlp=mlp, pool=pool),
        Stage(384, 3, padding=1, mlp=mlp, pool=pool),
    )
    head = Stage(None, 3, padding=1, mlp=mlp, pool=None)
    return Variant(name, **({"stages": stages, "head": head} | changes))


def _vgg_family(name: str, depths: tuple[int, int, int, int]) -> Variant:
    """Build a network with small kernels, like VGG (Simonyan and Zisserman 2014): question 6.

    Four stages of 64, 256, 256 and 384 channels, each of ``depth`` NiN blocks of 3x3 convolutions
    and a pool; the very first convolution has stride 2. With the head, a network of B blocks has
    3 B convolutions, which is its name. Depths of (1, 1, 1, 1) are the published nin15; as from
    VGG-11 to VGG-16 and VGG-19, depth is added where the maps are small: (1, 1, d, d).
    """
    stages: list[Stage] = []
    for channels, depth in zip((64, 256, 256, 384), depths, strict=True):
        block = Stage(channels, 3, padding=1, pool=None)
        stages += [block] * (depth - 1) + [replace(block, pool=Pool())]
    stages[0] = replace(stages[0], stride=2)
    return Variant(name, stages=tuple(stages), published_lr=0.05)


def _gradual(name: str, kernel: int) -> Variant:
    """Build a network that goes from 384 channels to one per class in three steps: question 5."""
    nin = _d2l_family(name, published_lr=0.03)
    steps = [Stage(n, kernel, padding=kernel // 2, pool=None) for n in (192, 48)]
    return replace(nin, stages=(*nin.stages, *steps))


def _cifar_family(name: str, first: Pool, second: Pool) -> Variant:
    """Build the paper's network for CIFAR-10, CIFAR-100 and SVHN (section 4), for images of 32x32.

    The widths differ within a block: the source is the authors' definition for cuda-convnet.
    """
    return Variant(
        name,
        stages=(
            Stage((192, 160, 96), 5, padding=2, pool=first, dropout=0.5),
            Stage((192, 192, 192), 5, padding=2, pool=second),
        ),
        head=Stage((192, 192), 3, padding=1, pool=None),
        image_size=32,
    )


def _pytorchcv_family(name: str) -> Variant:
    """Build the same network as pytorchcv has it: padded pools, rounded down."""
    return _cifar_family(name, Pool(padding=1), Pool("average", padding=1))


_EXERCISE = (
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
_CLASSICS = (
    _pytorchcv_family("nin_cifar10"),
    _pytorchcv_family("nin_cifar100"),
    _pytorchcv_family("nin_svhn"),
    # As published: two max pools without padding, rounded up.
    _cifar_family("nin_paper", Pool(round_up=True), Pool(round_up=True)),
    # The authors' network for ImageNet, as in the Caffe model zoo: its pools round up.
    _d2l_family(
        "nin_imagenet",
        pool=Pool(round_up=True),
        head=Stage((1024, 1024), 3, padding=1, pool=None),
    ),
)
VARIANTS: Mapping[str, Variant] = {variant.name: variant for variant in (*_EXERCISE, *_CLASSICS)}

# What the study and the benchmarks compare: networks for images of one size.
EXERCISE = tuple(variant.name for variant in _EXERCISE)


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
            _check_stage(stage, f"stage {i}")
    if "head" in plain:  # TOML has no null, so a head may leave its channels out
        _check_stage(plain["head"], "head")
        plain["head"] = {"channels": None, "pool": None, **plain["head"]}
    return from_json(Variant, plain)


def _check_stage(stage: object, what: str) -> None:
    _check_fields(Stage, stage, what)
    pool = stage.get("pool") if isinstance(stage, Mapping) else None
    if isinstance(pool, Mapping):
        _check_fields(Pool, pool, f"{what}'s pool")
        if isinstance(kind := pool.get("kind", "max"), str) and kind not in ("max", "average"):
            raise unknown_name(f"kind of {what}'s pool", kind[:MAX_NAME], ("max", "average"))
        try:
            from_json(Pool, pool)
        except UserError as error:  # a field's name alone would not say which pool it is
            raise UserError(f"{what}'s pool: {error}") from None


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
