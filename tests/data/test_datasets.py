"""Datasets: reading them, and errors in folders and files."""

import gzip
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nin_jax.data import datasets, idx
from nin_jax.data.datasets import load_dataset
from tests.support import synthetic_idx
from tests.support.synthetic_idx import (
    error_of,
    idx_bytes,
    register,
    synthetic_arrays,
    write_files,
)

# pytest finds fixtures by the names in the module.
fashion, no_network_no_home = synthetic_idx.fashion, synthetic_idx.no_network_no_home
pytestmark = pytest.mark.usefixtures("no_network_no_home")

REAL_DATA = os.environ.get("NIN_DATA_DIR")  # read before a fixture hides it
REAL_CHECKSUM = "690bb3f5c635d3f3bd647b9826c4df030a94f722917662f0728e02ed29202de7"
DIGITS_CHECKSUM = "a2edc035772f5a3500f7a54e4fbcd1581a7bdb3744ec3b29c9642f5c819f2d06"


# Reading


@pytest.mark.parametrize("subfolder", ["", "fashion-mnist", "fashionmnist", "FashionMNIST/raw"])
def test_idx_files_are_found_in_the_usual_folders(tmp_path, fashion, subfolder):
    write_files(tmp_path / subfolder, fashion)
    dataset = load_dataset("fashion_mnist", str(tmp_path))
    expected = synthetic_arrays(seed=0)
    for split, images, labels in (
        (dataset.train, *expected[:2]),
        (dataset.test, *expected[2:]),
    ):
        np.testing.assert_array_equal(split.images, images[..., None])
        np.testing.assert_array_equal(split.labels, labels)
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int32
        assert split.images.flags.writeable
    assert (dataset.num_classes, dataset.image_shape) == (10, (28, 28, 1))
    assert dataset.source == "idx files"


def test_argument_overrides_the_environment_and_home_is_expanded(tmp_path, fashion, monkeypatch):
    folder = write_files(tmp_path / "data", fashion)
    monkeypatch.setenv("NIN_DATA_DIR", str(folder))
    assert load_dataset().name == "fashion_mnist"
    assert "does not exist" in error_of("fashion_mnist", tmp_path / "other")
    monkeypatch.setenv("NIN_DATA_DIR", str(tmp_path / "other"))
    assert load_dataset("fashion_mnist", folder).name == "fashion_mnist"
    assert "does not exist" in error_of(None, None)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_dataset("fashion_mnist", "~/data").name == "fashion_mnist"


def test_checksum_depends_on_the_arrays_only(tmp_path, fashion, monkeypatch):
    first = load_dataset("fashion_mnist", write_files(tmp_path / "a", fashion)).checksum
    assert load_dataset("fashion_mnist", write_files(tmp_path / "b", fashion)).checksum == first
    assert len(first) == 64
    for i in range(4):
        arrays = synthetic_arrays(seed=0)
        arrays[i].flat[3] ^= 1
        files = dict(zip(idx.FILE_NAMES, map(idx_bytes, arrays), strict=True))
        register(monkeypatch, "fashion_mnist", files)
        folder = write_files(tmp_path / str(i), files)
        assert load_dataset("fashion_mnist", folder).checksum != first


@pytest.mark.skipif(REAL_DATA is None, reason="NIN_DATA_DIR does not name the real files")
def test_real_fashion_mnist():
    assert REAL_DATA is not None
    dataset = load_dataset("fashion_mnist", REAL_DATA)
    assert dataset.train.images.shape == (60000, 28, 28, 1)
    assert dataset.test.images.shape == (10000, 28, 28, 1)
    assert np.bincount(dataset.train.labels).tolist() == [6000] * 10
    assert np.bincount(dataset.test.labels).tolist() == [1000] * 10
    assert dataset.train.labels[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]
    assert dataset.train.images.mean() / 255 == pytest.approx(0.2860, abs=5e-5)  # well known
    assert dataset.checksum == REAL_CHECKSUM
    fashion_mnist = idx.IDX_SETS["fashion_mnist"]
    folder = idx.locate(fashion_mnist, Path(REAL_DATA))
    for file_name, md5 in fashion_mnist.contents_md5.items():
        assert hashlib.md5(gzip.decompress((folder / file_name).read_bytes())).hexdigest() == md5


# Errors in folders and files


@pytest.mark.parametrize("name", ["fashion_mnist", None])  # no error here leads to the fallback
def test_wrong_folders(tmp_path, fashion, name):
    message = error_of(name, tmp_path / "nowhere")
    assert "does not exist" in message
    assert "either leave out --data-dir and NIN_DATA_DIR to download" in message
    assert idx.IDX_SETS["fashion_mnist"].url in message
    assert "has no Fashion-MNIST files" in error_of(name, tmp_path)
    write_files(tmp_path, {"file": b""})
    assert "is not a folder" in error_of(name, tmp_path / "file")
    assert "does not exist" in error_of(name, tmp_path / ("x" * 300))
    assert "does not exist" in error_of(name, tmp_path / "two\nlines")


def test_unknown_name():
    assert "did you mean fashion_mnist" in error_of("fashion-mnist", None)
    known = ", ".join(sorted([*datasets.list_datasets(), "tfds:NAME, folder:PATH"]))
    assert f"known: {known}" in error_of("cifar", None)


# Digits


def test_digits_split_is_stratified_fixed_and_complete():
    from sklearn.datasets import load_digits

    dataset = load_dataset("digits")
    assert dataset.train.images.shape == (1442, 8, 8, 1)
    assert dataset.test.images.shape == (355, 8, 8, 1)
    train, test = np.bincount(dataset.train.labels), np.bincount(dataset.test.labels)
    assert np.all(np.abs(test / (train + test) - 0.2) < 0.01)
    assert dataset.checksum == DIGITS_CHECKSUM
    values, labels = load_digits(return_X_y=True)
    both = [
        np.concatenate([getattr(dataset.train, field), getattr(dataset.test, field)])
        for field in ("images", "labels")
    ]
    rows = {(image.tobytes(), int(label)) for image, label in zip(*both, strict=True)}
    scaled = np.round(values * 255 / 16).astype(np.uint8)
    assert rows == {(v.tobytes(), int(label)) for v, label in zip(scaled, labels, strict=True)}
    assert (both[0].min(), both[0].max()) == (0, 255)
    assert (dataset.num_classes, dataset.source) == (10, "scikit-learn")


def test_import_does_not_load_large_packages():
    code = """
import sys

def assert_missing(*names):
    assert not set(names) & sys.modules.keys(), set(names) & sys.modules.keys()

from nin_jax.data import datasets
assert_missing("torch", "tensorflow", "tensorflow_datasets", "sklearn", "requests")
assert_missing("pooch", "platformdirs", "PIL")
datasets.load_dataset("digits")
import nin_jax.runs.fit
assert_missing("torch", "tensorflow", "matplotlib")
"""
    command = [sys.executable, "-W", "error", "-c", code]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2])
