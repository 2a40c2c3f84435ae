"""The MNIST family's official files: finding and reading them.

Each dataset is four gzipped IDX files. They are also found unpacked, packed again or with another
name, and known by the MD5 of their contents. An IDX file is a big-endian header (two zero bytes,
the element type, the number of dimensions, one uint32 for each dimension) and then the raw bytes.
"""

import gzip
import hashlib
import io
import math
import os
import re
import struct
import zlib
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from nin_jax.data import download
from nin_jax.data.idx_sets import FILE_NAMES, IDX_SETS, IdxSet
from nin_jax.data.official import check_folder, download_files, names_in, plain, ways
from nin_jax.errors import UserError, one_line

_GZIP = b"\x1f\x8b"  # how a gzip file begins
_CHUNK = 2**20

Owner = tuple[IdxSet, str]  # a dataset and the name of one of its files


def load_idx(name: str, given_folder: Path | None) -> tuple[np.ndarray, ...]:
    """Read a dataset of `IDX_SETS` from the given folder, or from the user's data folder.

    In the second case, first download the files that are missing or damaged.

    Returns:
        Train images, train labels, test images, test labels:
        uint8 [N, H, W], uint8 [N], uint8 [M, H, W], uint8 [M].

    Raises:
        UserError: a file is missing or damaged, belongs to another dataset, or the files
            contradict each other.
        DownloadError: no folder was given, and the download failed.
    """
    idx_set = IDX_SETS[name]
    if given_folder is None:
        folder = _downloaded(idx_set, download.user_folder())
    else:
        folder = locate(idx_set, given_folder)
        _require_complete(idx_set, given_folder, folder)
    read = [_read_verified(idx_set, folder, file_name) for file_name in FILE_NAMES]
    where = [repr(str(path)) for path, _ in read]
    arrays = tuple(
        read_idx(io.BytesIO(data), place, ndim, idx_set.limit)
        for (_, data), place, ndim in zip(read, where, (3, 1, 3, 1), strict=True)
    )
    check_pair(idx_set.title, len(idx_set.class_names), where[:2], *arrays[:2])
    check_pair(idx_set.title, len(idx_set.class_names), where[2:], *arrays[2:])
    if arrays[0].shape[1:] != arrays[2].shape[1:]:
        raise UserError(f"{where[0]} and {where[2]} hold images of different sizes")
    return arrays


def locate(idx_set: IdxSet, root: Path) -> Path:
    """Return the folder at or below `root` that holds most of the four files.

    Below `root` these are the folders with the name of the dataset, such as "fashion-mnist" and
    "FashionMNIST", and "raw" in them.
    """
    named = [root / name for name in names_in(root) if plain(name) == plain(idx_set.folder)]
    below = [folder for each in named for folder in (each, each / "raw")]
    # Subfolders come first, because `root` itself may hold another dataset's files.
    folders = (root / idx_set.folder, *below, root)
    return max(folders, key=lambda folder: sum(bool(found(folder, name)) for name in FILE_NAMES))


def found(folder: Path, file_name: str) -> list[Path]:
    """Return the files of a folder that may be an official file, the official name first.

    Names may begin with the dataset's name, have dots or underscores, and lack ".gz".
    """
    pattern = re.sub("[-.]", "[-._]", file_name.removesuffix(".gz")) + r"(\.gz)?"
    names = [name for name in names_in(folder) if re.search(f"{pattern}$", name, re.IGNORECASE)]
    paths = [folder / name for name in sorted(names, key=lambda name: (name != file_name, name))]
    return [path for path in paths if os.path.isfile(path)]


def recognized(path: Path, limit: int) -> tuple[bytes, list[Owner]]:
    """Unpack a file, more than once if need be, until it is an official one.

    Returns:
        The official file's bytes, packed or unpacked, and its owners: the datasets that have it,
        with its name there. Both are empty if it is no official file, or larger than the limit.

    Raises:
        OSError: it cannot be read.
    """
    if path.stat().st_size > limit:
        return b"", []
    data = path.read_bytes()
    for _ in range(4):
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        owners = [
            (idx_set, file_name)
            for idx_set in IDX_SETS.values()
            for file_name in FILE_NAMES
            if md5 in (idx_set.md5.get(file_name), idx_set.contents_md5.get(file_name))
        ]
        if owners:
            return data, owners
        if not data.startswith(_GZIP):
            break
        try:
            with gzip.open(io.BytesIO(data)) as stream:
                data = stream.read(limit + 1)
        except (OSError, EOFError, zlib.error):
            break
        if len(data) > limit:
            break
    return b"", []


def _require_complete(idx_set: IdxSet, given_folder: Path, folder: Path) -> None:
    remedy = ways(idx_set)
    check_folder(given_folder, remedy)
    missing = [name for name in FILE_NAMES if not found(folder, name)]
    if len(missing) == len(FILE_NAMES):
        raise UserError(f"{str(given_folder)!r} has no {idx_set.title} files; {remedy}")
    if missing:
        raise UserError(f"{str(folder)!r} lacks {', '.join(missing)}; {remedy}")


def _downloaded(idx_set: IdxSet, root: Path) -> Path:
    """Return the folder of the four files, after a download of those that it lacked."""
    folder = locate(idx_set, root)
    states = _states(idx_set, folder)
    if folder == root and not {*states.values()} <= {"intact", "missing"}:
        # All sets have the same file names: a file of another one must not be overwritten.
        folder = root / idx_set.folder
        states = _states(idx_set, folder)
    wanted = [name for name, state in states.items() if state != "intact"]
    if wanted:
        download_files(idx_set, folder, wanted)
    return folder


def _states(idx_set: IdxSet, folder: Path) -> dict[str, str]:
    return {name: state_of(idx_set, folder, name) for name in FILE_NAMES}


def state_of(idx_set: IdxSet, folder: Path, file_name: str) -> str:
    """Return "intact", "missing", "damaged", "unreadable", or the owner such as "MNIST's"."""
    states = ["missing"]
    for path in found(folder, file_name):
        try:
            _, owners = recognized(path, idx_set.limit)
        except OSError:
            states.append("unreadable")
            continue
        if (idx_set, file_name) in owners:
            return "intact"
        states.append(f"{owners[0][0].title}'s" if owners else "damaged")
    return states[-1]


def _read_verified(idx_set: IdxSet, folder: Path, file_name: str) -> tuple[Path, bytes]:
    """Return an official file's path and its bytes, or say which other file it is."""
    problems = []
    for path in found(folder, file_name):
        with one_line(f"cannot read {str(path)!r}"):
            data, owners = recognized(path, idx_set.limit)
            if (idx_set, file_name) in owners:
                return path, data
            problems.append(_problem(idx_set, path, file_name, owners))
    again = f"get it from {idx_set.url}, or leave out the folder to download the dataset"
    raise UserError(f"{problems[0]}; {again}")


def _problem(idx_set: IdxSet, path: Path, file_name: str, owners: list[Owner]) -> str:
    where = repr(str(path))
    if owners:
        other, name = owners[0]
        return f"{where} is {other.title}'s {name}, not {idx_set.title}'s {file_name}"
    packed, unpacked = idx_set.md5[file_name], idx_set.contents_md5.get(file_name)
    official = f"not {packed}, that of the packed file"
    if unpacked:
        official = f"neither {packed} (packed) nor {unpacked} (unpacked)"
    return (
        f"{where} is damaged or not {idx_set.title}'s: it has {path.stat().st_size} bytes, "
        f"and its MD5 is {official}"
    )


def read_idx(file: IO[bytes], where: str, ndim: int, limit: int) -> np.ndarray:
    """Read an IDX file, gzipped or not: uint8, with `ndim` dimensions.

    The size in the header is checked before memory is allocated, and then against the number of
    bytes in the file.

    Args:
        file: at its start; it can be read only forward.
        where: the start of every message.
        ndim: number of dimensions.
        limit: the most bytes of the array.

    Raises:
        UserError: the file is damaged or has other contents.
    """
    header_bytes = 4 * (1 + ndim)
    buffered = io.BufferedReader(cast(Any, file))  # any file has what it needs
    try:
        packed = buffered.peek(2).startswith(_GZIP)
        with gzip.open(buffered) if packed else buffered as stream:
            header = stream.read(header_bytes)
            if len(header) < header_bytes:
                raise UserError(f"{where} ends inside its IDX header")
            magic, *shape = struct.unpack(f">{1 + ndim}I", header)
            if magic != 0x0800 + ndim:  # 0x08 is the element type, uint8
                raise UserError(f"{where} is not an IDX file of {ndim}-dimensional bytes")
            size = math.prod(shape)
            if not 0 < size <= limit:
                raise UserError(f"{where} claims the shape {tuple(shape)} in its IDX header")
            array = np.empty(size, np.uint8)
            filled = 0
            # In parts: to fill all at once, gzip would take the memory twice.
            while count := stream.readinto(array.data[filled : filled + _CHUNK]):
                filled += count
            surplus = stream.read(1)  # at the end of the file gzip checks its CRC
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{where} is not a complete gzip file: {error}") from error
    if filled < size or surplus:
        difference = "more" if surplus else "less"
        raise UserError(f"{where} holds {difference} than the {size} bytes its header claims")
    return array.reshape(shape)


def check_pair(
    title: str, classes: int, where: list[str], images: np.ndarray, labels: np.ndarray
) -> None:
    """Check that each image has a label of one of the classes.

    Args:
        title: of the dataset.
        classes: their number.
        where: the images' and the labels' file, for messages.
        images: uint8 [N, H, W].
        labels: uint8 [N].

    Raises:
        UserError: the numbers differ, or a label is out of range.
    """
    if len(images) != len(labels):
        raise UserError(
            f"{where[0]} holds {len(images)} images, but {where[1]} holds {len(labels)} labels"
        )
    if labels.max() >= classes:
        raise UserError(f"{where[1]} holds label {labels.max()}, but {title} has {classes} classes")
