"""Image folders: ROOT/train/CLASS/*.png and ROOT/test/CLASS/*.png, read one image at a time.

Which files are pictures, and what is left out, is decided in `listing.list_folder`, as for
prediction.
"""

import hashlib
import math
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nin_jax.data import listing, pictures
from nin_jax.data.sources import Dataset, Source
from nin_jax.errors import UserError
from nin_jax.models.geometry import as_height_width
from nin_jax.models.preprocessing import Preprocessing
from nin_jax.models.stages import ImageSize

# The names that the folder of a split may have, in small or capital letters; the first is taken.
_SPLITS = {"train": ("train",), "test": ("test", "val", "validation")}
_THREADS, _PART = 8, 64  # threads that read headers, and pictures that one reads at a time
_LAYOUT = "an image folder holds train/CLASS/ and test/CLASS/ with images"


@dataclass(frozen=True)
class FolderOptions:
    """How the images of a folder are read.

    Attributes:
        image_size: side, or (height, width), in pixels, to which images of differing sizes are
            resized; without it they are refused.
        crop: scale all images to ``image_size`` by their shorter side and cut out the center.
        follow_links: read what links lead to, even if it is not in the folder.
        needs_test: refuse a folder without test images; without it the test split is empty.
    """

    image_size: ImageSize | None = None
    crop: bool = False
    follow_links: bool = False
    needs_test: bool = True


DEFAULT = FolderOptions()


class FolderSource:
    """The images of one split; several threads may read at the same time.

    Only the names are in memory. Images are decoded as in `pictures.decode`, so that prediction
    sees what training saw.

    Args:
        folder: of the split.
        files: path of each image below the folder; it begins with CLASS/.
        class_names: a class's place is its label.
        image_shape: (height, width, channels) to which every image is converted when it is read.
        preprocessing: as in `pictures.decode`.

    Attributes:
        labels: int32 [N].
        image_shape: (height, width, channels) of every image.
    """

    def __init__(
        self,
        folder: str,
        files: list[str],
        class_names: list[str],
        image_shape: tuple[int, int, int],
        preprocessing: Preprocessing = pictures.STRETCH,
    ):
        self._folder, self._files, self._preprocessing = folder, files, preprocessing
        self.image_shape = image_shape
        label_of = {name: label for label, name in enumerate(class_names)}
        self.labels = np.array([label_of[file.partition("/")[0]] for file in files], np.int32)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Return an image, uint8 [H, W, C], and its label.

        Raises:
            UserError: as `pictures.decode`.
        """
        path = os.path.join(self._folder, self._files[index])
        *size, channels = self.image_shape
        pixels = pictures.decode(path, channels, (size[0], size[1]), self._preprocessing)
        return pixels, int(self.labels[index])

    def arrays(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return images, uint8 [N, H, W, C], and labels, int32 [N], of the examples ``indices``."""
        images = np.empty((len(indices), *self.image_shape), np.uint8)
        for i, index in enumerate(indices):
            images[i], _ = self[int(index)]
        return images, self.labels[np.asarray(indices)]


def open_folder(
    path: str, data_dir: Path | None = None, options: FolderOptions = DEFAULT
) -> Dataset[Source]:
    """Find the images of an image folder, and read their headers.

    Images of one size keep it, so that they are resized on the device, in the compiled step. If
    their sizes differ, or with ``crop``, each is resized when it is read. Images have three
    channels if any of them has color, else one. Notes of the dataset say what is changed.

    Without a folder "test" the images of "val" or "validation" are the test images. Each split is
    in a shuffled order that depends only on the file names. Sub-folders of a class belong to it.
    Hidden files and folders are ignored; a note names other files that are left out.

    Args:
        path: of the folder; a relative one is searched for in `data_dir` first.
        data_dir: the data folder, if the user named one.
        options: how to read the images.

    Raises:
        UserError: the folder does not exist, a split is missing or empty, a class is empty or only
            in test, a link leads out of the folder, the header of an image cannot be read,
            or the sizes differ and there is no ``image_size``.
    """
    root = _locate(path, data_dir)
    try:
        found = _find(root, options)
    except OSError as error:
        raise UserError(f"cannot read {error.filename!r}: {error.strerror}") from None
    paths = [os.path.join(folder, file) for folder, files in found.splits for file in files]
    headers = _survey(paths)
    shape, changes = _shape(headers, options)
    rule = Preprocessing(resize="crop" if options.crop else "stretch")
    train, test = (
        FolderSource(folder, _shuffled(files), found.class_names, shape, rule)
        for folder, files in found.splits
    )
    name, names, notes = f"folder:{path}", tuple(found.class_names), (*found.notes, *changes)
    return Dataset(name, train, test, names, found.checksum, "image folder", notes)


class _Found(NamedTuple):
    """What a folder holds; of each split its folder, and the images as CLASS/NAME."""

    class_names: list[str]
    splits: list[tuple[str, list[str]]]
    checksum: str
    notes: list[str]


def _find(root: str, options: FolderOptions) -> _Found:
    digest = hashlib.sha256()
    left_out: list[str] = []
    inside = None if options.follow_links else root
    names = [entry.name for entry in listing.visible(root) if entry.is_dir()]
    folders = _split_folders(root, names, options.needs_test)
    classes = {
        split: _class_names(root, folder, inside, left_out) for split, folder in folders.items()
    }
    others = sorted({*classes.get("test", ())} - {*classes["train"]})
    if others:
        where = folders["test"]
        raise UserError(f"{root!r} has the class {others[0]!r} in {where}, but not in train")
    splits = []
    for split in _SPLITS:
        folder, files = folders.get(split, split), []
        for name in classes.get(split, ()):
            found, skipped = listing.list_folder(os.path.join(root, folder, name), inside)
            for file, size in found:
                digest.update(os.fsencode(f"{split}/{name}/{file}\0{size}\n"))
            files += [f"{name}/{file}" for file, _ in found]
            left_out += [f"{folder}/{name}/{file}" for file in skipped]
        splits.append((os.path.join(root, folder), files))
    unused = [name for name in names if name not in folders.values()]
    notes = [
        *listing.counted(left_out, "file", "left out"),
        *listing.counted(unused, "folder", "not used"),
    ]
    if folders.get("test", "test").lower() != "test":
        notes.append(f"the images of {folders['test']!r} are the test images")
    return _Found(classes["train"], splits, digest.hexdigest(), notes)


def _split_folders(root: str, names: list[str], needs_test: bool) -> dict[str, str]:
    """Return the folder of each split; without the test split if there is none."""
    folders = {}
    for split, known in _SPLITS.items():
        # An exact match precedes one that differs in case.
        ordered = sorted(names, key=lambda name: name.lower() != name)
        matches = [name for each in known for name in ordered if name.lower() == each]
        if matches:
            folders[split] = matches[0]
        elif split == "train":
            raise UserError(f"image folder {root!r} has no folder 'train'; {_LAYOUT}")
        elif needs_test:
            raise UserError(
                f"image folder {root!r} has no folder 'test', 'val' or 'validation'; {_LAYOUT}; or "
                "give --holdout N, to evaluate on N of the training images"
            )
    return folders


def _shape(
    headers: Counter[pictures.Header], options: FolderOptions
) -> tuple[tuple[int, int, int], list[str]]:
    """Return the shape to which all images are converted, and notes of what is changed."""
    total = headers.total()
    gray = sum(count for header, count in headers.items() if header.is_gray)
    animated = sum(count for header, count in headers.items() if header.is_animated)
    sizes = sorted({header.size for header in headers}, key=math.prod)
    (height, width), notes = sizes[0], []
    if len(sizes) > 1 or options.crop:
        (h, w), (h2, w2) = sizes[0], sizes[-1]
        found = f"pictures of {len(sizes):,} sizes, {w}x{h} to {w2}x{h2},"
        found = found if len(sizes) > 1 else f"pictures of {w}x{h} pixels"
        if options.image_size is None:
            raise UserError(f"{found} need an image_size to which each is resized")
        height, width = as_height_width(options.image_size)
        how = "scaled and cropped" if options.crop else "resized"
        notes.append(f"{found} are {how} to {width}x{height} when they are read")
    if 0 < gray < total:
        notes.append(f"{gray:,} of {total:,} pictures are gray and converted to color")
    if animated:
        notes.append(f"{animated:,} of {total:,} pictures are animated; one frame is read")
    return (height, width, 1 if gray == total else 3), notes


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


def _class_names(root: str, split: str, inside: str | None, left_out: list[str]) -> list[str]:
    """Return the names of a split's class folders; add what else it holds to ``left_out``."""
    folder = os.path.join(root, split)
    listing.check_inside(inside, folder)
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


def _survey(paths: list[str]) -> Counter[pictures.Header]:
    """Read the headers of all pictures; return how many pictures have the same one."""
    parts = [paths[start : start + _PART] for start in range(0, len(paths), _PART)]
    found: Counter[pictures.Header] = Counter()
    with ThreadPoolExecutor(_THREADS) as threads:
        for part in threads.map(lambda part: Counter(map(pictures.header, part)), parts):
            found.update(part)
    return found
