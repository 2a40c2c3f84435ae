"""Downloads of the official files, and the fallback to digits if they fail.

No test uses the network: a server on the loopback address replaces the official host.
"""

import gzip
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nin_jax.data import download, idx
from nin_jax.data.datasets import FallbackWarning, load_dataset
from tests.support import synthetic_idx
from tests.support.file_server import serving
from tests.support.synthetic_idx import (
    TEST_IMAGES,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    change,
    error_of,
    write_files,
)

# pytest finds fixtures by the names in the module.
fashion, no_network_no_home = synthetic_idx.fashion, synthetic_idx.no_network_no_home
pytestmark = pytest.mark.usefixtures("no_network_no_home")


@pytest.fixture
def official_host(monkeypatch, fashion) -> Iterator[tuple[dict[str, bytes], list[str]]]:
    """A server for Fashion-MNIST: the files it serves, and the paths that were requested."""
    served = dict(fashion)
    with serving(served) as (url, requested):
        change(monkeypatch, "fashion_mnist", url=url)
        yield served, requested


def stored(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ["fashion_mnist", None])
def test_downloads_once_and_again_what_is_damaged(official_host, name):
    _, requested = official_host
    first = load_dataset(name)
    assert first.name == "fashion_mnist"
    assert requested == list(idx.FILE_NAMES)
    assert stored(download.user_folder()) == sorted(idx.FILE_NAMES)
    assert load_dataset(name).checksum == first.checksum
    assert len(requested) == 4
    (download.user_folder() / "fashion-mnist" / TEST_IMAGES).write_bytes(b"half a fi")
    assert load_dataset(name).checksum == first.checksum
    assert requested[4:] == [TEST_IMAGES]


def test_unpacked_files_are_not_downloaded_again(official_host):
    served, requested = official_host
    write_files(
        download.user_folder() / "FashionMNIST" / "raw",
        {name[:-3]: gzip.decompress(data) for name, data in served.items() if name != TEST_IMAGES},
    )
    load_dataset("fashion_mnist")
    assert requested == [TEST_IMAGES]


def test_files_of_another_dataset_are_not_overwritten(official_host):
    _, requested = official_host
    root = download.user_folder()
    other = dict.fromkeys(idx.FILE_NAMES, b"those of another dataset")
    write_files(root, other)
    first = load_dataset("fashion_mnist")
    assert requested == list(idx.FILE_NAMES)
    assert {name: (root / name).read_bytes() for name in other} == other
    assert sorted(os.listdir(root / "fashion-mnist")) == sorted(idx.FILE_NAMES)
    (root / "fashion-mnist" / TEST_IMAGES).unlink()  # as after a download that was interrupted
    assert load_dataset("fashion_mnist").checksum == first.checksum
    assert requested[4:] == [TEST_IMAGES]
    assert {name: (root / name).read_bytes() for name in other} == other


def test_nothing_is_downloaded_into_a_given_folder(official_host, tmp_path):
    _, requested = official_host
    error_of("fashion_mnist", tmp_path)
    assert requested == []


@pytest.mark.parametrize("answer", [None, b"<html>moved</html>"], ids=["404", "another file"])
def test_failed_download_leaves_no_file_behind(official_host, answer):
    served, _ = official_host
    served.pop(TEST_IMAGES)
    if answer is not None:
        served[TEST_IMAGES] = answer
    message = error_of("fashion_mnist", None)
    assert "cannot be downloaded" in message
    assert ("404" if answer is None else "does not match the known hash") in message
    assert stored(download.user_folder()) == [TRAIN_IMAGES, TRAIN_LABELS]


def test_download_is_retried(official_host, monkeypatch):
    served, requested = official_host
    good = served.pop(TRAIN_IMAGES)

    def repair(seconds: float) -> None:
        served[TRAIN_IMAGES] = good

    monkeypatch.setattr(download, "RETRIES", 1)
    monkeypatch.setattr(time, "sleep", repair)  # pooch waits before it tries again
    assert load_dataset("fashion_mnist").name == "fashion_mnist"
    assert requested[:2] == [TRAIN_IMAGES] * 2


def test_download_of_a_file_that_is_too_large_is_stopped(official_host, monkeypatch):
    change(monkeypatch, "fashion_mnist", limit=100)
    assert f"{TRAIN_IMAGES} sends more than 100 bytes" in error_of("fashion_mnist", None)
    assert stored(download.user_folder()) == []


def test_server_that_does_not_speak_http(fashion, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(b"220 mail ready\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        change(monkeypatch, "fashion_mnist", url=url)
        assert "cannot be downloaded" in error_of("fashion_mnist", None)
        thread.join()


def test_server_that_never_answers(fashion, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        change(monkeypatch, "fashion_mnist", url=url)
        assert "timed out" in error_of("fashion_mnist", None)


def test_error_without_network_gives_both_remedies():
    message = error_of("fashion_mnist", None)
    assert "either try again with a network, or put" in message
    assert all(file_name in message for file_name in idx.FILE_NAMES)
    assert "refused" in message


def test_user_folder_is_not_writable(official_host, tmp_path):
    write_files(tmp_path, {"user data": b"a file"})
    assert "cannot be downloaded" in error_of("fashion_mnist", None)
    with pytest.warns(FallbackWarning):
        assert load_dataset().name == "digits"


# Fallback


def test_default_falls_back_to_digits_with_a_notice():
    with pytest.warns(FallbackWarning, match="NOT FASHION-MNIST") as caught:
        dataset = load_dataset()
    assert dataset.checksum == load_dataset("digits").checksum
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)
    assert caught[0].filename == __file__
