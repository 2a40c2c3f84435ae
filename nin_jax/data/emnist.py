"""EMNIST (Cohen et al. 2017): handwritten digits and letters, IDX files in one ZIP archive.

The images are transposed in the archive, and the labels of the letters begin at 1. Both are undone.
"""

import string
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nin_jax.data import idx
from nin_jax.data.official import OfficialSet, files_of
from nin_jax.errors import UserError, one_line

_ARCHIVE = "gzip.zip"
_CHUNK = 10_000  # images

# The MD5 is torchvision's (torchvision/datasets/mnist.py).
EMNIST = OfficialSet(
    title="EMNIST",
    url="https://biometrics.nist.gov/cs_links/EMNIST/",
    folder="emnist",
    md5={_ARCHIVE: "58c8d27c78d21e728a6bc7b3cc06412e"},
    limit=600 * 2**20,  # the archive has 561,753,746 bytes, the largest array 547,178,688
    others={"matlab.zip": ("", "Matlab version; only the version of IDX files is read")},
)


class EmnistSplit(NamedTuple):
    """One of the archive's ways to divide the characters into classes.

    Attributes:
        name: in the names of the archive's files.
        class_names: one for each class.
        first_label: the label of the first class.
    """

    name: str
    class_names: tuple[str, ...]
    first_label: int = 0


# The lower-case letters that look like their capitals are in the capitals' classes.
_MERGED = (*string.digits, *string.ascii_uppercase, *"abdefghnqrt")
EMNIST_SPLITS = {
    "emnist": EmnistSplit("balanced", _MERGED),
    "emnist:byclass": EmnistSplit(
        "byclass", (*string.digits, *string.ascii_uppercase, *string.ascii_lowercase)
    ),
    "emnist:bymerge": EmnistSplit("bymerge", _MERGED),
    "emnist:letters": EmnistSplit("letters", tuple(string.ascii_lowercase), first_label=1),
    "emnist:digits": EmnistSplit("digits", tuple(string.digits)),
    "emnist:mnist": EmnistSplit("mnist", tuple(string.digits)),
}


def load_emnist(split: EmnistSplit, given_folder: Path | None) -> tuple[np.ndarray, ...]:
    """Read a split from the given folder, or from the user's data folder after a download.

    Returns:
        Train images, train labels, test images, test labels:
        uint8 [N, 28, 28], uint8 [N], uint8 [M, 28, 28], uint8 [M].

    Raises:
        UserError: the archive is missing or damaged.
        DownloadError: no folder was given, and the download failed.
    """
    (path,) = files_of(EMNIST, given_folder).values()
    return *read_part(path, split, "train"), *read_part(path, split, "test")


def read_part(path: Path, split: EmnistSplit, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the upright images, uint8 [N, H, H], and labels from 0, uint8 [N], of an archive.

    Args:
        path: of the archive.
        split: which of its splits.
        part: "train" or "test".

    Raises:
        UserError: the archive is damaged, or its files contradict each other.
    """
    names = [
        f"emnist-{split.name}-{part}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1")
    ]
    where = [f"{name} in {str(path)!r}" for name in names]
    # zipfile raises any type for a damaged archive
    with (
        one_line(f"{str(path)!r} is not a complete ZIP archive", Exception),
        zipfile.ZipFile(path) as archive,
    ):
        images, labels = (
            _read_member(archive, name, place, ndim)
            for name, place, ndim in zip(names, where, (3, 1), strict=True)
        )
    if images.shape[1] != images.shape[2]:
        raise UserError(f"{where[0]} holds images that are not square: {images.shape[1:]}")
    if labels.min() < split.first_label:
        raise UserError(f"{where[1]} holds label {labels.min()}, less than {split.first_label}")
    labels -= np.uint8(split.first_label)
    title = f"EMNIST's split {split.name}"
    idx.check_pair(title, len(split.class_names), where, images, labels)
    _turn_upright(images)
    return images, labels


def _read_member(archive: zipfile.ZipFile, name: str, where: str, ndim: int) -> np.ndarray:
    found = [member for member in archive.infolist() if member.filename.split("/")[-1] == name]
    if not found:
        raise UserError(f"{str(archive.filename)!r} lacks {name}")
    if found[0].file_size > EMNIST.limit:
        raise UserError(f"{where} claims {found[0].file_size:,} bytes")
    with archive.open(found[0]) as file:
        return idx.read_idx(file, where, ndim, EMNIST.limit)


def _turn_upright(images: np.ndarray) -> None:
    """Transpose each image in place; all at once would take twice the memory."""
    for start in range(0, len(images), _CHUNK):
        some = images[start : start + _CHUNK]
        some[:] = some.transpose(0, 2, 1).copy()
