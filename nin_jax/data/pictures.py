"""Image files: which files of a folder are pictures, and reading them as a model takes them."""

import contextlib
import functools
import os
import stat
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nin_jax.errors import UserError
from nin_jax.reading import check_file, shown

if TYPE_CHECKING:
    from PIL import Image

MAX_FILE_BYTES = 2**30

# Pillow's names of the kinds that training and prediction read. No other decoder is tried: some of
# them run another program, such as Ghostscript, or take any file for a picture.
FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000"),
    *("DIB", "ICO", "PCX", "QOI", "SGI"),
)


class Listing(NamedTuple):
    """The files in a folder and its sub-folders, in a fixed order, by their paths below it.

    Attributes:
        pictures: files with the suffix of a picture, and their sizes in bytes.
        others: all other files.
    """

    pictures: list[tuple[str, int]]
    others: list[str]


def find(paths: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """Return the given files, and the pictures in the given folders and their sub-folders.

    Returns:
        The pictures, and the files of the folders that are left out.

    Raises:
        UserError: a path does not exist, or a folder holds no image.
    """
    found: list[Path] = []
    left_out: list[str] = []
    for path in paths:
        if not os.path.exists(path):  # Path.exists raises where a name is too long
            raise UserError(f"there is no {path}")
        if not path.is_dir():
            found.append(path)
            continue
        try:
            listing = list_folder(str(path))
        except OSError as error:
            raise UserError(f"cannot read {error.filename}: {error.strerror}") from None
        if not listing.pictures:
            raise UserError(f"no images in {path}; known kinds: {', '.join(FORMATS)}")
        found += [path / name for name, _ in listing.pictures]
        left_out += [str(path / name) for name in listing.others]
    return found, left_out


@functools.cache
def suffixes() -> frozenset[str]:
    """Return the suffixes of pictures, in lower case."""
    from PIL import Image

    known = Image.registered_extensions()
    return frozenset(suffix for suffix, name in known.items() if name in FORMATS)


def list_folder(folder: str, within: str | None = None) -> Listing:
    """Find the pictures in a folder and its sub-folders. Hidden files and folders are ignored.

    Args:
        folder: where to search.
        within: a folder that no link to a picture or a folder may lead out of.

    Raises:
        UserError: a link leads out of ``within``, or to a folder that holds it.
        OSError: a folder or a file cannot be read.
    """
    listing = Listing([], [])
    for entry in _files(folder, within, ()):
        name = os.path.relpath(entry.path, folder)
        if os.path.splitext(name)[1].lower() not in suffixes():
            listing.others.append(name)
            continue
        if entry.is_symlink():
            check_inside(within, entry.path)
        status = entry.stat()
        if stat.S_ISREG(status.st_mode):
            listing.pictures.append((name, status.st_size))
        else:
            listing.others.append(name)
    return listing


def _files(folder: str, within: str | None, above: tuple[str, ...]) -> Iterator["os.DirEntry[str]"]:
    """Yield the files; ``above`` holds the real paths of the folders on the way."""
    check_inside(within, folder)
    real = os.path.realpath(folder)
    if real in above:
        raise UserError(f"{folder!r} is a link to a folder that holds it")
    for entry in visible(folder):
        if entry.is_dir():
            yield from _files(entry.path, within, (*above, real))
        else:
            yield entry


def visible(folder: str) -> "list[os.DirEntry[str]]":
    """Return what is in a folder, by name; without hidden entries and the copies that macOS adds.

    Raises:
        OSError: the folder cannot be read.
    """
    with os.scandir(folder) as entries:
        seen = [entry for entry in entries if not entry.name.startswith((".", "__MACOSX"))]
    return sorted(seen, key=lambda entry: entry.name)


def check_inside(root: str | None, path: str) -> None:
    """Reject links that lead out of a folder: they could expose any file of this machine.

    Raises:
        UserError: the path is not inside ``root``.
    """
    if root is None:
        return
    root = os.path.realpath(root)
    if os.path.commonpath([root, os.path.realpath(path)]) != root:
        raise UserError(f"{path!r} is a link that leads out of {root!r}")


def counted(names: Sequence[str], what: str, so: str) -> list[str]:
    """Return a note with the number and the first names of files; none if there are no names.

    >>> counted(["a.txt", "b.txt", "c.txt", "d.txt"], "file", "left out")
    ["4 files left out: 'a.txt', 'b.txt', 'c.txt' and 1 more"]
    """
    if not names:
        return []
    first = ", ".join(shown(name) for name in names[:3])
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return [f"{len(names):,} {what}{'' if len(names) == 1 else 's'} {so}: {first}{more}"]


class Header(NamedTuple):
    """What is known of a picture without decoding it.

    Attributes:
        size: (height, width) in pixels, after its EXIF orientation is applied.
        is_gray: whether it has no color; a palette and a gray picture saved as RGB have.
        is_animated: whether it has several frames.
    """

    size: tuple[int, int]
    is_gray: bool
    is_animated: bool


def header(path: str | Path) -> Header:
    """Read the header of a picture. Several threads may do this at the same time.

    Raises:
        UserError: as `read`, except for damage behind the header.
    """
    from PIL import ExifTags, Image

    with opened(path) as image:
        is_gray = image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I")
        # PNG's own getexif would decode the picture, to look for EXIF behind the pixels.
        exif = Image.Image.getexif(image)
        turned = exif.get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        width, height = image.size
        size = (width, height) if turned else (height, width)
        return Header(size, is_gray, getattr(image, "is_animated", False))


def read(path: str | Path, channels: int, size: tuple[int, int]) -> np.ndarray:
    """Read an image as `decode` does, and silence Pillow's warnings, for all threads."""
    # Pillow warns about sizes, which are errors here, and about damaged tags, which do no harm.
    with warnings.catch_warnings(action="ignore"):
        return decode(path, channels, size)


def decode(path: str | Path, channels: int, size: tuple[int, int]) -> np.ndarray:
    """Read an image and resize it as torchvision's ``Resize((height, width))`` does.

    The EXIF orientation is applied, and transparent parts become black. Several threads may do this
    at the same time; Pillow's warnings are not silenced, because Python can silence warnings only
    for all threads at once.

    Args:
        path: of a file of one of the `FORMATS`, whatever its suffix. Of an animation, the first
            frame is read.
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
    with opened(path) as image:
        image = _upright(image, channels).resize((width, height), Image.Resampling.BILINEAR)
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
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or 0):
                raise UserError(f"{problem}: {image.width}x{image.height} is too large")
            yield image
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise many types for damaged files
        raise UserError(f"{problem}: {_reason(error)}") from None


def _upright(image: "Image.Image", channels: int) -> "Image.Image":
    """Convert an image to grayscale or color, apply its EXIF orientation, and remove alpha."""
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    return _without_alpha(_to_8_bits(image)).convert("L" if channels == 1 else "RGB")


def formats() -> list[str]:
    """Return those of `FORMATS` that this build of Pillow can read."""
    from PIL import Image

    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


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
