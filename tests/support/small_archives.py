"""Small archives in the formats of CIFAR, SVHN and EMNIST, in place of the official ones.

Their checksums are entered in the tables, as those of `tests.support.synthetic_idx`.
"""

import dataclasses
import gzip
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest

from nin_jax.data import cifar, emnist, svhn
from nin_jax.data.official import OfficialSet
from tests.support.synthetic_idx import idx_bytes

TRAIN, TEST = 20, 10  # images
FILES = {  # one official file of each dataset
    "cifar10": "cifar-10-binary.tar.gz",
    "cifar100": "cifar-100-binary.tar.gz",
    "svhn": "train_32x32.mat",
    "emnist": "gzip.zip",
}


class Made(NamedTuple):
    """The official files of a small dataset, and what they hold.

    Attributes:
        files: their bytes by name.
        train: images, uint8 [20, H, W, C], and labels, int [20].
        test: the same of 10 images.
    """

    files: dict[str, bytes]
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


def examples(count: int, shape: tuple[int, ...], classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random images and labels; the largest label is among them."""
    rng = np.random.default_rng(count)
    labels = rng.integers(0, classes, count)
    labels[-1] = classes - 1
    return rng.integers(0, 256, (count, *shape), np.uint8), labels


def tar_gz(files: Mapping[str, bytes]) -> bytes:
    """Return a gzipped tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), 1, mtime=0)


def records(images: np.ndarray, *labels: np.ndarray) -> bytes:
    """Return CIFAR's records: the labels' bytes, then the red, green and blue plane."""
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    columns = [np.asarray(each, np.uint8)[:, None] for each in labels]
    return np.concatenate([*columns, planes], axis=1).tobytes()


def cifar_members(name: str) -> dict[str, bytes]:
    """Return the files in the archive of cifar10 or cifar100."""
    each = cifar.CIFAR_SETS[name]
    parts = {}
    for names, count in ((each.train, TRAIN), (each.test, TEST)):
        images, labels = examples(count, (32, 32, 3), len(each.class_names))
        coarse = [np.full(count, 19)] * (each.label_bytes - 1)
        size = each.label_bytes + 32 * 32 * 3
        whole, share = records(images, *coarse, labels), size * count // len(names)
        parts |= {file: whole[i * share : (i + 1) * share] for i, file in enumerate(names)}
    return parts


def make_cifar(name: str) -> Made:
    """Make cifar10 or cifar100."""
    each = cifar.CIFAR_SETS[name]
    (archive,) = each.official.md5
    folder = {f"{each.official.inner}/{n}": data for n, data in cifar_members(name).items()}
    splits = (examples(count, (32, 32, 3), len(each.class_names)) for count in (TRAIN, TEST))
    return Made({archive: tar_gz({"readme.html": b"", **folder})}, *splits)


def mat_file(images: np.ndarray, labels: np.ndarray, compressed: bool = True) -> bytes:
    """Return SVHN's file of images, uint8 [N, 32, 32, 3], and labels, 1 to 10."""
    import scipy.io

    buffer = io.BytesIO()
    variables = {"X": images.transpose(1, 2, 3, 0), "y": labels.astype(np.uint8)[:, None]}
    scipy.io.savemat(buffer, variables, do_compression=compressed)
    return buffer.getvalue()


def make_svhn(name: str = "svhn") -> Made:
    """Make svhn."""
    del name
    splits = [examples(count, (32, 32, 3), 10) for count in (TRAIN, TEST)]
    files = (mat_file(images, np.where(labels == 0, 10, labels)) for images, labels in splits)
    return Made(dict(zip(svhn.SVHN.md5, files, strict=True)), *splits)


def emnist_members(name: str) -> dict[str, bytes]:
    """Return the files of a split of EMNIST in its archive: transposed, labels from its first."""
    split, members = emnist.EMNIST_SPLITS[name], {}
    for part, count in (("train", TRAIN), ("test", TEST)):
        images, labels = examples(count, (28, 28), len(split.class_names))
        start = f"gzip/emnist-{split.name}-{part}"
        members[f"{start}-images-idx3-ubyte.gz"] = idx_bytes(images.transpose(0, 2, 1))
        stored = (labels + split.first_label).astype(np.uint8)
        members[f"{start}-labels-idx1-ubyte.gz"] = idx_bytes(stored)
    return members


def zipped(members: Mapping[str, bytes]) -> bytes:
    """Return a ZIP archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def make_emnist(name: str) -> Made:
    """Make a split of emnist."""
    classes = len(emnist.EMNIST_SPLITS[name].class_names)
    splits = (examples(count, (28, 28, 1), classes) for count in (TRAIN, TEST))
    files = {"gzip.zip": zipped({"gzip/emnist-mapping.txt": b"", **emnist_members(name)})}
    return Made(files, *splits)


MAKERS: dict[str, Callable[[str], Made]] = {
    **dict.fromkeys(cifar.CIFAR_SETS, make_cifar),
    "svhn": make_svhn,
    **dict.fromkeys(emnist.EMNIST_SPLITS, make_emnist),
}


def official_of(name: str) -> OfficialSet:
    """Return the entry of a dataset's official files in its table."""
    if name == "svhn":
        return svhn.SVHN
    if name in emnist.EMNIST_SPLITS:
        return emnist.EMNIST
    return cifar.CIFAR_SETS[name].official


def change_official(monkeypatch: pytest.MonkeyPatch, name: str, **fields: Any) -> None:
    """Replace fields of that entry, until the end of the test."""
    changed = dataclasses.replace(official_of(name), **fields)
    if name in cifar.CIFAR_SETS:
        entry = dataclasses.replace(cifar.CIFAR_SETS[name], official=changed)
        monkeypatch.setitem(cifar.CIFAR_SETS, name, entry)
    elif name == "svhn":
        monkeypatch.setattr(svhn, "SVHN", changed)
    else:
        monkeypatch.setattr(emnist, "EMNIST", changed)


def register(monkeypatch: pytest.MonkeyPatch, name: str, files: Mapping[str, bytes]) -> None:
    """Make these files the official ones of a dataset."""
    md5 = {file: hashlib.md5(data).hexdigest() for file, data in files.items()}
    change_official(monkeypatch, name, md5=md5)


def make_official(monkeypatch: pytest.MonkeyPatch, name: str) -> Made:
    """Make a small dataset the official one; return it."""
    made = MAKERS[name](name)
    register(monkeypatch, name, made.files)
    return made
