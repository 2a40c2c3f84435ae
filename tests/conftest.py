"""Fixtures: a tiny network in a file, and the scripts as a user runs them."""

import contextlib
import fcntl
import json
import runpy
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from filelock import FileLock

if TYPE_CHECKING:
    from nin_jax.training.config import TrainConfig

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"

TINY_TOML = """
dropout = 0.5
[[stages]]
channels = 8
kernel = 3
padding = 1
[[stages]]
channels = 16
kernel = 3
padding = 1
"""


class Outcome(NamedTuple):
    """A script's exit code, standard output and standard error."""

    code: int
    out: str
    err: str


@pytest.fixture
def tiny(tmp_path) -> Path:
    """A variant file small enough to train in a second."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY_TOML)
    return path


@pytest.fixture
def script(monkeypatch, capsys, tmp_path) -> Callable[..., Outcome]:
    """A function that runs ``scripts/NAME.py`` in this process, in an empty folder."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(name: str, *arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 0
        return Outcome(code, *capsys.readouterr())

    return run


@contextlib.contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, as another process that writes there would."""
    folder.mkdir()
    with open(folder / ".lock", "w") as lock:
        lock.write("process 123 on host")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    assert [path.name for path in folder.iterdir()] == [".lock"]  # nothing was written


@pytest.fixture
def config(tmp_path) -> "TrainConfig":
    """The configuration of a small run in its own folder."""
    from tests.support.disturbed import config_in

    return replace(config_in(tmp_path), checkpoint_every="1h")  # a checkpoint takes 0.3 s


@pytest.fixture(scope="session")
def made_once(tmp_path_factory, worker_id) -> Callable[[str, Callable[[Path], object]], Path]:
    """A function that has a folder filled once for all test processes, and returns the folder.

    Tests must not write into it.
    """
    base = tmp_path_factory.getbasetemp()
    base = base if worker_id == "master" else base.parent

    def fill(name: str, make: Callable[[Path], object]) -> Path:
        folder, complete = base / name, base / f"{name}.complete"
        with FileLock(f"{folder}.lock"):
            if not complete.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a process that failed
                folder.mkdir()
                make(folder)
                complete.touch()
        return folder

    return fill


@pytest.fixture(scope="session")
def undisturbed(made_once) -> Path:
    """The folder of a run of `config`, undisturbed."""
    from nin_jax.runs.fit import fit
    from tests.support.disturbed import config_in

    return made_once("undisturbed", lambda folder: fit(config_in(folder))) / "run"


@pytest.fixture
def again(config, undisturbed) -> "TrainConfig":
    """The configuration that resumes a copy of the undisturbed run."""
    shutil.copytree(undisturbed, config.workdir)
    saved = json.loads((config.workdir / "config.json").read_text())["config"]["variant"]
    return replace(config, variant=saved, resume=True)
