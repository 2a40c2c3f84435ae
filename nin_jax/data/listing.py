"""Which files of a folder and its sub-folders are pictures, for training and for prediction."""

import functools
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from nin_jax.data.pictures import FORMATS
from nin_jax.errors import UserError
from nin_jax.reading import shown


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
        within: links to pictures and folders must stay inside this folder; None allows all links.

    Raises:
        UserError: there is no picture, a link leads out of ``within``, or a link leads to a folder
            that contains the link.
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
    if not listing.pictures:
        raise UserError(f"no images in {folder!r}; known kinds: {', '.join(FORMATS)}")
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
        raise UserError(f"{path!r} is a link that leads out of {root!r}; --follow-links reads it")


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
