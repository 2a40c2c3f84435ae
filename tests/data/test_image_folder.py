"""Image folders: what is read from them, and errors in folders and images."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nin_jax import UserError
from nin_jax.data import image_folder, listing
from nin_jax.data.datasets import load_dataset
from nin_jax.data.streaming import open_dataset
from nin_jax.runs import examples
from nin_jax.training.config import TrainConfig
from tests.bad_inputs.case import png
from tests.support import picture_folders
from tests.support.picture_folders import (
    error_of,
    hash_order,
    link,
    make_folder,
    pictures,
    save,
    two_classes,
)
from tests.support.resident_memory import growth

no_data_dir = picture_folders.no_data_dir  # pytest finds fixtures by their names


# Reading


def test_order_labels_and_class_names(tmp_path):
    images, labels = pictures(6, 4, 5), np.array([2, 0, 1, 0, 2, 1])
    root = make_folder(tmp_path / "set", images, labels)
    shutil.rmtree(root / "test" / "b")  # a class may be missing in test
    dataset = load_dataset(f"folder:{root}")
    order = hash_order([f"{'abc'[label]}/{i:04}.png" for i, label in enumerate(labels)])
    np.testing.assert_array_equal(dataset.train.images, images[order][..., None])
    assert dataset.train.labels.tolist() == labels[order].tolist()
    assert dataset.test.labels.tolist() == [label for label in labels[order] if label != 1]
    assert dataset.class_names == ("a", "b", "c")
    assert (dataset.image_shape, dataset.train.labels.dtype) == ((4, 5, 1), np.int32)
    assert (dataset.name, dataset.source) == (f"folder:{root}", "image folder")


def test_checksum_depends_on_names_and_sizes(tmp_path):
    root = two_classes(tmp_path / "set")

    def checksum() -> str:
        both = load_dataset(f"folder:{root}"), open_dataset(f"folder:{root}")
        assert both[0].checksum == both[1].checksum
        assert both[0].class_names == both[1].class_names
        assert both[0].source == both[1].source
        return both[0].checksum

    seen = {checksum()}
    assert len(seen.copy().pop()) == 64
    shutil.copytree(root, tmp_path / "other")
    assert open_dataset(f"folder:{tmp_path / 'other'}").checksum in seen
    picture = root / "test" / "b" / "0002.png"
    for change in (
        lambda: picture.write_bytes(picture.read_bytes() + b"\0"),
        lambda: picture.rename(picture.with_name("1.png")),
        lambda: shutil.move(root / "train" / "a" / "0000.png", root / "train" / "b" / "0000.png"),
    ):
        change()
        assert checksum() not in seen
        seen.add(checksum())


# The folders of the splits


@pytest.mark.parametrize("name", ["val", "validation", "Test", "VAL"])
def test_names_of_the_test_split(tmp_path, name):
    root = two_classes(tmp_path / "set")
    expected = load_dataset(f"folder:{root}")
    (root / "test").rename(root / name)
    (root / "train").rename(root / "Train")
    found = load_dataset(f"folder:{root}")
    assert found.checksum == expected.checksum
    np.testing.assert_array_equal(found.test.images, expected.test.images)
    note = f"the images of {name!r} are the test images"
    assert found.notes == (() if name == "Test" else (note,))


@pytest.mark.parametrize("feed", ["resident", "stream"])
def test_a_folder_without_test_images_needs_a_holdout(tmp_path, feed):
    make_folder(tmp_path, pictures(90, 4, 5), np.repeat([0, 1, 2], [60, 20, 10]))
    shutil.rmtree(tmp_path / "test")
    config = TrainConfig(dataset=f"folder:{tmp_path}", feed=feed)
    with pytest.raises(UserError, match="or give --holdout N"):
        examples.load_data(config)
    dataset = examples.load_data(replace(config, holdout=9))
    assert (len(dataset.train), len(dataset.test)) == (81, 9)
    labels = dataset.test.labels
    assert labels is not None
    assert np.bincount(labels).tolist() == [6, 2, 1]


def test_links_that_lead_out_are_followed_if_asked_for(tmp_path):
    root = two_classes(tmp_path / "set")
    expected = load_dataset(f"folder:{root}")
    move_out(root / "test", tmp_path / "out")
    move_out(root / "train" / "a", tmp_path / "a")
    move_out(root / "train" / "b" / "0002.png", tmp_path / "0002.png")
    assert "leads out of" in error_of(root)
    config = TrainConfig(dataset=f"folder:{root}", feed="resident", follow_links=True)
    found = examples.load_data(config)
    assert found.checksum == expected.checksum
    np.testing.assert_array_equal(found.train.images, expected.train.images)


def test_limits_and_holdout_have_all_classes(tmp_path):
    labels = np.repeat([0, 1, 2], 40)
    make_folder(tmp_path, pictures(120, 4, 5), labels)
    config = TrainConfig(dataset=f"folder:{tmp_path}", holdout=30, limit_train=30)
    read = []
    for feed in ("resident", "stream"):
        dataset = examples.load_data(replace(config, feed=feed))
        for split in (dataset.train, dataset.test):
            (images, found), *_ = split.read(np.arange(30), 30)
            assert np.bincount(found, minlength=3).min() >= 5
            read.append(images)
    assert np.bincount(found).tolist() == [10, 10, 10]
    np.testing.assert_array_equal(read[:2], read[2:])


def test_hidden_files_and_other_files_are_ignored(tmp_path):
    root = two_classes(tmp_path)
    before = open_dataset(f"folder:{root}")
    save(root / "train" / "a" / ".hidden.png", pictures(1, 9, 9)[0])
    save(root / "train" / ".cache" / "a.png", pictures(1, 9, 9)[0])
    (root / "train" / "readme.txt").write_text("of the set")
    (root / "train" / "a" / "readme.txt").write_text("of the class")
    (root / "train" / "a" / "folder.png").mkdir()
    os.mkfifo(root / "train" / "a" / "pipe.png")
    link(root / "train" / "a" / "notes.txt", Path("/etc/hostname"))
    save(root / "val" / "a" / "a.png", pictures(1, 4, 5)[0])
    after = open_dataset(f"folder:{root}")
    assert after.checksum == before.checksum
    assert len(after.train) == len(before.train) == 4
    assert before.notes == ()
    assert after.notes == load_dataset(f"folder:{root}").notes
    assert after.notes == (
        "4 files left out: 'train/readme.txt', 'train/a/notes.txt', 'train/a/pipe.png' and 1 more",
        "1 folder not used: 'val'",
    )


def test_a_link_to_a_folder_that_holds_it_is_refused(tmp_path):
    root = two_classes(tmp_path)
    link(root / "train" / "a" / "again", root / "train")
    assert "is a link to a folder that holds it" in error_of(root)
    with pytest.raises(UserError, match="holds it"):
        listing.find([root / "train"])


def test_links_inside_the_folder_are_followed(tmp_path):
    root = two_classes(tmp_path / "set")
    link(root / "train" / "a" / "again.png", root / "test" / "a" / "0000.png")
    link(root / "train" / "c", root / "train" / "b")
    link(tmp_path / "link", root)  # the folder itself may be a link
    dataset = load_dataset(f"folder:{tmp_path / 'link'}")
    assert sorted(dataset.train.labels.tolist()) == [0, 0, 0, 1, 1, 2, 2]
    np.testing.assert_array_equal(dataset.train.images[3:5], dataset.train.images[5:])


def test_relative_path_is_searched_for_in_the_data_folder_first(tmp_path, monkeypatch):
    here = two_classes(tmp_path / "here" / "set")
    there = make_folder(tmp_path / "there" / "set", pictures(1, 2, 2), np.array([0]))
    monkeypatch.chdir(here.parent)
    assert len(load_dataset("folder:set").train.labels) == 4
    assert len(load_dataset("folder:set", there.parent).train.labels) == 1
    assert len(open_dataset("folder:set", there.parent).train) == 1
    monkeypatch.setenv("NIN_DATA_DIR", str(there.parent))
    assert len(load_dataset("folder:set").train.labels) == 1
    assert len(load_dataset(f"folder:{here}").train.labels) == 4
    assert len(load_dataset("folder:set", tmp_path).train.labels) == 4  # not there, but here
    monkeypatch.setenv("HOME", str(here.parent))
    assert len(load_dataset("folder:~/set").train.labels) == 4


# Errors in folders


def move_out(folder: Path, target: Path) -> None:
    link(folder, folder.rename(target))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda root: shutil.rmtree(root), "does not exist; an image folder holds train/CLASS/"),
        (lambda root: shutil.rmtree(root / "train"), "has no folder 'train'; an image folder"),
        (lambda root: shutil.rmtree(root / "test"), "no folder 'test', 'val' or 'validation'; an"),
        (
            lambda root: [shutil.rmtree(p) for p in (root / "train").iterdir()],
            "train' has no class",
        ),
        (lambda root: [shutil.rmtree(p) for p in (root / "test").iterdir()], "test' has no class"),
        (lambda root: (root / "train" / "empty").mkdir(), "no images in '"),
        (lambda root: (root / "test" / "c").mkdir(), "has the class 'c' in test, but not in train"),
        (lambda root: [p.unlink() for p in (root / "test" / "b").iterdir()], "test/b'"),
        (lambda root: (root / "train" / "a\nb").mkdir(), r"a class cannot be called 'a\nb'"),
        (lambda root: link(root / "train" / "c", root.parent), "is a link that leads out of"),
        (lambda root: link(root / "test" / "a" / "x.png", root.parent / "x.png"), "leads out of"),
        (lambda root: move_out(root / "test", root.parent / "out"), "test' is a link that leads"),
        (lambda root: link(root / "test" / "a" / "x.png", root / "gone"), "No such file"),
        (lambda root: link(root / "test" / "a" / "x.png", root / "test/a/x.png"), "Too many"),
    ],
)
def test_wrong_folders(tmp_path, change: Callable[[Path], object], problem):
    root = two_classes(tmp_path / "set")
    change(root)
    assert problem in error_of(root)


@pytest.mark.parametrize("name", ["folder:", "folder:a\0b", "folder:" + "x" * 300])
def test_invalid_folder_names(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for read in (load_dataset, open_dataset):
        with pytest.raises(UserError, match="image folder"):
            read(name)


def test_file_in_place_of_a_folder(tmp_path):
    assert "is not a folder" in error_of(save(tmp_path / "a.png", pictures(1, 4, 4)[0]))


# Errors in images


PNG = Path("test", "b", "0002.png")  # not the first image, which is read when the folder is opened


@pytest.mark.parametrize("place", [PNG, Path("train", "a", "0000.png")])
@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda data: data[: len(data) // 2], "cannot read '"),
        (lambda data: data[:40] + b"\xff" + data[41:], "cannot read '"),
        (lambda data: b"", "not an image format that Pillow can read"),
        (lambda data: b"text", "not an image format that Pillow can read"),
        (lambda data: b"8BPS" + bytes(30), "not an image format that Pillow can read"),
        (lambda data: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 4\n", "not an image format"),
        (lambda data: png(60_000, 60_000), "exceeds limit"),
    ],
)
def test_damaged_images_are_named(tmp_path, place, damage, problem):
    root = two_classes(tmp_path / "set")
    (root / place).write_bytes(damage((root / place).read_bytes()))
    message = error_of(root)
    assert problem in message
    assert str(place) in message


def test_a_large_size_in_a_header_takes_no_memory(tmp_path):
    root = two_classes(tmp_path)
    image_folder.open_folder(str(root))  # the first one imports Pillow's decoders
    grown = growth()
    (root / PNG).write_bytes(png(9_000, 9_000))  # below the limit
    assert "pictures of 2 sizes, 5x4 to 9000x9000" in error_of(root)
    assert grown() < 20 * 10**6


def test_only_the_images_of_a_run_are_read(tmp_path):
    """With a limit, or if some are held out, an image that is not used may be damaged."""
    root = make_folder(tmp_path / "set", pictures(6, 8, 8), np.array([0, 1] * 3))
    names = [f"{'ab'[i % 2]}/{i:04}.png" for i in range(6)]
    last = root / "train" / names[hash_order(names)[-1]]
    last.write_bytes(last.read_bytes()[:-40])  # its header is whole
    config = TrainConfig(dataset=f"folder:{root}", image_size=8, feed="resident")
    with pytest.raises(UserError, match=last.name):
        examples.load_data(config)
    few = examples.load_data(replace(config, limit_train=5))
    assert few.train.labels.tolist() == [i % 2 for i in hash_order(names)[:5]]
