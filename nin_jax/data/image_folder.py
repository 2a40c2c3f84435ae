"""Image folders: ROOT/train/CLASS/*.png and ROOT/test/CLASS/*.png, read a picture at a time."""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nin_jax.data import pictures
from nin_jax.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "BMP", "WEBP")  # Pillow's names; nothing else is tried on a file
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})
SOURCE = "image folder"  # as `Dataset.source` has it
_LAYOUT = "an image folder holds train/CLASS/ and test/CLASS/ with pictures"


class FolderSource:
    """The pictures of one split.

    Only names are kept in memory; threads may read at once. A picture is what `pictures.read`
    makes of it in its own size, so that `predict` sees what training saw.

    Attributes:
        labels: int32 [N].
        image_shape: (height, width, channels) that every picture must have.
    """

    def __init__(
        self,
        folder: str,
        files: list[str],
        labels: np.ndarray,
        image_shape: tuple[int, int, int],
    ):
        """The pictures ``folder/files[i]`` with their labels, int32 [N]."""
        self._folder, self._files, self.labels = folder, files, labels
        self.image_shape = image_shape

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """uint8 [H, W, C] and the label.

        Raises:
            UserError: the picture cannot be read, or has another shape than the others.
        """
        path = self._path(index)
        height, width, channels = self.image_shape
        with _opened(path) as image:
            # The header is asked first: a picture of a wrong size may be a very large one. Here
            # it may still lie on its side.
            if sorted(image.size) == sorted((width, height)):
                image = pictures.upright(image, channels)
            if image.size != (width, height):
                raise UserError(
                    f"{path!r} has {image.width}x{image.height} pixels, the first training picture "
                    f"{width}x{height}; all pictures must share one shape"
                )
            pixels = np.asarray(image).reshape(self.image_shape)
        return pixels, int(self.labels[index])

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """All of it at once: uint8 [N, H, W, C], int32 [N]."""
        images = np.empty((len(self), *self.image_shape), np.uint8)
        for i in range(len(self)):
            images[i], _ = self[i]
        return images, self.labels.copy()

    def _path(self, index: int) -> str:
        return os.path.join(self._folder, self._files[index])


class ImageFolder(NamedTuple):
    """Both splits of an image folder."""

    train: FolderSource
    test: FolderSource
    class_names: tuple[str, ...]  # the sorted names of the folders in train
    checksum: str  # SHA-256, in hex, over the files' names and sizes, not over their bytes


def open_folder(path: str, beside: Path | None = None) -> ImageFolder:
    """Finds an image folder's pictures and reads the first of them, by class and name.

    That one gives the shape that all must have: one channel if it is grey, else three. The order of
    a split mixes its classes and depends on nothing but the names.

    Hidden files and folders, and files that are no pictures by their suffix, are left out.

    Args:
        path: of the folder; a relative one is looked for in ``beside`` first.
        beside: the data folder, if there is one.

    Raises:
        UserError: it is not there, train or test is missing or empty, a class is empty or only
            in test, a link leads out of it, or the first training picture cannot be read.
    """
    root = _locate(path, beside)
    digest = hashlib.sha256()
    try:
        class_names = _class_names(root, "train")
        others = sorted({*_class_names(root, "test")} - {*class_names})
        if others:
            raise UserError(f"{root!r} has the class {others[0]!r} in test, but not in train")
        found = [_scan(root, split, class_names, digest) for split in ("train", "test")]
    except OSError as error:
        raise UserError(f"cannot read {error.filename!r}: {error.strerror}") from None
    shape = _shape_of(os.path.join(root, "train", found[0][0][0]))
    train, test = (
        FolderSource(os.path.join(root, split), *_mixed(*each), shape)
        for split, each in zip(("train", "test"), found, strict=True)
    )
    return ImageFolder(train, test, tuple(class_names), digest.hexdigest())


def _locate(path: str, beside: Path | None) -> str:
    if not path or "\0" in path:
        raise UserError(f"folder:PATH names an image folder, got {path!r}")
    path = os.path.expanduser(path)
    if beside is not None and os.path.isdir(os.path.join(beside, path)):
        return os.path.join(beside, path)
    if not os.path.isdir(path):
        problem = "is not a folder" if os.path.lexists(path) else "does not exist"
        raise UserError(f"image folder {path!r} {problem}; {_LAYOUT}")
    return path


def _class_names(root: str, split: str) -> list[str]:
    folder = os.path.join(root, split)
    if not os.path.isdir(folder):
        raise UserError(f"image folder {root!r} has no folder {split!r}; {_LAYOUT}")
    _check_inside(root, folder)
    names = [entry.name for entry in _entries(folder) if entry.is_dir()]
    if not names:
        raise UserError(f"{folder!r} has no folders of classes; {_LAYOUT}")
    for name in names:
        if not name.isprintable():
            raise UserError(f"{folder!r}: a class cannot be called {name!r}")
    return names


def _scan(
    root: str, split: str, class_names: list[str], digest: "hashlib._Hash"
) -> tuple[list[str], np.ndarray]:
    """The pictures of a split as CLASS/NAME, and their labels, int32 [N], class by class."""
    files: list[str] = []
    labels: list[int] = []
    for name in _class_names(root, split):
        files += _files(root, split, name, digest)
        labels += [class_names.index(name)] * (len(files) - len(labels))
    return files, np.array(labels, np.int32)


def _mixed(files: list[str], labels: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The same in the order of the names' SHA-256, which no version of anything changes.

    So the first or the last so many of them, a holdout say, are of all classes.
    """
    order = sorted(range(len(files)), key=lambda i: hashlib.sha256(os.fsencode(files[i])).digest())
    return [files[i] for i in order], labels[order]


def _files(root: str, split: str, class_name: str, digest: "hashlib._Hash") -> Iterator[str]:
    """The pictures of a class as CLASS/NAME; names and sizes go into the digest."""
    folder = os.path.join(root, split, class_name)
    _check_inside(root, folder)
    found = False
    for entry in _entries(folder):
        if os.path.splitext(entry.name)[1].lower() not in SUFFIXES:
            continue
        if entry.is_symlink():
            _check_inside(root, entry.path)
        status = entry.stat()
        if stat.S_ISREG(status.st_mode):
            found = True
            name = f"{class_name}/{entry.name}"
            digest.update(os.fsencode(f"{split}/{name}\0{status.st_size}\n"))
            yield name
    if not found:
        raise UserError(f"no pictures in {folder!r}: none of {', '.join(sorted(SUFFIXES))}")


def _entries(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        seen = [entry for entry in entries if not entry.name.startswith(".")]
    return sorted(seen, key=lambda entry: entry.name)


def _check_inside(root: str, path: str) -> None:
    """Links may save room within the folder; one that leads out could show any file there is."""
    root = os.path.realpath(root)
    if os.path.commonpath([root, os.path.realpath(path)]) != root:
        raise UserError(f"{path!r} is a link that leads out of {root!r}")


def _opened(path: str) -> AbstractContextManager["Image.Image"]:
    return pictures.opened(path, f"cannot read {path!r}", FORMATS)


def _shape_of(path: str) -> tuple[int, int, int]:
    with _opened(path) as image:
        is_grey = image.mode in ("1", "L", "LA") or image.mode.startswith("I")
        image = pictures.upright(image, 1 if is_grey else 3)
        return image.height, image.width, 1 if is_grey else 3
