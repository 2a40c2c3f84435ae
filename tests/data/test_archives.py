"""CIFAR-10, CIFAR-100, SVHN and EMNIST: found by their checksums, or downloaded once."""

import errno
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nin_jax.data import download, emnist, tfds_builders
from nin_jax.data.built_in import BUILT_IN
from nin_jax.data.datasets import load_dataset
from tests.support import synthetic_idx
from tests.support.file_server import serving
from tests.support.small_archives import (
    FILES,
    MAKERS,
    change_official,
    cifar_members,
    make_official,
    official_of,
)
from tests.support.synthetic_idx import error_of, peak_memory_below, write_files

no_network_no_home = synthetic_idx.no_network_no_home  # pytest finds fixtures by their names
pytestmark = pytest.mark.usefixtures("no_network_no_home")


@pytest.mark.parametrize("name", MAKERS)
def test_images_and_labels_are_those_of_the_archive(tmp_path, monkeypatch, name):
    made = make_official(monkeypatch, name)
    dataset = load_dataset(name, write_files(tmp_path, made.files))
    for split, (images, labels) in ((dataset.train, made.train), (dataset.test, made.test)):
        np.testing.assert_array_equal(split.images, images)
        np.testing.assert_array_equal(split.labels, labels)
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)
        assert split.images.flags.c_contiguous
    assert dataset.image_shape == BUILT_IN[name].image_shape
    assert dataset.num_classes == len(set(dataset.class_names)) == dataset.train.labels.max() + 1


def test_the_names_of_the_classes():
    names = {name: each.class_names for name, each in BUILT_IN.items()}
    assert (names["cifar10"][0], names["cifar10"][9]) == ("airplane", "truck")
    assert (len(names["cifar100"]), list(names["cifar100"])) == (100, sorted(names["cifar100"]))
    assert names["svhn"][0] == "0"
    assert [len(names[each]) for each in emnist.EMNIST_SPLITS] == [47, 62, 47, 26, 10, 10]
    assert (names["emnist"][10], names["emnist"][36]) == ("A", "a")
    assert names["emnist:letters"][0] == "a"


@pytest.mark.parametrize("subfolder", ["", "cifar-10", "CIFAR10", "cifar10/cifar-10-batches-bin"])
def test_files_are_found_in_the_usual_folders(tmp_path, monkeypatch, subfolder):
    made = make_official(monkeypatch, "cifar10")
    write_files(tmp_path / "packed" / subfolder, made.files)
    packed = load_dataset("cifar10", tmp_path / "packed")
    members = cifar_members("cifar10")
    sha1 = {name: hashlib.sha1(data).hexdigest() for name, data in members.items()}
    change_official(monkeypatch, "cifar10", unpacked=sha1)
    write_files(tmp_path / "unpacked" / subfolder, members)
    assert load_dataset("cifar10", tmp_path / "unpacked").checksum == packed.checksum
    (tmp_path / "unpacked" / subfolder / "data_batch_3.bin").write_bytes(members["test_batch.bin"])
    message = error_of("cifar10", tmp_path / "unpacked")
    assert "data_batch_3.bin' is damaged or not CIFAR-10's" in message
    assert f"its SHA-1 is not {sha1['data_batch_3.bin']}" in message
    (tmp_path / "unpacked" / subfolder / "data_batch_3.bin").unlink()
    assert "lacks data_batch_3.bin; to get CIFAR-10" in error_of("cifar10", tmp_path / "unpacked")


@pytest.mark.parametrize("name", FILES)
def test_files_are_downloaded_once(tmp_path, monkeypatch, name):
    made = make_official(monkeypatch, name)
    with serving(made.files) as (url, requested):
        change_official(monkeypatch, name, url=url)
        first = load_dataset(name)
        assert requested == list(made.files)
        assert load_dataset(name).checksum == first.checksum
        assert len(requested) == len(made.files)
        (download.user_folder() / official_of(name).folder / FILES[name]).write_bytes(b"half a fi")
        assert load_dataset(name).checksum == first.checksum
        assert requested[len(made.files) :] == [FILES[name]]
        error_of(name, tmp_path)  # nothing is downloaded into a folder that the user named
        assert len(requested) == len(made.files) + 1


@pytest.mark.parametrize("name", FILES)
def test_missing_and_damaged_files_are_named(tmp_path, monkeypatch, name):
    made, title = make_official(monkeypatch, name), official_of(name).title
    remedy = f"to get {title}, either leave out --data-dir and NIN_DATA_DIR to download it, or put"
    assert remedy in error_of(name, tmp_path / "nowhere")
    assert f"has no {title} files; {remedy}" in error_of(name, tmp_path)
    assert f"{title} is not on this machine and cannot be downloaded" in error_of(name, None)
    for damage in (b"", made.files[FILES[name]][:-9], made.files[FILES[name]] + b"\0"):
        write_files(tmp_path, made.files | {FILES[name]: damage})
        message = error_of(name, tmp_path)
        assert f"{FILES[name]}' is damaged or not {title}'s: it has {len(damage):,} b" in message
        assert remedy in message


def test_missing_half_of_svhn(tmp_path, monkeypatch):
    made = make_official(monkeypatch, "svhn")
    write_files(tmp_path, {"train_32x32.mat": made.files["train_32x32.mat"]})
    assert "lacks test_32x32.mat;" in error_of("svhn", tmp_path)
    write_files(tmp_path, made.files)
    (note,) = load_dataset("svhn", tmp_path).notes
    assert note.startswith("extra_32x32.mat")


def test_a_folder_that_cannot_be_read_has_no_files(tmp_path, monkeypatch):
    made = make_official(monkeypatch, "cifar10")
    locked = write_files(tmp_path / "cifar-10", made.files)
    stat = os.stat

    def refuse(path, **options):  # the superuser may read any folder
        if isinstance(path, str | os.PathLike) and locked in Path(path).parents:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", refuse)
        assert f"{str(tmp_path)!r} has no CIFAR-10 files" in error_of("cifar10", tmp_path)


def test_enormous_file_is_not_read(tmp_path, monkeypatch):
    made = make_official(monkeypatch, "cifar10")
    write_files(tmp_path, made.files)
    with (tmp_path / FILES["cifar10"]).open("r+b") as file:
        file.truncate(2**40)  # sparse: it takes no space on the disk
    with peak_memory_below(2**20):
        assert "is damaged" in error_of("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("name", "file", "version"),
    [
        ("cifar10", "cifar-10-python.tar.gz", "Python version, which is pickled"),
        ("cifar10", "cifar-10-batches-py/data_batch_1", "Python version, which is pickled"),
        ("cifar10", "cifar10/cifar-10-matlab.tar.gz", "Matlab version"),
        ("cifar100", "cifar-100-python.tar.gz", "Python version, which is pickled"),
        ("svhn", "train.tar.gz", "format 1"),
        ("emnist", "matlab.zip", "Matlab version"),
    ],
)
def test_another_version_is_named(tmp_path, name, file, version):
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"another version")
    message = error_of(name, tmp_path)
    official = official_of(name)
    place = path if path.parent.name in (tmp_path.name, official.folder) else path.parent
    assert f"{str(place)!r} is {official.title}'s {version}" in message
    assert f"or put {', '.join(official.md5)} from {official.url} there" in message


def test_another_version_with_the_official_name_is_known_by_its_checksum(tmp_path, monkeypatch):
    pickled = b"\x80\x04N."
    others = {"cifar-10-python.tar.gz": (hashlib.md5(pickled).hexdigest(), "Python version")}
    change_official(monkeypatch, "cifar10", others=others)
    write_files(tmp_path, {FILES["cifar10"]: pickled})
    assert "binary.tar.gz' is CIFAR-10's Python version" in error_of("cifar10", tmp_path)


@pytest.mark.slow
def test_a_run_on_cifar10(script, tmp_path, tiny, monkeypatch):
    """Held-out images, limits and the names of the classes work as with the other datasets."""
    made = make_official(monkeypatch, "cifar10")
    folder, run = write_files(tmp_path / "data", made.files), tmp_path / "run"
    outcome = script(
        *("train", "--variant", tiny, "--recipe", "modern", "--dataset", "cifar10"),
        *("--data-dir", folder, "--image-size", 32, "--augment", "pad_crop", "--epochs", 1),
        *("--batch-size", 6, "--holdout", 5, "--limit-train", 12, "--workdir", run),
        *("--optimizer", "sgd", "--lr", 0.01),
    )
    assert outcome.code == 0, outcome.err
    assert json.loads((run / "summary.json").read_text())["train_images"] == 12
    Image.fromarray(made.test[0][0]).save(tmp_path / "picture.png")
    outcome = script("predict", tmp_path / "picture.png", "--workdir", run)
    assert any(name in outcome.out for name in BUILT_IN["cifar10"].class_names), outcome


@pytest.mark.parametrize(
    ("name", "prepared"),
    [("cifar10", "tfds:nin_cifar10"), ("emnist:letters", "tfds:nin_emnist_letters")],
)
def test_prepared_for_tensorflow_datasets(tmp_path, monkeypatch, name, prepared):
    made = make_official(monkeypatch, name)
    folder = write_files(tmp_path / "data", made.files)
    assert tfds_builders.prepare(name, folder, tmp_path / "out")[0] == prepared
    expected, found = load_dataset(name, folder), load_dataset(prepared, tmp_path / "out")
    assert found.checksum == expected.checksum
    assert found.class_names == expected.class_names
