"""Image folders: ROOT/train/CLASS/*.png and ROOT/test/CLASS/*.png, read one image at a time.

Which files are pictures, and what is left out, is decided in `listing.list_folder`, as for
prediction.
"""

import hashlib
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from nin_jax.data import listing, pictures
from nin_jax.data.sources import OpenedDataset
from nin_jax.errors import UserError

_SPLITS = ("train", "test")
_THREADS, _PART = 8, 64  # threads that read headers, and pictures that one reads at a time
_LAYOUT = "an image folder holds train/CLASS/ and test/CLASS/ with images"


class FolderSource:
    """The images of one split; several threads may read at the same time.

    Only the names are in memory. Images are decoded as in `pictures.decode`, so that prediction
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
        found = pictures.header(path).size  # a wrong image may be very large
        if found != (height, width):
            raise UserError(
                f"{path!r} has {found[1]}x{found[0]} pixels, the first training image "
                f"{width}x{height}; all images must share one shape"
            )
        pixels = pictures.decode(path, channels, (height, width))
        return pixels, int(self.labels[index])

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return all images, uint8 [N, H, W, C], and all labels, int32 [N]."""
        images = np.empty((len(self), *self.image_shape), np.uint8)
        for i in range(len(self)):
            images[i], _ = self[i]
        return images, self.labels.copy()


def open_folder(path: str, data_dir: Path | None = None) -> OpenedDataset:
    """Find the images of an image folder.

    The headers of all images are read. Images have three channels if any of them has color, else
    one, and all must have the size of the first. Each split is in a shuffled order that depends
    only on the file names. Sub-folders of a class belong to it. Hidden files and folders are
    ignored. Notes of the dataset name files that are left out and count images that are changed.

    Args:
        path: of the folder; a relative one is searched for in `data_dir` first.
        data_dir: the data folder, if the user named one.

    Raises:
        UserError: the folder does not exist, train or test is missing or empty, a class is empty
            or only in test, a link leads out of the folder, or the header of an image cannot be
            read.
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
            for entry in listing.visible(root)
            if entry.is_dir() and entry.name not in _SPLITS
        ]
    except OSError as error:
        raise UserError(f"cannot read {error.filename!r}: {error.strerror}") from None
    paths = [os.path.join(root, split, file) for split in _SPLITS for file in files[split]]
    headers = _survey(paths)
    gray = sum(count for header, count in headers.items() if header.is_gray)
    animated = sum(count for header, count in headers.items() if header.is_animated)
    channels = 1 if gray == len(paths) else 3
    shape = (*pictures.header(paths[0]).size, channels)
    train, test = (
        FolderSource(os.path.join(root, split), _shuffled(files[split]), classes["train"], shape)
        for split in _SPLITS
    )
    notes = [
        *listing.counted(left_out, "file", "left out"),
        *listing.counted(unused, "folder", "beside the splits not used"),
    ]
    if channels == 3 and gray:
        notes.append(f"{gray:,} of {len(paths):,} pictures are gray and converted to color")
    if animated:
        notes.append(f"{animated:,} of {len(paths):,} pictures are animated; one frame is read")
    class_names = tuple(classes["train"])
    return OpenedDataset(train, test, class_names, digest.hexdigest(), "image folder", tuple(notes))


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
    listing.check_inside(root, folder)
    entries = listing.visible(folder)
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
    found, others = listing.list_folder(folder, within=root)
    if not found:
        raise UserError(f"no images in {folder!r}; known kinds: {', '.join(pictures.FORMATS)}")
    for name, size in found:
        digest.update(os.fsencode(f"{split}/{class_name}/{name}\0{size}\n"))
    left_out += [f"{split}/{class_name}/{name}" for name in others]
    return [f"{class_name}/{name}" for name, _ in found]


def _survey(paths: list[str]) -> Counter[pictures.Header]:
    """Read the headers of all pictures; return how many pictures have the same one."""
    parts = [paths[start : start + _PART] for start in range(0, len(paths), _PART)]
    found: Counter[pictures.Header] = Counter()
    with ThreadPoolExecutor(_THREADS) as threads:
        for part in threads.map(lambda part: Counter(map(pictures.header, part)), parts):
            found.update(part)
    return found
