"""SVHN, format 2 (cropped digits of 32x32 pixels): MATLAB files, read by SciPy.

The third official file, extra_32x32.mat with 531,131 easier digits, is not used.
"""

import struct
import warnings
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from nin_jax.data.official import OfficialSet, files_of
from nin_jax.errors import UserError, one_line

SIDE, CHANNELS, CLASSES = 32, 3, 10
_TRAIN, _TEST = "train_32x32.mat", "test_32x32.mat"
_FORMAT_1 = "format 1, whole pictures; only format 2 is read"

# http://ufldl.stanford.edu/housenumbers/ states no checksums; the MD5s are torchvision's
# (torchvision/datasets/svhn.py).
SVHN = OfficialSet(
    title="SVHN",
    url="http://ufldl.stanford.edu/housenumbers/",
    folder="svhn",
    md5={
        _TRAIN: "e26dedcc434d2e4c54c9b2d4a06d8373",
        _TEST: "eb5a983be6a315427106f1b164d9cef3",
    },
    limit=256 * 2**20,  # the largest file has 182,040,794 bytes and holds 225 million
    others={"train.tar.gz": ("", _FORMAT_1), "test.tar.gz": ("", _FORMAT_1)},
)

_HEADER, _TAG, _COMPRESSED = 128, 8, 15  # of MATLAB 5 files: bytes, bytes, the type of an element
_CHUNK = 2**20


def load_svhn(given_folder: Path | None) -> tuple[np.ndarray, ...]:
    """Read the dataset from the given folder, or from the user's data folder after a download.

    Returns:
        Train images, train labels, test images, test labels:
        uint8 [N, 32, 32, 3], uint8 [N], uint8 [M, 32, 32, 3], uint8 [M].

    Raises:
        UserError: a file is missing or damaged.
        DownloadError: no folder was given, and the download failed.
    """
    paths = files_of(SVHN, given_folder)
    return *read_mat(paths[_TRAIN]), *read_mat(paths[_TEST])


def read_mat(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the images, uint8 [N, 32, 32, 3], and labels, uint8 [N], of a file.

    Raises:
        UserError: the file is damaged, has other contents, or would unpack to too many bytes.
    """
    import scipy.io  # here, because it takes time to import

    where = repr(str(path))
    with one_line(f"{where} is not a complete MATLAB 5 file", Exception):  # SciPy raises any type
        _check_size(path, where)
        with warnings.catch_warnings(action="ignore"):  # what is wrong shows in the arrays
            shapes = {name: (shape, kind) for name, shape, kind in scipy.io.whosmat(path)}
            _check_shapes(shapes, where)
            found = scipy.io.loadmat(path, variable_names=("X", "y"))
            images, labels = np.asarray(found["X"]), np.asarray(found["y"]).reshape(-1)
    if images.dtype != np.uint8 or images.shape != shapes["X"][0] or labels.dtype.kind not in "uif":
        raise UserError(f"{where} does not hold what its headers claim")
    if not np.isin(labels, np.arange(1, CLASSES + 1)).all():
        raise UserError(f"{where} holds a label that is not 1 to 10, where 10 means the digit 0")
    return np.ascontiguousarray(images.transpose(3, 0, 1, 2)), (labels % CLASSES).astype(np.uint8)


def _check_shapes(shapes: dict[str, tuple[tuple[int, ...], str]], where: str) -> None:
    images, kind = shapes.get("X", ((), ""))
    labels, _ = shapes.get("y", ((), ""))
    is_color = kind == "uint8" and len(images) == 4 and images[:3] == (SIDE, SIDE, CHANNELS)
    if is_color and len(labels) == 2 and 0 < images[3] == labels[0] * labels[1]:
        return
    found = ", ".join(f"{name[:20]!r} {shape}" for name, (shape, _) in list(shapes.items())[:5])
    raise UserError(
        f"{where} does not hold 32x32 color images X and their labels y, but {found or 'nothing'}"
    )


def _check_size(path: Path, where: str) -> None:
    """Check that a MATLAB 5 file's variables unpack to few enough bytes, without keeping them."""
    limit = SVHN.limit
    with open(path, "rb") as file:
        header = file.read(_HEADER)
        if len(header) < _HEADER or not header.startswith(b"MATLAB 5.0"):
            raise UserError(f"{where} is not a MATLAB 5 file")
        order = ">II" if header[126:] == b"MI" else "<II"
        total = 0
        while len(tag := file.read(_TAG)) == _TAG:
            kind, size = struct.unpack(order, tag)
            start = file.tell()
            total += _unpacked_size(file, size, limit - total) if kind == _COMPRESSED else size
            if total > limit:
                raise UserError(f"{where} unpacks to more than {limit:,} bytes")
            file.seek(start + size)


def _unpacked_size(file: BinaryIO, packed: int, most: int) -> int:
    """Return the size of the next element of a file, or a size above ``most``."""
    unpacking, total = zlib.decompressobj(), 0
    while packed > 0 and (chunk := file.read(min(packed, _CHUNK))):
        packed -= len(chunk)
        while chunk and total <= most:
            total += len(unpacking.decompress(chunk, _CHUNK))
            chunk = unpacking.unconsumed_tail
    return total
