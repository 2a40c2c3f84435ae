"""A run's folder: what lies in it, and who may write there."""

import contextlib
import fcntl
import itertools
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from nin_jax.errors import UserError
from nin_jax.training.config import TrainConfig

CONFIG, METRICS, SUMMARY = "config.json", "metrics.jsonl", "summary.json"
WEIGHTS, CHECKPOINTS, TENSORBOARD = "model.safetensors", "checkpoints", "tensorboard"
CURVES, CONFUSION, LOCK = "curves.png", "confusion.png", ".lock"


def check(config: TrainConfig) -> None:
    """Finds out, writing nothing, whether the run may have the folder it asks for.

    Raises:
        UserError: it is a file, cannot be written, already holds a run, or holds none to resume.
    """
    folder = config.workdir
    if folder is None:
        if config.resume:
            raise UserError("--resume needs --workdir, the folder of the run to continue")
        return
    check_folder("--workdir", folder)
    holds_run = os.path.exists(folder / CONFIG)
    if holds_run and not config.resume:
        raise UserError(
            f"--workdir {folder} already holds a run: give --resume to continue it, or a new folder"
        )
    if config.resume and not holds_run:
        raise UserError(f"--workdir {folder} holds no run to resume")


def check_folder(option: str, folder: Path) -> None:
    """Finds out, writing nothing, whether a folder is there or can be made, and be written into.

    Raises:
        UserError: naming the option that asked for it.
    """
    if os.path.exists(folder) and not folder.is_dir():
        raise UserError(f"{option} {folder} is a file, not a folder")
    # Path.exists raises where a name is too long; such a folder cannot be made.
    parent = next(p for p in (folder, *folder.absolute().parents) if os.path.exists(p))
    if not parent.is_dir():
        raise UserError(f"{option} {folder} cannot be made: {parent} is a file")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"{option} {folder} is not writable")


def make_folder(option: str, folder: Path) -> None:
    """Makes the folder if it is not there.

    Raises:
        UserError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{option} {folder} cannot be made: {error.strerror}") from None


def claim(config: TrainConfig) -> Path:
    """The run's folder, made if need be; without a ``workdir``, the first free one under runs/.

    Raises:
        UserError: it cannot be made.
    """
    try:
        if config.workdir is None:
            return _first_free(Path("runs"), Path(config.variant).stem)
        config.workdir.mkdir(parents=True, exist_ok=True)
        return config.workdir
    except OSError as error:
        raise UserError(f"cannot make {error.filename}: {error.strerror}") from None


def _first_free(parent: Path, name: str) -> Path:
    for number in itertools.count(1):
        folder = parent / f"{name}-{number:03d}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    raise AssertionError("unreachable")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the folder for this process; the system lets go of it however the process ends.

    Raises:
        UserError: another process holds it.
    """
    try:
        file = open(folder / LOCK, "a+", encoding="utf-8")  # noqa: SIM115 - closed below
    except OSError as error:
        raise UserError(f"--workdir {folder} is not writable: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise UserError(f"--workdir {folder} is in use by {file.read().strip()}") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield
