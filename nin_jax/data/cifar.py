"""CIFAR-10 and CIFAR-100 in their binary version; the Python version, which is pickled, is refused.

The archive is read without unpacking it to disk. Each file in it is a row of records: one byte for
the label (CIFAR-100: two, the coarse and the fine label), then the image's red, green and blue
planes of 32x32 bytes.
"""

import gzip
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np

from nin_jax.data.official import OfficialSet, files_of
from nin_jax.errors import UserError, one_line

SIDE, CHANNELS = 32, 3
# The archives hold 170,052,171 and 168,513,733 bytes, unpacked 184 million each.
LIMIT = 200 * 2**20
_CHUNK = 2**20
_MOST_MEMBERS = 100  # the official archives have about ten
_PICKLES = (
    "Python version, which is pickled: reading it could run any code, so only the binary version "
    "is read"
)
_MATLAB = "Matlab version; only the binary version is read"
_URL = "https://www.cs.toronto.edu/~kriz/"

_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
_CIFAR100 = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
    camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile
    cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp
    lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
    oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
    possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake
    spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor
    train trout tulip turtle wardrobe whale willow_tree wolf woman worm
    """


@dataclass(frozen=True)
class CifarSet:
    """A dataset of CIFAR's binary format.

    Attributes:
        official: its files.
        train: the names of the files of training images, in order.
        test: the same of test images.
        label_bytes: before each image; the last one is the label.
        class_names: label `i` means `class_names[i]`.
    """

    official: OfficialSet
    train: tuple[str, ...]
    test: tuple[str, ...]
    label_bytes: int
    class_names: tuple[str, ...]


# The MD5s are those of https://www.cs.toronto.edu/~kriz/cifar.html, the SHA-1s of the unpacked
# files those of MXNet (python/mxnet/gluon/data/vision/datasets.py).
CIFAR_SETS = {
    "cifar10": CifarSet(
        OfficialSet(
            title="CIFAR-10",
            url=_URL,
            folder="cifar10",
            md5={"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
            limit=LIMIT,
            inner="cifar-10-batches-bin",
            unpacked={
                "data_batch_1.bin": "aadd24acce27caa71bf4b10992e9e7b2d74c2540",
                "data_batch_2.bin": "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
                "data_batch_3.bin": "1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
                "data_batch_4.bin": "aab85764eb3584312d3c7f65fd2fd016e36a258e",
                "data_batch_5.bin": "26e2849e66a845b7f1e4614ae70f4889ae604628",
                "test_batch.bin": "67eb016db431130d61cd03c7ad570b013799c88c",
            },
            others={
                "cifar-10-python.tar.gz": ("c58f30108f718f92721af3b95e74349a", _PICKLES),
                "cifar-10-batches-py": ("", _PICKLES),
                "cifar-10-matlab.tar.gz": ("70270af85842c9e89bb428ec9976c926", _MATLAB),
                "cifar-10-batches-mat": ("", _MATLAB),
            },
        ),
        train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        test=("test_batch.bin",),
        label_bytes=1,
        class_names=tuple(_CIFAR10.split()),
    ),
    "cifar100": CifarSet(
        OfficialSet(
            title="CIFAR-100",
            url=_URL,
            folder="cifar100",
            md5={"cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8"},
            limit=LIMIT,
            inner="cifar-100-binary",
            unpacked={
                "train.bin": "e207cd2e05b73b1393c74c7f5e7bea451d63e08e",
                "test.bin": "8fb6623e830365ff53cf14adec797474f5478006",
            },
            others={
                "cifar-100-python.tar.gz": ("eb9058c3a382ffc7106e4002c42a8d85", _PICKLES),
                "cifar-100-python": ("", _PICKLES),
                "cifar-100-matlab.tar.gz": ("6a4bfa1dcd5c9453dda6bb54194911f4", _MATLAB),
                "cifar-100-matlab": ("", _MATLAB),
            },
        ),
        train=("train.bin",),
        test=("test.bin",),
        label_bytes=2,
        class_names=tuple(_CIFAR100.split()),
    ),
}


def load_cifar(name: str, given_folder: Path | None) -> tuple[np.ndarray, ...]:
    """Read "cifar10" or "cifar100" from a folder, or from the user's data folder after a download.

    Returns:
        Train images, train labels, test images, test labels:
        uint8 [N, 32, 32, 3], uint8 [N], uint8 [M, 32, 32, 3], uint8 [M].

    Raises:
        UserError: a file is missing or damaged, or is another version.
        DownloadError: no folder was given, and the download failed.
    """
    cifar_set = CIFAR_SETS[name]
    official, names = cifar_set.official, (*cifar_set.train, *cifar_set.test)
    paths = files_of(official, given_folder)
    if paths.keys() == official.md5.keys():
        (path,) = paths.values()
        read = read_archive(path, names, official.limit)
        where = {name: f"{name} in {str(path)!r}" for name in names}
    else:
        read = {name: memoryview(paths[name].read_bytes()) for name in names}
        where = {name: repr(str(paths[name])) for name in names}
    records = {name: parse_records(read[name], where[name], cifar_set) for name in names}
    return tuple(
        np.concatenate([records[name][part] for name in split])
        for split in (cifar_set.train, cifar_set.test)
        for part in (0, 1)
    )


def read_archive(path: Path, names: tuple[str, ...], limit: int) -> dict[str, memoryview]:
    """Return files of a gzipped tar archive by their names, whatever folder they are in.

    Args:
        path: of the archive.
        names: of the files.
        limit: the most bytes that the archive may unpack to.

    Raises:
        UserError: the archive is damaged, lacks a file, or claims more than it holds.
    """
    where = repr(str(path))
    # tarfile, gzip and zlib have no common base class of errors
    with one_line(f"{where} is not a complete .tar.gz archive", Exception):
        with gzip.open(path) as packed:
            unpacked = _read_all(packed, limit, where)
        # "r:" because "r" would also unpack what is packed once more.
        with tarfile.open(fileobj=unpacked, mode="r:") as archive:
            places = _members(archive, unpacked.getbuffer().nbytes, where)
    missing = [name for name in names if name not in places]
    if missing:
        raise UserError(f"{where} lacks {', '.join(missing)}")
    whole = unpacked.getbuffer()
    return {name: whole[places[name]] for name in names}


def _read_all(stream: BinaryIO | gzip.GzipFile, limit: int, where: str) -> io.BytesIO:
    unpacked = io.BytesIO()
    while chunk := stream.read(_CHUNK):
        unpacked.write(chunk)
        if unpacked.tell() > limit:
            raise UserError(f"{where} unpacks to more than {limit:,} bytes")
    unpacked.seek(0)
    return unpacked


def _members(archive: tarfile.TarFile, size: int, where: str) -> dict[str, slice]:
    """Return the places of the files in an unpacked archive of this size, by their names."""
    places = {}
    for count, member in enumerate(archive):
        if count == _MOST_MEMBERS:
            raise UserError(f"{where} holds more than {_MOST_MEMBERS} files")
        end = member.offset_data + member.size
        if end > size:
            raise UserError(f"{where} claims {member.size:,} bytes for one of its files")
        if member.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
            places[PurePosixPath(member.name).name] = slice(member.offset_data, end)
    return places


def parse_records(
    data: memoryview | bytes, where: str, cifar_set: CifarSet
) -> tuple[np.ndarray, np.ndarray]:
    """Return the images, uint8 [N, 32, 32, 3], and labels, uint8 [N], of a file.

    Raises:
        UserError: the file is not a whole number of records, or a label is out of range; the
            message begins with `where`.
    """
    record = cifar_set.label_bytes + CHANNELS * SIDE**2
    count, rest = divmod(len(data), record)
    if count == 0 or rest:
        raise UserError(f"{where} holds {len(data):,} bytes, not whole images of {record:,} bytes")
    records = np.frombuffer(data, np.uint8).reshape(count, record)
    labels = records[:, cifar_set.label_bytes - 1].copy()
    classes = len(cifar_set.class_names)
    if labels.max() >= classes:
        title = cifar_set.official.title
        raise UserError(f"{where} holds label {labels.max()}, but {title} has {classes} classes")
    planes = records[:, cifar_set.label_bytes :].reshape(count, CHANNELS, SIDE, SIDE)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels
