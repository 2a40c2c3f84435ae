"""Checkpoints: complete or absent; damage is found."""

import os
import random
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest

from benchmarks.soak.trials import DAMAGES
from nin_jax import UserError
from nin_jax.runs import checkpoint, workdir
from nin_jax.runs.fit import fit


def small_state(step):
    from nin_jax.training.step import TrainState

    values = np.random.default_rng(step).normal(size=(7, 5)).astype(np.float32)
    params = {"kernel": jax.numpy.asarray(values)}
    momentum = {"kernel": jax.numpy.asarray(-values)}
    return TrainState(params, momentum, jax.numpy.int32(step), jax.random.key(step))  # type: ignore


def position(step):
    return {"step": step, "evaluated": False, "best": None, "metrics_bytes": step}


DAMAGE = DAMAGES | {"emptied": lambda path, draw: os.truncate(path, 0)}


@pytest.mark.parametrize("how", DAMAGE)
def test_every_damaged_file_of_a_checkpoint_is_found(tmp_path, how):
    checkpoints = checkpoint.Checkpoints(tmp_path / "whole")
    for step in (1, 2):
        checkpoints.save(small_state(step), position(step))
    files = [p for p in (tmp_path / "whole" / "00000002").rglob("*") if p.is_file()]
    assert len(files) > 5
    tried = 0
    for file in files:
        if how != "removed" and not file.stat().st_size:
            continue
        shutil.copytree(tmp_path / "whole", tmp_path / "damaged")
        damaged = checkpoint.Checkpoints(tmp_path / "damaged")
        DAMAGE[how](tmp_path / "damaged" / file.relative_to(tmp_path / "whole"), random.Random(0))
        with pytest.warns(UserWarning, match="checkpoint 00000002 is damaged: "):
            found = damaged.restore(small_state(0))
        assert found is not None
        state, where = found
        assert where == position(1)
        np.testing.assert_array_equal(state.params["kernel"], small_state(1).params["kernel"])
        assert damaged.names() == ["00000001"]
        assert (tmp_path / "damaged" / "damaged" / "00000002").is_dir()
        shutil.rmtree(tmp_path / "damaged")
        tried += 1
    assert tried > 5


def test_an_empty_folder_and_an_added_file_count_as_damage(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(small_state(1), position(1))
    checkpoints.save(small_state(2), position(2))
    (tmp_path / "00000003").mkdir()
    (tmp_path / "00000002" / "extra").write_text("mine")
    with pytest.warns(UserWarning, match="is damaged") as warned:
        found = checkpoints.restore(small_state(0))
    assert len(warned) == 2
    assert found is not None
    assert found[1]["step"] == 1


def test_a_users_copy_is_no_checkpoint_and_stays(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path, keep=1)
    checkpoints.save(small_state(1), position(1))
    shutil.copytree(tmp_path / "00000001", tmp_path / "00000001.bak")
    checkpoints.save(small_state(2), position(2))
    assert checkpoints.names() == ["00000002"]
    assert (tmp_path / "00000001.bak").is_dir()
    with pytest.raises(UserError, match="has no checkpoint of step 1: it has 2 "):
        checkpoints.find(1)


def test_without_an_intact_checkpoint_a_run_fails_and_does_not_restart(again):
    again = replace(again, epochs=3)
    folder = again.workdir / "checkpoints"
    for name in checkpoint.Checkpoints(folder).names():
        DAMAGE["one bit flipped"](folder / name / "position" / "metadata", random.Random(0))
    before = (again.workdir / workdir.METRICS).read_bytes()
    with (
        pytest.warns(UserWarning, match="position/metadata has changed"),
        pytest.raises(UserError, match=r"no checkpoint in .* is intact \(\d damaged"),
    ):
        fit(again)
    with pytest.raises(UserError, match="is intact"):  # and again
        fit(again)
    shutil.rmtree(folder)
    with pytest.raises(UserError, match="has metrics but no checkpoint"):
        fit(again)
    assert (again.workdir / workdir.METRICS).read_bytes() == before


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(small_state(1), position(1))
    other = replace(small_state(0), params={"kernel": jax.numpy.zeros((7, 6))})
    with pytest.raises(UserError, match="checkpoint 00000001 is of another network, optimizer"):
        checkpoints.restore(other)


def test_an_incomplete_checkpoint_is_ignored_and_removed(tmp_path, monkeypatch):
    """As a process leaves it that dies while it writes."""
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(small_state(1), position(1))

    def die(folder):
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "seal", die)
        patch.setattr(checkpoint.Checkpoints, "clear_partial", lambda self: None)
        with pytest.raises(SystemExit):
            checkpoints.save(small_state(2), position(2))
    assert (tmp_path / ".saving" / "00000002").exists()
    assert checkpoints.names() == ["00000001"]
    checkpoints.save(small_state(2), position(2))
    assert checkpoints.names() == ["00000001", "00000002"]
