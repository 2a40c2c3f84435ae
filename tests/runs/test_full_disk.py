"""Disks that are full or not writable: training continues, and saved checkpoints stay."""

import errno
import io
import json
import os
import shutil
import subprocess
from dataclasses import replace

import pytest

from nin_jax.errors import RunError
from nin_jax.runs import checkpoint, manifest, writers
from nin_jax.runs.fit import fit
from nin_jax.runs.progress import Recorder
from tests.support.disturbed import assert_same, events_of


@pytest.fixture
def config(config):
    """Save a checkpoint after every step."""
    return replace(config, checkpoint_every="1")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder):
    with open(folder / "ballast", "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass


def at_steps(monkeypatch, actions):
    """Call each action when the host has recorded that many steps."""
    write = Recorder._step

    def step(recorder, *arguments, **more):
        write(recorder, *arguments, **more)
        actions.pop(recorder.progress.step, lambda: None)()

    monkeypatch.setattr(Recorder, "_step", step)


def test_a_disk_that_is_full_for_a_while_does_not_change_the_run(
    config, undisturbed, small_disk, monkeypatch, capsys
):
    config = replace(config, workdir=small_disk / "run")
    at_steps(
        monkeypatch,
        {2: lambda: fill(small_disk), 5: lambda: (small_disk / "ballast").unlink()},
    )
    fit(config)
    out = capsys.readouterr().out
    assert "WARNING: a checkpoint of step 2 could not be saved (" in out
    assert "training continues" in out
    assert_same(config.workdir, undisturbed)


@pytest.mark.slow
def test_a_disk_that_stays_full_keeps_the_saved_checkpoints(
    config, undisturbed, small_disk, monkeypatch
):
    config = replace(config, workdir=small_disk / "run")
    with monkeypatch.context() as patch:
        at_steps(patch, {2: lambda: fill(small_disk)})
        with pytest.raises(RunError, match=r"could not be saved .*: make room, then continue with"):
            fit(config)
    checkpoints = checkpoint.Checkpoints(config.workdir / "checkpoints")
    assert checkpoints.names()[-1] == "00000001"
    for name in checkpoints.names():
        assert not checkpoint.damage(config.workdir / "checkpoints" / name)
    (small_disk / "ballast").unlink()
    fit(replace(config, resume=True))
    assert_same(config.workdir, undisturbed)


def test_a_folder_that_becomes_read_only_causes_a_warning(config, monkeypatch, capsys):
    save = checkpoint.Checkpoints.save

    def denied(self, state, position):
        if position["step"] in (2, 3):
            raise PermissionError(13, "Permission denied")
        return save(self, state, position)

    monkeypatch.setattr(checkpoint.Checkpoints, "save", denied)
    fit(config)
    out = capsys.readouterr().out
    assert "a checkpoint of step 2 could not be saved (Permission denied); the last good" in out
    assert "checkpoint is 00000001; training continues" in out


class SmallDisk(io.FileIO):
    """A file on a disk with room for so many more bytes; None for any number."""

    room: int | None = None

    def write(self, data):
        if self.room is None:
            return super().write(data)
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = super().write(bytes(data)[: self.room])
        self.room -= taken
        return taken


def test_rows_are_written_later_and_never_in_part(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = writers.JsonlWriter(path)
    writer.write({"kind": "step", "step": 1})
    whole = path.read_bytes()
    writer._file.close()
    writer._file = disk = SmallDisk(path, "ab")
    disk.room = 10
    with pytest.raises(OSError, match="No space left"):
        writer.write({"kind": "step", "step": 2})
    assert path.read_bytes() == whole
    disk.room = None
    writer.write({"kind": "step", "step": 3})
    assert [row["step"] for row in writers.read_metrics(path)] == [1, 2, 3]
    assert writer.size == path.stat().st_size
    writer.close()


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_no_part(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "config.json"
    manifest.write_json(path, {"epochs": 1})
    monkeypatch.setattr(os, "fsync", full)  # some file systems report a full disk only here
    with pytest.raises(OSError, match="No space left"):
        manifest.write_json(path, {"epochs": 2})
    assert [each.name for each in tmp_path.iterdir()] == ["config.json"]
    assert json.loads(path.read_text()) == {"epochs": 1}


def test_events_are_written_later_and_never_in_part(tmp_path, monkeypatch):
    files = []

    def small(path, mode, buffering):
        files.append(SmallDisk(path, mode))
        return io.BufferedWriter(files[-1], buffering)

    monkeypatch.setattr(writers, "open", small, raising=False)
    writer = writers.TensorBoardWriter(tmp_path / "tensorboard")
    (disk,) = files
    row = {"kind": "step", "time": 0.0, "train_loss": 0.5}
    writer.write(row | {"step": 1})
    disk.room = 10
    for step in (2, 3):
        with pytest.raises(OSError, match="No space left"):
            writer.write(row | {"step": step})
    disk.room = None
    writer.write(row | {"step": 4})
    assert [step for step, _ in events_of(tmp_path)] == [1, 2, 3, 4]
    disk.room = 0
    with pytest.raises(OSError, match="No space left"):
        writer.write(row | {"step": 5})
    writer.close()


def test_lost_rows_cause_a_warning(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"st')
    with pytest.warns(UserWarning, match="has lost rows"):
        writers.cut(path, 1000)
    assert path.read_bytes() == b'{"step": 1}\n'
