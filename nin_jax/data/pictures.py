"""Image files, read as a model takes them."""

import contextlib
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nin_jax.errors import UserError
from nin_jax.reading import check_file

if TYPE_CHECKING:
    from PIL import Image

MAX_FILE_BYTES = 2**30

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"})


def find(paths: Iterable[Path]) -> list[Path]:
    """Return the given files, and the image files in the given folders, sorted by name.

    Raises:
        UserError: a path does not exist, or a folder holds no image.
    """
    found: list[Path] = []
    for path in paths:
        if not os.path.exists(path):  # Path.exists raises where a name is too long
            raise UserError(f"there is no {path}")
        try:
            inside = [path] if not path.is_dir() else sorted(_images_in(path))
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from None
        if not inside:
            raise UserError(f"no images in {path}: none of {', '.join(sorted(SUFFIXES))}")
        found += inside
    return found


def _images_in(folder: Path) -> Iterator[Path]:
    return (p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())


def read(path: Path, channels: int, size: tuple[int, int]) -> np.ndarray:
    """Read an image and resize it as torchvision's ``Resize((height, width))`` does.

    The EXIF orientation is applied, and transparent parts become black.

    Args:
        path: of a file in any format that Pillow reads without another program. Of an animation,
            the first frame is read.
        channels: 1 for grayscale, 3 for color.
        size: (height, width) in pixels.

    Returns:
        uint8 [height, width, channels].

    Raises:
        UserError: the file is not an image, is damaged, or has more than 89 million pixels (the
            limit at which Pillow itself only warns).
    """
    from PIL import Image

    height, width = size
    # Pillow warns about sizes, which are errors here, and about damaged tags, which do no harm.
    with warnings.catch_warnings(action="ignore"), opened(path, f"cannot read {path}") as image:
        image = upright(image, channels).resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(image).reshape(height, width, channels)


@contextlib.contextmanager
def opened(
    path: str | Path, problem: str, formats: Iterable[str] | None = None
) -> Iterator["Image.Image"]:
    """Open an image; only its header is read. Several threads may do this at the same time.

    Pillow's warnings, for example about damaged tags, are not silenced, because Python can silence
    warnings only for all threads at once.

    Args:
        path: of the file.
        problem: the start of every message.
        formats: the allowed formats, by Pillow's names; by default `safe_formats()`.

    Raises:
        UserError: as `read`; also for every other error while the image is open.
    """
    from PIL import Image

    check_file(path, MAX_FILE_BYTES, problem)
    try:
        with Image.open(path, formats=safe_formats() if formats is None else [*formats]) as image:
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or 0):
                raise UserError(f"{problem}: {image.width}x{image.height} is too large")
            yield image
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise many types for damaged files
        raise UserError(f"{problem}: {_reason(error)}") from None


def upright(image: "Image.Image", channels: int) -> "Image.Image":
    """Convert an image to grayscale or color, apply its EXIF orientation, and remove alpha."""
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    return _without_alpha(_to_8_bits(image)).convert("L" if channels == 1 else "RGB")


def safe_formats() -> list[str]:
    """Return the formats that Pillow reads without another program, such as Ghostscript."""
    from PIL import Image

    Image.init()
    return [name for name in Image.OPEN if name not in ("EPS", "WMF")]


def _to_8_bits(image):
    """Keep the upper byte of 16-bit grayscale; Pillow would clip the values to white."""
    from PIL import Image

    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8))


def _without_alpha(image):
    from PIL import Image

    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split()) or type(error).__name__
    return (
        "not an image format that Pillow can read" if text.startswith("cannot identify") else text
    )
