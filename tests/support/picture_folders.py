"""Small image folders and the images in them."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nin_jax import UserError
from nin_jax.data.datasets import load_dataset
from nin_jax.data.streaming import open_dataset


@pytest.fixture(autouse=True)
def no_data_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the developer's folder in the modules that have this name."""
    monkeypatch.delenv("NIN_DATA_DIR", raising=False)


def pictures(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    """Return random images: uint8 [count, *shape]."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def save(path: Path, pixels: np.ndarray, **options) -> Path:
    """Save an image of shape [H, W], [H, W, 3], or [H, W, 4] with alpha; create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def make_folder(root: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    """Save the examples of the classes a, b and c as train and as test; return ``root``."""
    for split in ("train", "test"):
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            save(root / split / "abc"[label] / f"{i:04}.png", image)
    return root


def two_classes(root: Path) -> Path:
    """Create two classes of two grayscale images, 5 by 4 pixels."""
    return make_folder(root, pictures(4, 4, 5), np.array([0, 0, 1, 1]))


def hash_order(names: list[str]) -> list[int]:
    """Return the order in which images with the names CLASS/NAME are read."""
    return sorted(range(len(names)), key=lambda i: hashlib.sha256(names[i].encode()).digest())


def link(path: Path, target: Path) -> None:
    """Create a relative symbolic link, as an archive would hold it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(os.path.relpath(target, path.parent))


def error_of(root: Path) -> str:
    """Return the error message, which must be the same for loading and for streaming."""
    with pytest.raises(UserError) as caught:
        load_dataset(f"folder:{root}")
    with pytest.raises(UserError) as streamed:
        read_all(f"folder:{root}")
    assert str(streamed.value) == str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def read_all(name: str) -> None:
    opened = open_dataset(name)
    for source in (opened.train, opened.test):
        for i in range(len(source)):
            source.source[i]
