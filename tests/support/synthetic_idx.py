"""Small IDX sets that pass for the official ones; fixtures for the tests of data sets.

The sets get their own checksums in the table, so that the tests need no real files.
"""

import contextlib
import dataclasses
import gzip
import hashlib
import socket
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nin_jax.data import idx
from nin_jax.data.datasets import load_dataset
from nin_jax.errors import UserError

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = idx.FILE_NAMES


def idx_bytes(array: np.ndarray, magic: int | None = None, shape: tuple[int, ...] = ()) -> bytes:
    """A gzipped IDX file; a header that lies on request."""
    shape = shape or array.shape
    magic = 0x0800 + len(shape) if magic is None else magic
    header = struct.pack(f">{1 + len(shape)}I", magic, *shape)
    return gzip.compress(header + array.tobytes(), mtime=0)


def synthetic_arrays(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = ((20, 28, 28), (20,), (12, 28, 28), (12,))
    return [rng.integers(0, 10, shape, dtype=np.uint8) for shape in shapes]


def change(monkeypatch: pytest.MonkeyPatch, name: str, **fields: Any) -> None:
    """Replaces fields of one row of the table of sets, until the end of the test."""
    changed = dataclasses.replace(idx.IDX_SETS[name], **fields)
    monkeypatch.setitem(idx.IDX_SETS, name, changed)


def register(monkeypatch: pytest.MonkeyPatch, name: str, files: dict[str, bytes]) -> None:
    """Makes `files` the official files of the data set `name`."""
    md5 = {file_name: hashlib.md5(data).hexdigest() for file_name, data in files.items()}
    change(monkeypatch, name, md5=md5)


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file_name, data in files.items():
        (folder / file_name).write_bytes(data)
    return folder


@pytest.fixture
def no_network_no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reads the developer's folders, and no official host is reachable."""
    monkeypatch.delenv("NIN_DATA_DIR", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(idx, "user_folder", lambda: tmp_path / "user data")
    with socket.socket() as unused:  # a port that was free and refuses connections when closed
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
    for name in idx.IDX_SETS:
        change(monkeypatch, name, url=url)


@pytest.fixture
def fashion(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """A small set that passes for the official Fashion-MNIST, as its four files."""
    files = dict(zip(idx.FILE_NAMES, map(idx_bytes, synthetic_arrays(seed=0)), strict=True))
    register(monkeypatch, "fashion_mnist", files)
    return files


@contextlib.contextmanager
def peak_memory_below(limit: int) -> Iterator[None]:
    """Fails if Python and NumPy hold more than `limit` new bytes at once inside the block."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def error_of(name: str | None, folder: Path | None) -> str:
    with pytest.raises(UserError) as caught:
        load_dataset(name, folder)
    message = str(caught.value)
    assert "\n" not in message
    return message
