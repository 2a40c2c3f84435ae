"""What a network does to its images before the first layer, as data that travels with its weights.

This file imports no deep-learning framework.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import numpy as np
from pydantic import Field

from nin_jax.errors import UserError
from nin_jax.reading import parse_json
from nin_jax.validation import FAIL_FAST, from_file, to_json, validated

MAX_PIXELS = 89_478_485  # of a picture, as read and as resized; at this size Pillow warns
KEY = "preprocessing"  # in config.json, and in the metadata of a safetensors file

# Far above what any network uses, and small enough that no float32 overflows.
Mean = Annotated[float, Field(ge=-1e6, le=1e6)]
Divisor = Annotated[float, Field(ge=1e-6, le=1e6)]

ArrayT = TypeVar("ArrayT", bound=Any)


class Cut(NamedTuple):
    """How a picture gets a network's size: resize it to height x width, then cut out the center.

    The center begins at the row ``top`` and the column ``left``.
    """

    height: int
    width: int
    top: int
    left: int


@validated(kw_only=True)
class Preprocessing:
    """How a network prepares its images, float [B, H, W, C] in [0, 1].

    The order of the channels is reversed if ``channel_order`` is "bgr". The first layer then gets
    ``(images * scale - mean) / std``. The model does this itself, so training, evaluation,
    prediction and class maps agree. The default leaves images as they are.

    Example::

        caffe = Preprocessing(scale=255, mean=(104, 117, 123), channel_order="bgr", resize="crop")

    Attributes:
        scale: factor of the images: 255 for a network that was trained on 0..255.
        mean: of the scaled images: one value for each channel, in the order of the network's
            channels; one for all channels; or none.
        std: standard deviation, in the same form.
        channel_order: of the network. Images are RGB; "bgr" needs three channels.
        resize: how a picture gets the network's size: "stretch" resizes it, whatever its
            proportions; "crop" scales the shorter side and cuts out the center.
        crop_fraction: the part of the resized picture's height and width that is cut out: 0.875
            for a network that gets the central 224x224 pixels of 256x256.

    Raises:
        UserError: a field is out of range.
    """

    scale: Divisor = 1.0
    mean: Annotated[tuple[Mean, ...], FAIL_FAST] = ()
    std: Annotated[tuple[Divisor, ...], FAIL_FAST] = ()
    channel_order: Literal["rgb", "bgr"] = "rgb"
    resize: Literal["stretch", "crop"] = "stretch"
    crop_fraction: Annotated[float, Field(ge=0.01, le=1)] = 1.0

    def check(self, in_channels: int) -> None:
        """Check that the values fit the number of channels.

        Raises:
            UserError: the number of values differs, or the order is BGR and the images do not have
                three channels.
        """
        for name in ("mean", "std"):
            if (count := len(getattr(self, name))) not in (0, 1, in_channels):
                raise UserError(
                    f"preprocessing: {name} has {count:,} values for {in_channels:,} "
                    f"channel{'s' if in_channels > 1 else ''}"
                )
        if self.channel_order == "bgr" and in_channels != 3:
            raise UserError(f"preprocessing: BGR needs 3 channels, the images have {in_channels:,}")

    def apply(self, images: ArrayT) -> ArrayT:
        """Return the first layer's input for images, float [B, H, W, C] in [0, 1]; same dtype."""
        x = images[..., ::-1] if self.channel_order == "bgr" else images
        x = x * x.dtype.type(self.scale) if self.scale != 1 else x
        x = x - np.asarray(self.mean, x.dtype) if self.mean else x
        return x / np.asarray(self.std, x.dtype) if self.std else x

    def cut(self, size: tuple[int, int], wanted: tuple[int, int]) -> Cut:
        """Return how to resize and cut a picture. One that has the wanted size stays as it is.

        Args:
            size: (height, width) of the picture.
            wanted: (height, width) that the network takes.

        Raises:
            UserError: the picture is so narrow that it would have too many pixels.
        """
        if size == wanted:
            return Cut(*size, 0, 0)
        h, w = (int(side / self.crop_fraction) for side in wanted)
        if self.resize == "crop":  # the smallest size of its proportions that covers h x w
            (height, width), (rows, columns) = size, (h, w)
            if width * rows >= height * columns:
                w = width * rows // height
            else:
                h = height * columns // width
        if h * w > MAX_PIXELS:
            raise UserError(f"{size[1]}x{size[0]} pixels are too narrow to be cropped")
        return Cut(h, w, round((h - wanted[0]) / 2), round((w - wanted[1]) / 2))

    def __str__(self) -> str:
        parts = ["channels in the order BGR"] if self.channel_order == "bgr" else []
        for what in ("scale", "mean", "std"):
            value = getattr(self, what)
            if value not in (1, ()):
                numbers = value if isinstance(value, tuple) else (value,)
                parts.append(f"{what} {', '.join(f'{number:.4g}' for number in numbers)}")
        if self.resize == "crop":
            parts.append("pictures scaled by their shorter side, center cut out")
        if self.crop_fraction < 1:
            parts.append(f"the center {self.crop_fraction:.4g} of a picture")
        return "; ".join(parts) or "none"


def to_metadata(preprocessing: Preprocessing) -> dict[str, str] | None:
    """Return the metadata of a safetensors file, which holds only strings; None for the default."""
    if preprocessing == Preprocessing():
        return None
    return {KEY: json.dumps(to_json(preprocessing))}


def from_metadata(metadata: Mapping[str, str] | None, path: str | Path) -> Preprocessing | None:
    """Return what the metadata of a safetensors file say; None if they say nothing.

    Raises:
        UserError: the metadata are damaged.
    """
    if metadata is None or KEY not in metadata:
        return None
    try:
        plain = parse_json(metadata[KEY])
        if not isinstance(plain, dict):
            raise ValueError("not an object")
    except ValueError as error:
        raise UserError(f"{path}: its {KEY} is damaged: {error}") from None
    return from_file(Preprocessing, plain, Path(f"{path}, {KEY},"), complete=False)
