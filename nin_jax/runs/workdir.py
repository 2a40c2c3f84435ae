"""A run's folder: the names of its files, checks before a run, and the lock."""

import contextlib
import itertools
import os
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from nin_jax.errors import UserError, one_line
from nin_jax.training.config import TrainConfig

CONFIG, METRICS, SUMMARY = "config.json", "metrics.jsonl", "summary.json"
WEIGHTS, CHECKPOINTS, TENSORBOARD = "model.safetensors", "checkpoints", "tensorboard"
CURVES, CONFUSION, LOCK = "curves.png", "confusion.png", ".lock"


def check(config: TrainConfig) -> None:
    """Check the run's folder without writing anything.

    Raises:
        UserError: it is a file, cannot be written, already holds a run, or has no run to resume.
    """
    folder = config.workdir
    if folder is None:
        if config.resume:
            raise UserError("--resume needs --workdir, the folder of the run to continue")
        check_for_checkpoints("--workdir", _numbered(config, 1))
        return
    check_folder("--workdir", folder)
    check_for_checkpoints("--workdir", folder)
    holds_run = os.path.exists(folder / CONFIG)
    if holds_run and not config.resume:
        raise UserError(
            f"--workdir {folder} already holds a run: give --resume to continue it, or a new folder"
        )
    if config.resume and not holds_run:
        raise UserError(f"--workdir {folder} contains no run to resume")


def check_for_checkpoints(option: str, folder: Path) -> None:
    """Check that the libraries that write checkpoints can use a path.

    TensorStore reads some characters as its own syntax, and it takes a path as UTF-8, whatever the
    locale is.

    Args:
        option: the option that names the folder, for the message.
        folder: its path.

    Raises:
        UserError: they cannot.
    """
    path = str(folder.absolute())
    if found := re.search(r"[\[\]*?\\]|:(?=/|$)", path):
        raise UserError(
            f"{option} {folder}: the checkpoint library cannot use a path with {found[0]}: "
            "choose another folder, or rename it"
        )
    try:
        same = path.encode() == os.fsencode(path)
    except UnicodeError:
        same = False
    if not same:
        raise UserError(
            f"{option} {folder} is not UTF-8 text: this locale encodes paths as "
            f"{sys.getfilesystemencoding()}; set LC_ALL=C.UTF-8 or PYTHONUTF8=1, or choose another "
            "folder"
        )


def check_folder(option: str, folder: Path) -> None:
    """Check, without writing anything, that a folder exists or can be made, and is writable.

    Args:
        option: the option that names the folder, for the message.
        folder: its path.

    Raises:
        UserError: it is a URL or a file, cannot be made, or is not writable.
    """
    if url := re.match(r"([A-Za-z][\w+.-]+):/+", str(folder)):  # a Path has lost the second slash
        raise UserError(
            f"{option} {url[1]}://{str(folder)[url.end() :]} is a URL: give a folder of a file "
            "system, or mount the bucket as one"
        )
    if os.path.exists(folder) and not folder.is_dir():
        raise UserError(f"{option} {folder} is a file, not a folder")
    # Path.exists would raise if a name is too long.
    parent = next(p for p in (folder, *folder.absolute().parents) if os.path.exists(p))
    if not parent.is_dir():
        raise UserError(f"{option} {folder} cannot be made: {parent} is a file")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"{option} {folder} is not writable")


def check_file(path: Path, *, replace: bool = False) -> None:
    """Check, without writing anything, that a file can be made.

    Args:
        path: of the file.
        replace: whether one of this name may exist.

    Raises:
        UserError: it exists already, is a folder, or its folder does not exist or is not writable.
    """
    if os.path.isdir(path) or (not replace and os.path.lexists(path)):
        raise UserError(f"{path} exists already")
    if not os.path.isdir(path.parent):
        raise UserError(f"{path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UserError(f"{path}: the folder {path.parent} is not writable")


def make_folder(option: str, folder: Path) -> None:
    """Make the folder if it does not exist.

    Raises:
        UserError: it cannot be made.
    """
    with one_line(f"{option} {folder} cannot be made"):
        folder.mkdir(parents=True, exist_ok=True)


def claim(config: TrainConfig) -> Path:
    """Make the run's folder and return it; without a ``workdir``, the first free one in runs/.

    Raises:
        UserError: it cannot be made.
    """
    try:
        if config.workdir is None:
            return _first_free(config)
        config.workdir.mkdir(parents=True, exist_ok=True)
        return config.workdir
    except OSError as error:
        raise UserError(f"cannot make {error.filename}: {error.strerror}") from None


def _numbered(config: TrainConfig, number: int) -> Path:
    return Path("runs", f"{Path(config.variant).stem}-{number:03d}")


def _first_free(config: TrainConfig) -> Path:
    # Made alone: if "runs" is a file or a dead link, a FileExistsError does not mean a used number.
    Path("runs").mkdir(exist_ok=True)
    for number in itertools.count(1):
        folder = _numbered(config, number)
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise AssertionError("unreachable")


@contextlib.contextmanager
def locked(folder: Path, option: str = "--workdir") -> Iterator[None]:
    """Hold the folder's lock; the system releases it however the process ends.

    Args:
        folder: of a run, or of a study.
        option: the option that names the folder, for the message.

    Raises:
        UserError: another process holds it, or the folder cannot be written or locked.
    """
    path = folder / LOCK
    # No fallback to a lock without flock: that one would outlive a process that is killed.
    lock = FileLock(path, blocking=False, fallback_to_soft=False)
    try:
        lock.acquire()
        path.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
    except Timeout:
        holder = path.read_text(encoding="utf-8") or "another process"
        raise UserError(f"{option} {folder} is in use by {holder}") from None
    except OSError as error:
        raise UserError(f"{option} {folder} is not writable: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()
