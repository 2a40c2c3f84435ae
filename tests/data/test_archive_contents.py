"""Damaged and hostile archives of CIFAR, SVHN and EMNIST that have the right checksum.

The readers do not rely on the checksum alone.
"""

import gzip
import io
import struct
import tarfile
from collections.abc import Callable

import numpy as np
import pytest

from nin_jax.data import emnist
from tests.support import synthetic_idx
from tests.support.small_archives import (
    FILES,
    MAKERS,
    change_official,
    cifar_members,
    emnist_members,
    examples,
    mat_file,
    register,
    tar_gz,
    zipped,
)
from tests.support.synthetic_idx import error_of, idx_bytes, peak_memory_below, write_files

no_network_no_home = synthetic_idx.no_network_no_home  # pytest finds fixtures by their names
pytestmark = pytest.mark.usefixtures("no_network_no_home")


def cifar10_with(**members: bytes) -> bytes:
    """Return CIFAR-10's archive with other files."""
    changed = {f"{name}.bin": data for name, data in members.items()}
    return tar_gz(cifar_members("cifar10") | changed)


def tar_that_claims(size: int) -> bytes:
    """Return CIFAR-10's archive; the header of its first file claims a size."""
    data = bytearray(gzip.decompress(tar_gz(cifar_members("cifar10"))))
    member = tarfile.TarInfo("data_batch_1.bin")
    member.size = size
    data[:512] = member.tobuf()
    return gzip.compress(bytes(data))


def links() -> bytes:
    """Return an archive that has CIFAR-10's files only as links."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in cifar_members("cifar10"):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(member)
    return buffer.getvalue()


IMAGES, LABELS = examples(4, (32, 32, 3), 9)


def emnist_with(**arrays: bytes) -> bytes:
    """Return EMNIST's archive with other training files: images or labels."""
    members = emnist_members("emnist:letters")
    for kind, data in arrays.items():
        (name,) = (name for name in members if f"train-{kind}" in name)
        members[name] = data
    return zipped(members)


def zip_that_claims(size: int) -> bytes:
    """Return EMNIST's archive; its directory claims a size for the first file."""
    data = bytearray(emnist_with())
    entry = data.index(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = struct.pack("<I", size)
    return bytes(data)


INCONSISTENT: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "no tar": ("cifar10", lambda: gzip.compress(b"x" * 999), "is not a complete .tar.gz archive"),
    "no gzip": ("cifar10", lambda: b"a pickle", "is not a complete .tar.gz archive"),
    "cut": ("cifar10", lambda: cifar10_with()[:-9], "is not a complete .tar.gz archive"),
    "packed twice": ("cifar10", lambda: gzip.compress(cifar10_with()), "is not a complete .tar.gz"),
    "a file missing": (
        "cifar10",
        lambda: tar_gz({"test_batch.bin": b""}),
        "lacks data_batch_1.bin",
    ),
    "links": ("cifar10", links, "lacks data_batch_1.bin"),
    "half an image": (
        "cifar10",
        lambda: cifar10_with(test_batch=bytes(4000)),
        "test_batch.bin in '",
    ),
    "no images": ("cifar10", lambda: cifar10_with(test_batch=b""), "holds 0 bytes, not whole"),
    "a label of ten": (
        "cifar10",
        lambda: cifar10_with(test_batch=b"\x0a" + bytes(3072)),
        "holds label 10, but CIFAR-10 has 10 classes",
    ),
    "CIFAR-100's records": (
        "cifar10",
        lambda: cifar10_with(data_batch_2=bytes(3074)),
        "holds 3,074 bytes, not whole images of 3,073 bytes",
    ),
    "tar of gigabytes": ("cifar10", lambda: tar_that_claims(2**33), "claims 8,589,934,592 bytes"),
    "too many files": (
        "cifar10",
        lambda: tar_gz({str(i): b"" for i in range(101)}),
        "holds more than 100 files",
    ),
    "no MATLAB": ("svhn", lambda: b"x" * 999, "is not a MATLAB 5 file"),
    "an empty MATLAB file": ("svhn", lambda: mat_file(IMAGES, LABELS + 1)[:128], "but nothing"),
    "a label of 0": ("svhn", lambda: mat_file(IMAGES, LABELS * 0), "a label that is not 1 to 10"),
    "a label of 11": ("svhn", lambda: mat_file(IMAGES, LABELS + 11), "a label that is not 1 to 10"),
    "gray images": ("svhn", lambda: mat_file(IMAGES[..., :1], LABELS + 1), "(32, 32, 1, 4)"),
    "too few labels": ("svhn", lambda: mat_file(IMAGES, LABELS[1:] + 1), "'y' (3, 1)"),
    "images of floats": ("svhn", lambda: mat_file(IMAGES / 255, LABELS + 1), "does not hold 32x32"),
    "a MATLAB file cut": (
        "svhn",
        lambda: mat_file(IMAGES, LABELS + 1)[:-40],
        "is not a complete MATLAB 5 file",
    ),
    "no ZIP": ("emnist:letters", lambda: b"PK\x03\x04", "is not a complete ZIP archive"),
    "ZIP cut": ("emnist:letters", lambda: emnist_with()[:-9], "is not a complete ZIP archive"),
    "ZIP of another split": (
        "emnist:letters",
        lambda: zipped(emnist_members("emnist")),
        "lacks emnist-letters-train-images-idx3-ubyte.gz",
    ),
    "ZIP of gigabytes": ("emnist:letters", lambda: zip_that_claims(2**31), "claims 2,147,483,648"),
    "IDX of gigabytes": (
        "emnist:letters",
        lambda: emnist_with(images=idx_bytes(IMAGES[..., 0], shape=(2**30, 28, 28))),
        "claims the shape (1073741824, 28, 28)",
    ),
    "images that are not square": (
        "emnist:letters",
        lambda: emnist_with(images=idx_bytes(np.zeros((20, 28, 14), np.uint8))),
        "holds images that are not square",
    ),
    "a letter of 0": (
        "emnist:letters",
        lambda: emnist_with(labels=idx_bytes(np.zeros(20, np.uint8))),
        "holds label 0, less than 1",
    ),
    "a letter of 27": (
        "emnist:letters",
        lambda: emnist_with(labels=idx_bytes(np.full(20, 27, np.uint8))),
        "holds label 26, but EMNIST's split letters has 26 classes",
    ),
    "too few letters": (
        "emnist:letters",
        lambda: emnist_with(labels=idx_bytes(np.ones(19, np.uint8))),
        "holds 19 labels",
    ),
}


@pytest.mark.parametrize("case", INCONSISTENT)
def test_inconsistent_contents(tmp_path, monkeypatch, case):
    name, content, problem = INCONSISTENT[case]
    files = MAKERS[name](name).files | {FILES[name.split(":")[0]]: content()}
    register(monkeypatch, name, files)
    write_files(tmp_path, files)
    with peak_memory_below(2**23):
        message = error_of(name, tmp_path)
    assert problem in message
    assert FILES[name.split(":")[0]] in message


def test_bombs_are_unpacked_to_the_limit_only(tmp_path, monkeypatch):
    zeros = bytes(2**26)
    bombs = {
        "cifar10": (gzip.compress(zeros), "unpacks to more than 1,048,576 bytes"),
        "svhn": (mat_file(np.zeros((21_000, 32, 32, 3), np.uint8), np.ones(21_000)), "unpacks to"),
        "emnist:letters": (
            emnist_with(images=idx_bytes(np.zeros(2**26, np.uint8), shape=(20, 28, 28))),
            "holds more than the 15680 bytes",
        ),
    }
    for name, (bomb, problem) in bombs.items():
        file = FILES[name.split(":")[0]]
        files = MAKERS[name](name).files | {file: bomb}
        register(monkeypatch, name, files)
        change_official(monkeypatch, name, limit=2**20)
        folder = write_files(tmp_path / file, files)
        with peak_memory_below(2**23):
            assert problem in error_of(name, folder)


def test_an_encrypted_zip_is_refused(tmp_path):
    data = bytearray(emnist_with())
    entry = data.index(b"PK\x01\x02")
    data[entry + 8] |= 1
    path = tmp_path / "gzip.zip"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"is not a complete ZIP archive: .* is encrypted"):
        emnist.read_part(path, emnist.EMNIST_SPLITS["emnist:letters"], "train")
