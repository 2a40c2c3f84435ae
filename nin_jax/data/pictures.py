"""Image files, read as a model takes them."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nin_jax.errors import UserError, reason
from nin_jax.models.preprocessing import MAX_PIXELS, Preprocessing
from nin_jax.reading import check_file

if TYPE_CHECKING:
    from PIL import Image

MAX_FILE_BYTES = 2**30
STRETCH = Preprocessing()

# Pillow's names of the kinds that training and prediction read. No other decoder is tried: some of
# them run another program, such as Ghostscript, or take any file for a picture.
FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000"),
    *("DIB", "ICO", "PCX", "QOI", "SGI"),
)


class Header(NamedTuple):
    """What is known of a picture from its header.

    Attributes:
        size: (height, width) in pixels, after its EXIF orientation is applied.
        is_gray: whether its mode is gray; palettes and gray saved as RGB are not.
        is_animated: whether it has several frames.
    """

    size: tuple[int, int]
    is_gray: bool
    is_animated: bool


def header(path: str | Path) -> Header:
    """Read the header of a picture; pixels only if they are of 16 bits and may be too dark.

    Several threads may do this at the same time.

    Raises:
        UserError: as `decode`, except for damage behind the header.
    """
    from PIL import ExifTags, Image

    with opened(path) as image:
        _check_depth(image)
        is_gray = image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I")
        # PNG's own getexif would decode the picture, to look for EXIF behind the pixels.
        exif = Image.Image.getexif(image)
        # Pillow has already exchanged the sides of a TIFF that its own tag turns.
        is_upright = ExifTags.Base.Orientation in getattr(image, "tag_v2", ())
        turned = not is_upright and exif.get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        width, height = image.size
        size = (width, height) if turned else (height, width)
        return Header(size, is_gray, getattr(image, "is_animated", False))


def read(
    path: str | Path, channels: int, size: tuple[int, int], preprocessing: Preprocessing = STRETCH
) -> np.ndarray:
    """Read an image as `decode` does, and silence Pillow's warnings, for all threads."""
    # Pillow warns about sizes, which are errors here, and about damaged tags, which do no harm.
    with warnings.catch_warnings(action="ignore"):
        return decode(path, channels, size, preprocessing)


def decode(
    path: str | Path, channels: int, size: tuple[int, int], preprocessing: Preprocessing = STRETCH
) -> np.ndarray:
    """Read an image and resize it as torchvision's ``Resize`` does.

    The EXIF orientation is applied, transparent parts become black, and of 16 bits the upper 8 are
    kept. Several threads may do this at the same time; Pillow's warnings are not silenced, because
    Python can silence warnings only for all threads at once.

    Args:
        path: of a file of one of the `FORMATS`, whatever its suffix. Of an animation, the first
            frame is read.
        channels: 1 for grayscale, 3 for color.
        size: (height, width) in pixels.
        preprocessing: its rule says how the image gets this size. "stretch" is torchvision's
            ``Resize((height, width))``, "crop" is ``Resize(side)`` and ``CenterCrop(side)``.

    Returns:
        uint8 [height, width, channels].

    Raises:
        UserError: the file is not an image, is damaged, has more than 89 million pixels (the limit
            at which Pillow itself only warns), or has pixels whose white is not known.
    """
    from PIL import Image

    height, width = size
    with opened(path) as image:
        image = _upright(image, channels)
        h, w, top, left = preprocessing.cut((image.height, image.width), size)
        image = image.resize((w, h), Image.Resampling.BILINEAR)
        image = image.crop((left, top, left + width, top + height))
        return np.asarray(image).reshape(height, width, channels)


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator["Image.Image"]:
    """Open an image; only its header is read.

    Raises:
        UserError: as `decode`; also for every other error while the image is open.
    """
    from PIL import Image

    problem = f"cannot read {str(path)!r}"
    check_file(path, MAX_FILE_BYTES, problem)
    try:
        with Image.open(path, formats=formats()) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width}x{image.height} is too large")
            yield image
    except Exception as error:  # Pillow's decoders raise many types for damaged files
        text = reason(error)
        if text.startswith("cannot identify"):
            text = "not an image format that Pillow can read"
        raise UserError(f"{problem}: {text}") from None


def _upright(image: "Image.Image", channels: int) -> "Image.Image":
    """Convert an image to grayscale or color, apply its EXIF orientation, and remove alpha."""
    from PIL import Image, ImageOps

    _check_depth(image)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits: keep the upper byte, Pillow would clip to white
        image = Image.fromarray((np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image)
    return image.convert("L" if channels == 1 else "RGB")


def formats() -> list[str]:
    """Return those of `FORMATS` that this build of Pillow can read."""
    from PIL import Image

    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _check_depth(image: "Image.Image") -> None:
    """Refuse pixels whose white is not known: they would be read as black, or clipped to white.

    White is 255 for 8 bits, 65535 for 16 bits, and what a PPM file states. 16-bit values that all
    have their upper 4 bits at 0 are probably 8 to 12 bits in a 16-bit file.
    """
    save = "save the picture with 8 bits"
    if image.mode == "F":
        raise ValueError(f"floating-point pixels, for which no white value is defined; {save}")
    if image.mode == "I" and image.format not in ("PPM", "PNG"):
        raise ValueError(f"32-bit or signed pixels, for which no white value is defined; {save}")
    is_gray = image.mode.startswith("I")
    if image.format == "PPM" or not (is_gray or ";16" in str(getattr(image, "tile", ""))):
        return
    # Of 16-bit color Pillow keeps the upper byte only.
    pixels = np.asarray(image if is_gray else image.convert("RGB"))
    brightest = pixels.max() / 256 if is_gray else pixels.max()
    if brightest < 16 and not (is_gray and brightest == 0):
        raise ValueError(
            "16-bit pixels, all below 4096 of 65535, which is almost black: if they have 12 bits "
            f"or less, scale them to 65535, or {save}"
        )
