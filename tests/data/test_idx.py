"""The official IDX files: known by their contents, and what is wrong with them."""

import contextlib
import gzip
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nin_jax.data import idx
from nin_jax.data.datasets import load_dataset
from nin_jax.errors import UserError
from tests.support import synthetic_idx
from tests.support.synthetic_idx import (
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    change,
    error_of,
    idx_bytes,
    peak_memory_below,
    register,
    synthetic_arrays,
    write_files,
)

# pytest finds fixtures by the names in the module.
fashion, no_network_no_home = synthetic_idx.fashion, synthetic_idx.no_network_no_home
pytestmark = pytest.mark.usefixtures("no_network_no_home")


LAYOUTS: dict[str, Callable[[str, bytes], tuple[str, bytes]]] = {
    "unpacked": lambda name, data: (name.removesuffix(".gz"), gzip.decompress(data)),
    "dotted": lambda name, data: (name[:-3].replace("-idx", ".idx"), gzip.decompress(data)),
    "packed again": lambda name, data: (name, gzip.compress(gzip.decompress(data), 1)),
    "packed twice": lambda name, data: (name, gzip.compress(data)),
    "unpacked by a browser": lambda name, data: (name, gzip.decompress(data)),
    "longer": lambda name, data: (name, data + b"\0"),
    "with the name of the set": lambda name, data: (f"fashion-mnist_{name}", data),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_are_known_by_their_contents(tmp_path, fashion, layout):
    expected = load_dataset("fashion_mnist", write_files(tmp_path / "official", fashion)).checksum
    files = dict(LAYOUTS[layout](name, data) for name, data in fashion.items())
    folder = write_files(tmp_path / "found", files)
    assert load_dataset("fashion_mnist", folder).checksum == expected
    fashion_mnist = idx.IDX_SETS["fashion_mnist"]
    assert {idx.state_of(fashion_mnist, folder, name) for name in fashion} == {"intact"}


def test_an_intact_file_is_preferred(tmp_path, fashion):
    write_files(tmp_path, fashion | {TRAIN_IMAGES: b"half a fi"})
    write_files(tmp_path, {TRAIN_IMAGES[:-3]: gzip.decompress(fashion[TRAIN_IMAGES])})
    assert len(load_dataset("fashion_mnist", tmp_path).train) == 20


def test_unpacked_files_of_a_set_whose_contents_are_not_known(tmp_path, fashion, monkeypatch):
    change(monkeypatch, "fashion_mnist", contents_md5={})
    assert load_dataset("fashion_mnist", write_files(tmp_path / "packed", fashion)).name
    files = dict(LAYOUTS["unpacked"](name, data) for name, data in fashion.items())
    message = error_of("fashion_mnist", write_files(tmp_path / "unpacked", files))
    assert f"{TRAIN_IMAGES[:-3]}' is damaged or not Fashion-MNIST's" in message
    assert "that of the packed file" in message


def test_complete_folder_is_preferred(tmp_path, fashion):
    write_files(tmp_path / "fashion-mnist", {TEST_LABELS: fashion[TEST_LABELS]})
    write_files(tmp_path / "FashionMNIST" / "raw", fashion)
    assert load_dataset("fashion_mnist", tmp_path).train.images.shape == (20, 28, 28, 1)


@pytest.mark.parametrize("absent", [(TRAIN_IMAGES,), (TRAIN_LABELS, TEST_LABELS)])
def test_missing_files_are_named(tmp_path, fashion, absent):
    write_files(tmp_path, {k: v for k, v in fashion.items() if k not in absent})
    message = error_of("fashion_mnist", tmp_path)
    assert f"lacks {', '.join(absent)};" in message


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data[:30] + bytes([data[30] ^ 1]) + data[31:],
        lambda data: data[:-6] + bytes([data[-6] ^ 128]) + data[-5:],
    ],
    ids=["truncated", "empty", "bit flip", "bit flip in the CRC"],
)
def test_damaged_file_is_named(tmp_path, fashion, damage: Callable[[bytes], bytes]):
    for file_name, data in fashion.items():
        write_files(tmp_path, fashion | {file_name: damage(data)})
        assert f"{file_name}' is damaged" in error_of("fashion_mnist", tmp_path)
        assert f"{file_name}' is damaged" in error_of(None, tmp_path)


def test_file_of_another_dataset_is_recognized(tmp_path, fashion, monkeypatch):
    mnist = dict(zip(idx.FILE_NAMES, map(idx_bytes, synthetic_arrays(seed=1)), strict=True))
    register(monkeypatch, "mnist", mnist)
    write_files(tmp_path, mnist)
    assert f"is MNIST's {TRAIN_IMAGES}, not Fashion-MNIST's" in error_of("fashion_mnist", tmp_path)
    assert load_dataset("mnist", tmp_path).name == "mnist"
    write_files(tmp_path, fashion | {TRAIN_LABELS: fashion[TEST_LABELS]})
    assert f"is Fashion-MNIST's {TEST_LABELS}, not" in error_of("fashion_mnist", tmp_path)


def test_unreadable_file(tmp_path, fashion, monkeypatch):
    write_files(tmp_path, fashion)

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    message = error_of("fashion_mnist", tmp_path)
    assert f"{TRAIN_IMAGES}': Permission denied" in message


def test_enormous_file_is_not_read(tmp_path, fashion):
    write_files(tmp_path, fashion)
    with (tmp_path / TRAIN_IMAGES).open("r+b") as file:
        file.truncate(2**40)  # sparse: it takes no space on the disk
    with peak_memory_below(2**20):
        assert f"{TRAIN_IMAGES}' is damaged" in error_of("fashion_mnist", tmp_path)


# Wrong contents with the right checksum: the reader does not rely on the checksum alone


IMAGES, LABELS, *_ = synthetic_arrays(seed=0)


@pytest.mark.parametrize(
    ("file_name", "data", "problem"),
    [
        (TRAIN_IMAGES, idx_bytes(IMAGES, magic=0x0D03), "not an IDX file of 3-dimensional bytes"),
        (TRAIN_IMAGES, idx_bytes(LABELS), "not an IDX file of 3-dimensional bytes"),
        (TRAIN_LABELS, idx_bytes(IMAGES), "not an IDX file of 1-dimensional bytes"),
        (TRAIN_IMAGES, idx_bytes(IMAGES, shape=(21, 28, 28)), "less than the 16464 bytes"),
        (TRAIN_IMAGES, idx_bytes(IMAGES, shape=(19, 28, 28)), "more than the 14896 bytes"),
        (TRAIN_IMAGES, idx_bytes(IMAGES, shape=(0, 28, 28)), "claims the shape (0, 28, 28)"),
        (TRAIN_LABELS, idx_bytes(LABELS, shape=(2**32 - 1,)), "claims the shape (4294967295,)"),
        (TRAIN_IMAGES, idx_bytes(IMAGES, shape=(2**32 - 1,) * 3), "claims the shape (4294967295, "),
        (TRAIN_IMAGES, gzip.compress(b"\0\0\x08\x03\0\0", mtime=0), "ends inside its IDX header"),
        (TRAIN_IMAGES, b"not gzip", "ends inside its IDX header"),
        (TRAIN_IMAGES, idx_bytes(IMAGES)[:-9], "not a complete gzip file"),
        (TRAIN_IMAGES, idx_bytes(IMAGES)[:-8] + bytes(8), "not a complete gzip file"),
        (TRAIN_LABELS, idx_bytes(LABELS[:-1]), "holds 20 images, but"),
        (TRAIN_LABELS, idx_bytes(LABELS + 10), "but Fashion-MNIST has 10 classes"),
        (TEST_IMAGES, idx_bytes(np.zeros((12, 9, 9), np.uint8)), "images of different sizes"),
    ],
)
def test_inconsistent_contents(tmp_path, fashion, monkeypatch, file_name, data, problem):
    files = fashion | {file_name: data}
    register(monkeypatch, "fashion_mnist", files)
    write_files(tmp_path, files)
    with peak_memory_below(2**20):
        message = error_of("fashion_mnist", tmp_path)
    assert problem in message
    assert file_name in message


def test_every_damaged_byte_is_detected():
    array = IMAGES[:2, :3, :4]
    packed = idx_bytes(array)
    for i in range(len(packed)):
        damaged = packed[:i] + bytes([packed[i] ^ 0x55]) + packed[i + 1 :]
        # Some fields of the gzip header do not affect the contents.
        with contextlib.suppress(UserError):
            found = idx.read_idx(io.BytesIO(damaged), "a file", 3, 10_000)
            np.testing.assert_array_equal(found, array)


def test_gzip_bomb_takes_no_more_memory_than_its_header_claims(tmp_path, fashion, monkeypatch):
    bomb = idx_bytes(np.zeros(2**26, np.uint8), shape=(20, 28, 28))
    files = fashion | {TRAIN_IMAGES: bomb}
    register(monkeypatch, "fashion_mnist", files)
    write_files(tmp_path, files)
    with peak_memory_below(2**21):
        assert "holds more than the 15680 bytes" in error_of("fashion_mnist", tmp_path)


def test_gzip_bomb_that_is_not_official_is_unpacked_to_the_limit_only(
    tmp_path, fashion, monkeypatch
):
    change(monkeypatch, "fashion_mnist", limit=2**20)
    write_files(tmp_path, fashion | {TRAIN_IMAGES: gzip.compress(bytes(2**26))})
    with peak_memory_below(2**22):
        assert f"{TRAIN_IMAGES}' is damaged" in error_of("fashion_mnist", tmp_path)
