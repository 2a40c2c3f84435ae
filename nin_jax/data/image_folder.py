"""Image folders: ROOT/train/CLASS/*.png and ROOT/test/CLASS/*.png, read one image at a time.

Which files are pictures, and what is left out, is decided in `pictures.list_folder`, as for
prediction.
"""

import hashlib
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nin_jax.data import pictures
from nin_jax.data.sources import OpenedDataset
from nin_jax.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

_SPLITS = ("train", "test")
_LAYOUT = "an image folder holds train/CLASS/ and test/CLASS/ with images"


class FolderSource:
    """The images of one split; several threads may read at the same time.

    Only the names are in memory. Images are decoded as in `pictures.read`, so that prediction
    sees what training saw.

    Args:
        folder: of the split.
        files: path of each image below the folder; it begins with CLASS/.
        class_names: a class's place is its label.
        image_shape: (height, width, channels) that every image must have.

    Attributes:
        labels: int32 [N].
        image_shape: (height, width, channels) that every image must have.
    """

    def __init__(
        self,
        folder: str,
        files: list[str],
        class_names: list[str],
        image_shape: tuple[int, int, int],
    ):
        self._folder, self._files, self.image_shape = folder, files, image_shape
        label_of = {name: label for label, name in enumerate(class_names)}
        self.labels = np.array([label_of[file.partition("/")[0]] for file in files], np.int32)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Return an image, uint8 [H, W, C], and its label.

        Raises:
            UserError: the file cannot be read, or the image has another shape.
        """
        path = os.path.join(self._folder, self._files[index])
        height, width, channels = self.image_shape
        with _opened(path) as image:
            # Check the size in the header before decoding, because a wrong image may be very
            # large. At this point the image may still be rotated.
            if sorted(image.size) == sorted((width, height)):
                image = pictures.upright(image, channels)
            if image.size != (width, height):
                raise UserError(
                    f"{path!r} has {image.width}x{image.height} pixels, the first training image "
                    f"{width}x{height}; all images must share one shape"
                )
            pixels = np.asarray(image).reshape(self.image_shape)
        return pixels, int(self.labels[index])

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return all images, uint8 [N, H, W, C], and all labels, int32 [N]."""
        images = np.empty((len(self), *self.image_shape), np.uint8)
        for i in range(len(self)):
            images[i], _ = self[i]
        return images, self.labels.copy()


def open_folder(path: str, data_dir: Path | None = None) -> OpenedDataset:
    """Find the images of an image folder, and read the first training image by class and name.

    The first image gives the shape that all images must have: one channel if it is grayscale, else
    three. Each split is in a shuffled order that depends only on the file names. Sub-folders of a
    class belong to it. Hidden files and folders are ignored; a note of the dataset names other
    files that are left out.

    Args:
        path: of the folder; a relative one is searched for in `data_dir` first.
        data_dir: the data folder, if the user named one.

    Raises:
        UserError: the folder does not exist, train or test is missing or empty, a class is empty
            or only in test, a link leads out of the folder, or the first training image cannot
            be read.
    """
    root = _locate(path, data_dir)
    digest = hashlib.sha256()
    left_out: list[str] = []
    try:
        classes = {split: _class_names(root, split, left_out) for split in _SPLITS}
        others = sorted({*classes["test"]} - {*classes["train"]})
        if others:
            raise UserError(f"{root!r} has the class {others[0]!r} in test, but not in train")
        files = {
            split: [file for name in names for file in _files(root, split, name, digest, left_out)]
            for split, names in classes.items()
        }
        unused = [
            entry.name
            for entry in pictures.visible(root)
            if entry.is_dir() and entry.name not in _SPLITS
        ]
    except OSError as error:
        raise UserError(f"cannot read {error.filename!r}: {error.strerror}") from None
    shape = _shape_of(os.path.join(root, "train", files["train"][0]))
    train, test = (
        FolderSource(os.path.join(root, split), _shuffled(files[split]), classes["train"], shape)
        for split in _SPLITS
    )
    notes = (
        *pictures.counted(left_out, "file", "left out"),
        *pictures.counted(unused, "folder", "beside the splits not used"),
    )
    class_names = tuple(classes["train"])
    return OpenedDataset(train, test, class_names, digest.hexdigest(), "image folder", notes)


def _locate(path: str, data_dir: Path | None) -> str:
    if not path or "\0" in path:
        raise UserError(f"folder:PATH names an image folder, got {path!r}")
    path = os.path.expanduser(path)
    if data_dir is not None and os.path.isdir(os.path.join(data_dir, path)):
        return os.path.join(data_dir, path)
    if not os.path.isdir(path):
        problem = "is not a folder" if os.path.lexists(path) else "does not exist"
        raise UserError(f"image folder {path!r} {problem}; {_LAYOUT}")
    return path


def _class_names(root: str, split: str, left_out: list[str]) -> list[str]:
    """Return the names of a split's class folders; add what else it holds to ``left_out``."""
    folder = os.path.join(root, split)
    if not os.path.isdir(folder):
        raise UserError(f"image folder {root!r} has no folder {split!r}; {_LAYOUT}")
    pictures.check_inside(root, folder)
    entries = pictures.visible(folder)
    names = [entry.name for entry in entries if entry.is_dir()]
    left_out += [f"{split}/{entry.name}" for entry in entries if not entry.is_dir()]
    if not names:
        raise UserError(f"{folder!r} has no class folders; {_LAYOUT}")
    for name in names:
        if not name.isprintable():
            raise UserError(f"{folder!r}: a class cannot be called {name!r}")
    return names


def _shuffled(files: list[str]) -> list[str]:
    """Return the names in the order of their SHA-256.

    This order does not depend on the version of any library. It mixes the classes, so that a part
    of a split, such as a holdout, has all of them.
    """
    return sorted(files, key=lambda file: hashlib.sha256(os.fsencode(file)).digest())


def _files(
    root: str, split: str, class_name: str, digest: "hashlib._Hash", left_out: list[str]
) -> list[str]:
    """Return the images of a class as CLASS/NAME; add names and sizes to the digest."""
    folder = os.path.join(root, split, class_name)
    found, others = pictures.list_folder(folder, within=root)
    if not found:
        raise UserError(f"no images in {folder!r}; known kinds: {', '.join(pictures.FORMATS)}")
    for name, size in found:
        digest.update(os.fsencode(f"{split}/{class_name}/{name}\0{size}\n"))
    left_out += [f"{split}/{class_name}/{name}" for name in others]
    return [f"{class_name}/{name}" for name, _ in found]


def _opened(path: str) -> AbstractContextManager["Image.Image"]:
    return pictures.opened(path, f"cannot read {path!r}")


def _shape_of(path: str) -> tuple[int, int, int]:
    with _opened(path) as image:
        is_gray = image.mode in ("1", "L", "LA") or image.mode.startswith("I")
        image = pictures.upright(image, 1 if is_gray else 3)
        return image.height, image.width, 1 if is_gray else 3
