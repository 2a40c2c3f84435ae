"""Streaming: the same examples as in the arrays, in order, read only a few batches ahead."""

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from nin_jax import UserError
from nin_jax.data.datasets import Dataset, load_dataset
from nin_jax.data.streaming import Source, StreamedSplit, batches, open_dataset
from tests.data.test_tfds import GRAY, SMALL, TWO_CLASSES, probe
from tests.support.array_source import ArraySource
from tests.support.picture_folders import hash_order, make_folder, pictures

IMAGES = pictures(200, 4, 5, 3)
LABELS = np.random.default_rng(1).integers(0, 3, 200).astype(np.int32)
ORDER = np.concatenate([np.random.default_rng(2).permutation(200), np.full(40, -1)])


class Counting(ArraySource):
    """Count the reads, and delay some of them so that threads finish out of order."""

    def __init__(self) -> None:
        super().__init__(IMAGES, LABELS)
        self.read, self._lock = 0, threading.Lock()

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        with self._lock:
            self.read += 1
        time.sleep(0.002 * (index % 16 == 0))
        return super().__getitem__(index)


class Damaged(ArraySource):
    """Example 150 cannot be read."""

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        if index == 150:
            raise UserError("a.png is damaged")
        return super().__getitem__(index)


@pytest.fixture(autouse=True)
def no_threads_are_left():
    yield
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and reading_threads():
        time.sleep(0.001)
    assert not reading_threads()


def reading_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("grain")]


def all_of(source: Source, order: np.ndarray, batch_size: int, **options: Any) -> Any:
    """Return all batches concatenated: uint8 [N, H, W, C], int32 [N]."""
    images, labels = zip(*batches(source, order, batch_size, **options), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def check_same(source: Source, images: np.ndarray, labels: np.ndarray) -> None:
    """Compare all examples, from last to first, in batches of two, with padding if needed."""
    order = np.arange(len(labels) + len(labels) % 2)[::-1].copy()
    order[order == len(labels)] = -1
    found = all_of(source, order, 2)
    np.testing.assert_array_equal(found[0][order >= 0][::-1], images)
    np.testing.assert_array_equal(found[1][order >= 0][::-1], labels)
    assert len(source) == len(labels)
    assert source.image_shape == images.shape[1:]


# Batches


@pytest.mark.parametrize(
    ("batch_size", "threads"), [(1, 8), (15, 8), (16, 1), (16, 8), (20, 8), (240, 8)]
)
def test_order_and_padding_do_not_depend_on_the_threads(batch_size, threads):
    images, labels = all_of(Counting(), ORDER, batch_size, threads=threads)
    present = ORDER >= 0
    np.testing.assert_array_equal(images[present], IMAGES[ORDER[present]])
    np.testing.assert_array_equal(labels[present], LABELS[ORDER[present]])
    assert not images[~present].any()
    assert not labels[~present].any()


def test_shapes_and_types():
    found = list(batches(ArraySource(IMAGES, LABELS.astype(np.int64)), ORDER, 24))
    assert len(found) == 10
    for images, labels in found:
        assert (images.shape, images.dtype) == ((24, 4, 5, 3), np.uint8)
        assert (labels.shape, labels.dtype) == ((24,), np.int32)
    assert list(batches(ArraySource(IMAGES, LABELS), ORDER[:0], 24)) == []


def test_indices_must_fill_batches():
    with pytest.raises(ValueError, match="reshape"):
        next(batches(ArraySource(IMAGES, LABELS), ORDER[:30], 20))


@pytest.mark.parametrize("prefetch", [0, 1, 2])
def test_reads_no_further_ahead_than_asked(prefetch):
    source = Counting()
    found = batches(source, np.tile(np.arange(200), 3), 20, prefetch=prefetch)
    assert source.read == 0
    for done in range(1, 6):
        next(found)
        ahead = 20 * (done + prefetch)
        deadline = time.monotonic() + 10
        while source.read < ahead and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)  # enough time to read more
        assert source.read == ahead
    found.close()
    assert source.read == 20 * (5 + prefetch)


def test_closed_or_deleted_reader_leaves_no_threads():
    readers = [batches(Counting(), ORDER, 20) for _ in range(3)]  # the first is never started
    next(readers[1])
    readers[1].close()
    next(readers[2])
    assert reading_threads()
    del readers


def test_error_is_raised_with_its_batch():
    order, found = np.arange(200), []
    with pytest.raises(UserError) as caught:
        found += [labels for _, labels in batches(Damaged(IMAGES, LABELS), order, 20)]
    assert str(caught.value) == "a.png is damaged"
    reader = batches(Damaged(IMAGES, LABELS), order, 20)
    np.testing.assert_array_equal(np.concatenate([next(reader)[1] for _ in range(7)]), LABELS[:140])
    with pytest.raises(UserError, match="damaged"):
        next(reader)


def test_exit_while_reading_is_silent_and_immediate():
    code = (
        "import numpy as np; from nin_jax.data import streaming; "
        "from tests.support import array_source; "
        "source = array_source.ArraySource(np.zeros((64, 2, 2, 1), np.uint8), np.zeros(64, int)); "
        "found = streaming.batches(source, np.arange(64), 2); next(found)"
    )
    command = [sys.executable, "-W", "error", "-X", "dev", "-c", code]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


# Sources


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)])
def test_image_folder_holds_the_same_as_its_arrays(tmp_path, shape):
    images, labels = pictures(40, *shape), np.sort(LABELS[:40])
    make_folder(tmp_path, images, labels)
    name = f"folder:{tmp_path}"
    dataset, streamed = load_dataset(name), open_dataset(name)
    order = hash_order([f"{'abc'[label]}/{i:04}.png" for i, label in enumerate(labels)])
    for source, split in ((streamed.train, dataset.train), (streamed.test, dataset.test)):
        check_same(source.source, images.reshape(40, 4, 5, -1)[order], labels[order])
        check_same(source.source, split.images, split.labels)


def test_damaged_image_among_threads(tmp_path):
    make_folder(tmp_path, pictures(40, 4, 5), np.zeros(40, np.int32))
    source = open_dataset(f"folder:{tmp_path}").train.source
    damaged = tmp_path / "train" / "a" / "0033.png"
    damaged.write_bytes(damaged.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"cannot read '.*0033.png'"):
        all_of(source, np.arange(40), 20)


# Datasets prepared by tensorflow-datasets


def prepare(folder: Path, images: np.ndarray) -> str:
    """Prepare images with the labels 0, 1, 2, ...; return the name for `load_dataset`."""
    feature = tfds.features.Image(shape=(None, None, 3)) if images.ndim == 4 else GRAY
    names = tfds.features.ClassLabel(names=[f"class {i}" for i in range(len(images))])
    return probe(folder, list(images), feature, names)


def opened(folder: Path) -> Dataset[StreamedSplit]:
    return open_dataset("tfds:probe_builder", folder)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)])
def test_prepared_dataset_holds_the_same_as_its_arrays(tmp_path, shape):
    images = pictures(40, *shape)
    name = prepare(tmp_path, images)
    dataset, streamed = load_dataset(name, tmp_path), open_dataset(name, tmp_path)
    for source, split in ((streamed.train, dataset.train), (streamed.test, dataset.test)):
        check_same(source.source, images.reshape(40, 4, 5, -1), np.arange(40))
        check_same(source.source, split.images, split.labels)
    for field in ("name", "class_names", "source", "num_classes", "image_shape"):
        assert getattr(streamed, field) == getattr(dataset, field)


def test_checksum_of_a_prepared_dataset(tmp_path):
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        prepare(tmp_path / folder, pictures(3, 4 + seed, 5))
    first = opened(tmp_path / "a").checksum
    assert len(first) == 64
    assert opened(tmp_path / "b").checksum == first
    assert opened(tmp_path / "c").checksum != first


def error_of(folder: Path) -> str:
    """Return the error message of streaming; loading must fail too, in the same split."""
    with pytest.raises(UserError) as streamed:
        all_of(opened(folder).train.source, np.arange(2), 2)
    with pytest.raises(UserError) as loaded:
        load_dataset("tfds:probe_builder", folder)
    for error in (streamed, loaded):
        assert "\n" not in str(error.value)
        assert "split train: " in str(error.value)
    return str(streamed.value)


def test_errors_in_prepared_datasets(tmp_path):
    probe(tmp_path / "shapes", [SMALL, SMALL[:3]], GRAY, TWO_CLASSES)
    assert error_of(tmp_path / "shapes").endswith(
        "split train: image 1 has shape (3, 4, 1), image 0 (4, 4, 1); all images must share one "
        "shape"
    )
    prepare(tmp_path, pictures(2, 4, 5))
    folder = tmp_path / "probe_builder" / "1.0.0"
    (folder / "label.labels.txt").write_text("one\n")
    assert "image 1 has label 1, classes: 1" in error_of(tmp_path)
    records = next(folder.glob("*train.array_record*"))
    data = bytearray(records.read_bytes())
    data[data.rindex(b"IDAT") + 10] ^= 255  # in the last record
    records.write_bytes(data)
    assert "image 1: " in error_of(tmp_path)
    for damaged in (data[:70000], b""):
        records.write_bytes(damaged)
        error_of(tmp_path)
    records.unlink()
    error_of(tmp_path)


def test_splits_of_different_shapes(tmp_path):
    for folder, shape in (("one", (4, 5)), ("other", (5, 4))):
        prepare(tmp_path / folder, pictures(2, *shape))
    files = [next((tmp_path / f).rglob("*test.array_record*")) for f in ("one", "other")]
    files[1].replace(files[0])
    with pytest.raises(UserError, match=r"training images .*\(4, 5, 1\), test images \(5, 4, 1\)"):
        opened(tmp_path / "one")


def test_image_that_needs_another_program_is_rejected(tmp_path):
    """Pillow starts Ghostscript for PostScript, and Ghostscript runs the program in the file."""
    prepare(tmp_path, pictures(1, 64, 64))
    records = next(tmp_path.rglob("*train.array_record*"))
    assert records.read_bytes().count(b"\x89PNG") == 1
    source: Any = opened(tmp_path).train.source
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n"
    source._records = [{"image": script, "label": 0}]
    with pytest.raises(UserError, match="image 0: cannot identify image"):
        source[0]
