"""Pictures from files, as a model takes them."""

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
    """The files named, and the pictures in the folders named, by name.

    Raises:
        UserError: a path does not exist, or a folder holds no picture.
    """
    found: list[Path] = []
    for path in paths:
        if not os.path.exists(path):  # Path.exists raises where a name is too long
            raise UserError(f"there is no {path}")
        try:
            inside = [path] if not path.is_dir() else sorted(_pictures_in(path))
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from None
        if not inside:
            raise UserError(f"no pictures in {path}: none of {', '.join(sorted(SUFFIXES))}")
        found += inside
    return found


def _pictures_in(folder: Path) -> Iterator[Path]:
    return (p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())


def read(path: Path, channels: int, size: tuple[int, int]) -> np.ndarray:
    """A picture, resized as torchvision's ``Resize((height, width))`` does it.

    Grey or colour as the model wants it; turned upright; transparent parts are black.

    Args:
        path: a file of any format that Pillow reads by itself; of an animation, the first frame.
        channels: 1 for grey, 3 for colour.
        size: (height, width) in pixels.

    Returns:
        uint8 [height, width, channels].

    Raises:
        UserError: the file is no picture, is damaged, or would take more memory than any sane
            picture (Pillow's limit of 89 million pixels, at which it would only warn).
    """
    from PIL import Image

    height, width = size
    with _no_warnings(), opened(path, f"cannot read {path}") as image:
        image = upright(image, channels).resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(image).reshape(height, width, channels)


@contextlib.contextmanager
def opened(
    path: str | Path, problem: str, formats: Iterable[str] | None = None
) -> Iterator["Image.Image"]:
    """A picture of which only the header is read so far; threads may read several at once.

    Pillow's warnings, such as of damaged tags, are let through: Python can silence them only for
    all threads together.

    Args:
        path: of the file.
        problem: begins every message.
        formats: that may be read, by Pillow's names; by default all that it reads by itself.

    Raises:
        UserError: as `read`, also for whatever goes wrong while the picture is open.
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
    except Exception as error:  # Pillow's decoders raise almost anything for damaged files
        raise UserError(f"{problem}: {_reason(error)}") from None


def upright(image: "Image.Image", channels: int) -> "Image.Image":
    """A picture in its own size as `read` takes it: grey or colour, turned upright, no alpha."""
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    return _without_alpha(_to_8_bits(image)).convert("L" if channels == 1 else "RGB")


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    """Pillow warns of sizes that are refused here, and of damaged tags that do not matter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def safe_formats() -> list[str]:
    """All formats but those for which Pillow starts another program, such as Ghostscript."""
    from PIL import Image

    Image.init()
    return [name for name in Image.OPEN if name not in ("EPS", "WMF")]


def _to_8_bits(image):
    """16-bit greys keep their upper byte; Pillow would clip them to white."""
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
    return "no picture format that Pillow knows" if text.startswith("cannot identify") else text
