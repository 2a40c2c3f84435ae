"""Small IDX datasets in place of the official ones; fixtures for the tests of datasets.

Their checksums are entered in the table, so the tests need no real files.
"""

import contextlib
import dataclasses
import gzip
import hashlib
import socket
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nin_jax.data import download, idx
from nin_jax.data.built_in import official_sets
from nin_jax.data.datasets import load_dataset
from nin_jax.errors import UserError

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = idx.FILE_NAMES


def idx_bytes(array: np.ndarray, magic: int | None = None, shape: tuple[int, ...] = ()) -> bytes:
    """Return a gzipped IDX file; `magic` and `shape` replace the true values in the header."""
    shape = shape or array.shape
    magic = 0x0800 + len(shape) if magic is None else magic
    header = struct.pack(f">{1 + len(shape)}I", magic, *shape)
    return gzip.compress(header + array.tobytes(), mtime=0)


def synthetic_arrays(seed: int) -> list[np.ndarray]:
    """Return random train images, train labels, test images and test labels."""
    rng = np.random.default_rng(seed)
    shapes = ((20, 28, 28), (20,), (12, 28, 28), (12,))
    return [rng.integers(0, 10, shape, dtype=np.uint8) for shape in shapes]


def change(monkeypatch: pytest.MonkeyPatch, name: str, **fields: Any) -> None:
    """Replace fields of one entry of the table, until the end of the test."""
    changed = dataclasses.replace(idx.IDX_SETS[name], **fields)
    monkeypatch.setitem(idx.IDX_SETS, name, changed)


def register(monkeypatch: pytest.MonkeyPatch, name: str, files: dict[str, bytes]) -> None:
    """Make `files` the official files of the dataset `name`."""
    md5, contents_md5 = {}, {}
    for file_name, data in files.items():
        md5[file_name] = hashlib.md5(data).hexdigest()
        with contextlib.suppress(OSError, EOFError, zlib.error):  # of a file that is damaged
            contents_md5[file_name] = hashlib.md5(gzip.decompress(data)).hexdigest()
    change(monkeypatch, name, md5=md5, contents_md5=contents_md5)


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file_name, data in files.items():
        (folder / file_name).write_bytes(data)
    return folder


@pytest.fixture
def no_network_no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the developer's folders and make every official host unreachable."""
    monkeypatch.delenv("NIN_DATA_DIR", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "user_folder", lambda: tmp_path / "user data")
    monkeypatch.setattr(download, "RETRIES", 0)
    with socket.socket() as unused:  # a port that was free and refuses connections when closed
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
    for name in idx.IDX_SETS:
        change(monkeypatch, name, url=url)
    from tests.support.small_archives import change_official

    for name in official_sets():
        change_official(monkeypatch, name, url=url)


@pytest.fixture
def fashion(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Make a small dataset the official Fashion-MNIST; return its four files."""
    files = dict(zip(idx.FILE_NAMES, map(idx_bytes, synthetic_arrays(seed=0)), strict=True))
    register(monkeypatch, "fashion_mnist", files)
    return files


@contextlib.contextmanager
def peak_memory_below(limit: int) -> Iterator[None]:
    """Fail if Python and NumPy allocate more than `limit` bytes at once inside the block."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def error_of(name: str | None, folder: Path | None) -> str:
    """Return the message with which `load_dataset` fails."""
    with pytest.raises(UserError) as caught:
        load_dataset(name, folder)
    message = str(caught.value)
    assert "\n" not in message
    return message
