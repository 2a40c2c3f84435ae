"""The MNIST family's official files: where they are, what they must be, and reading them.

Each dataset is four gzipped IDX files. An IDX file is a big-endian header (two zero bytes, the
element type, the number of dimensions, one uint32 for each dimension) and then the raw bytes.
"""

import gzip
import io
import math
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nin_jax.data import download
from nin_jax.errors import UserError

FILE_NAMES: tuple[str, ...] = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
DIGIT_NAMES = tuple("0123456789")


def md5_table(*md5: str) -> dict[str, str]:
    """Return the MD5 of each file by its name, given in the order of `FILE_NAMES`."""
    return dict(zip(FILE_NAMES, md5, strict=True))


@dataclass(frozen=True)
class IdxSet:
    """A dataset of four IDX files.

    The MD5s protect against damage, not against an attacker.
    """

    title: str
    url: str  # ends in "/"
    subfolders: tuple[str, ...]  # searched below a data folder; the first one takes downloads
    class_names: tuple[str, ...]
    md5: dict[str, str]  # by file name


# An entry is all that a new dataset of this format needs.
IDX_SETS = {
    "fashion_mnist": IdxSet(
        title="Fashion-MNIST",
        url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        subfolders=("fashion-mnist", "fashion_mnist", "FashionMNIST/raw"),
        class_names=(
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        md5=md5_table(
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ),
    ),
    "mnist": IdxSet(
        title="MNIST",
        url="https://ossci-datasets.s3.amazonaws.com/mnist/",
        subfolders=("mnist", "MNIST/raw"),
        class_names=DIGIT_NAMES,
        md5=md5_table(
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
    ),
    "kmnist": IdxSet(
        title="KMNIST",
        url="http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        subfolders=("kmnist", "KMNIST/raw"),
        class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        md5=md5_table(
            "bdb82020997e1d708af4cf47b453dcf7",
            "e144d726b3acfaa3e44228e80efcd344",
            "5c965bf0a639b31b8f53240b1b52f4d7",
            "7320c461ea6c1c855c0b718fb2a4b134",
        ),
    ),
}


class DownloadError(UserError):
    """The files are not in the user's data folder and could not be downloaded."""


def load_idx(idx_set: IdxSet, given_folder: Path | None) -> tuple[np.ndarray, ...]:
    """Read a dataset from the given folder, or from the user's data folder.

    In the second case, first download the files that are missing or damaged.

    Returns:
        Train images, train labels, test images, test labels:
        uint8 [N, H, W], uint8 [N], uint8 [M, H, W], uint8 [M].

    Raises:
        UserError: a file is missing or damaged, belongs to another dataset, or the files
            contradict each other.
        DownloadError: no folder was given, and the download failed.
    """
    if given_folder is None:
        folder = locate(idx_set, user_folder())
        _download_missing(idx_set, folder)
    else:
        folder = locate(idx_set, given_folder)
        _require_complete(idx_set, given_folder, folder)
    paths = [folder / file_name for file_name in FILE_NAMES]
    arrays = tuple(
        parse_idx(_read_verified(idx_set, path), path, ndim)
        for path, ndim in zip(paths, (3, 1, 3, 1), strict=True)
    )
    _check_pair(idx_set, paths[:2], *arrays[:2])
    _check_pair(idx_set, paths[2:], *arrays[2:])
    if arrays[0].shape[1:] != arrays[2].shape[1:]:
        raise UserError(f"{str(paths[0])!r} and {str(paths[2])!r} hold images of different sizes")
    return arrays


def user_folder() -> Path:
    """Return this user's folder for downloaded data, by the convention of the platform."""
    import platformdirs

    return Path(platformdirs.user_data_dir("nin_jax"))


def locate(idx_set: IdxSet, root: Path) -> Path:
    """Return the folder at or below `root` that holds most of the four files."""

    def files_present(folder: Path) -> int:
        return sum(os.path.isfile(folder / file_name) for file_name in FILE_NAMES)

    # Subfolders come first, because `root` itself may hold another dataset's files.
    return max((*(root / name for name in idx_set.subfolders), root), key=files_present)


def _require_complete(idx_set: IdxSet, given_folder: Path, folder: Path) -> None:
    ways = (
        f"to get {idx_set.title}, either leave out --data-dir and NIN_DATA_DIR to download it, "
        f"or put {', '.join(FILE_NAMES)} from {idx_set.url} there"
    )
    if not os.path.isdir(given_folder):
        problem = "is not a folder" if os.path.lexists(given_folder) else "does not exist"
        raise UserError(f"data folder {str(given_folder)!r} {problem}; {ways}")
    missing = [name for name in FILE_NAMES if not os.path.isfile(folder / name)]
    if len(missing) == len(FILE_NAMES):
        raise UserError(f"{str(given_folder)!r} has no {idx_set.title} files; {ways}")
    if missing:
        raise UserError(f"{str(folder)!r} lacks {', '.join(missing)}; {ways}")


def _download_missing(idx_set: IdxSet, folder: Path) -> None:
    try:
        download.download_missing(idx_set.url, idx_set.md5, folder)
    except (OSError, ValueError) as error:
        raise DownloadError(
            f"{idx_set.title} is not on this machine and cannot be downloaded from "
            f"{idx_set.url} ({download.root_cause(error)}); either try again with a network, or "
            f"put {', '.join(FILE_NAMES)} into a folder and name it with --data-dir or NIN_DATA_DIR"
        ) from error


def _read_verified(idx_set: IdxSet, path: Path) -> bytes:
    """Return the packed bytes of an official file, or say which other file it is."""
    try:
        packed, size = download.read_limited(path), path.stat().st_size
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    md5 = download.md5_of(packed)
    if md5 == idx_set.md5[path.name]:
        return packed
    again = f"get it from {idx_set.url}, or leave out the folder to download the dataset"
    for other in IDX_SETS.values():
        for file_name, other_md5 in other.md5.items():
            if md5 == other_md5:
                raise UserError(
                    f"{str(path)!r} is {other.title}'s {file_name}, "
                    f"not {idx_set.title}'s {path.name}; {again}"
                )
    raise UserError(
        f"{str(path)!r} is damaged or not {idx_set.title}'s: it has {size} bytes, "
        f"and its MD5 is not {idx_set.md5[path.name]}; {again}"
    )


def parse_idx(packed: bytes, path: Path, ndim: int) -> np.ndarray:
    """Return the contents of a gzipped IDX file: uint8, with `ndim` dimensions.

    The size in the header is checked against `download.MAX_BYTES` before memory is allocated, and
    then against the number of bytes in the file.

    Raises:
        UserError: the file is damaged or has other contents; the message names `path`.
    """
    where = repr(str(path))
    header_bytes = 4 * (1 + ndim)
    try:
        with gzip.open(io.BytesIO(packed)) as stream:
            header = stream.read(header_bytes)
            if len(header) < header_bytes:
                raise UserError(f"{where} ends inside its IDX header")
            magic, *shape = struct.unpack(f">{1 + ndim}I", header)
            if magic != 0x0800 + ndim:  # 0x08 is the element type, uint8
                raise UserError(f"{where} is not an IDX file of {ndim}-dimensional bytes")
            size = math.prod(shape)
            if not 0 < size <= download.MAX_BYTES:
                raise UserError(f"{where} claims the shape {tuple(shape)} in its IDX header")
            array = np.empty(size, np.uint8)
            filled = stream.readinto(array.data)  # up to size bytes
            surplus = stream.read(1)  # at the end of the file gzip checks its CRC
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{where} is not a complete gzip file: {error}") from error
    if filled < size or surplus:
        difference = "more" if surplus else "less"
        raise UserError(f"{where} holds {difference} than the {size} bytes its header claims")
    return array.reshape(shape)


def _check_pair(idx_set: IdxSet, paths: list[Path], images: np.ndarray, labels: np.ndarray) -> None:
    if len(images) != len(labels):
        raise UserError(
            f"{str(paths[0])!r} holds {len(images)} images, "
            f"but {str(paths[1])!r} holds {len(labels)} labels"
        )
    if labels.max() >= len(idx_set.class_names):
        raise UserError(
            f"{str(paths[1])!r} holds label {labels.max()}, "
            f"but {idx_set.title} has {len(idx_set.class_names)} classes"
        )
