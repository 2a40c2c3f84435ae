"""scripts/soak.py: a short soak, and that it detects differences."""

import json
import random
import re
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.soak import soak, trials
from benchmarks.soak.small_run import SmallRun, differences
from nin_jax.errors import UserError
from nin_jax.models.convert import load_safetensors
from nin_jax.runs import workdir


@pytest.mark.slow
def test_a_short_soak_loses_nothing(script, tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "UNDISTURBED", 1)
    shorter = ("--epochs", "1", "--limit-train", "300", "--limit-test", "50")
    monkeypatch.setattr(soak, "SHORT", soak.SHORT + shorter)  # of two values the last counts
    outcome = script("soak", "--kills", 1, "--epochs", 30, "--out", tmp_path / "soak")
    assert outcome.code in (0, 1), outcome.out + outcome.err
    results = json.loads((tmp_path / "soak" / "results.json").read_text())
    kills, damage, long = results["outcomes"]
    assert (kills["tried"], kills["lost"]) == (1, 0)
    assert damage["lost"] == 0
    assert damage["tried"] >= 3 * 8
    assert long["tried"] == 30  # too few to judge memory, which decides the exit code
    assert long["details"]["resident_mib_last_quarter"] > 50
    text = (tmp_path / "soak/results.md").read_text()
    assert re.search(r"\| SIGKILL at random moments +\| +1 \| +0 \|", text)


def test_a_long_run_that_is_too_short_to_judge_is_refused(tmp_path, monkeypatch):
    ended = SimpleNamespace(returncode=0, communicate=lambda: ("", ""), kill=lambda: None)
    monkeypatch.setattr(SmallRun, "start", lambda self, folder: ended)
    monkeypatch.setattr(trials, "_samples", lambda *_: iter([(100, 5)] * 3))
    with pytest.raises(UserError, match="2 epochs end before the run can be watched"):
        trials.run_long(SmallRun(tmp_path, ()), 2, lambda text: None)


def finished(folder, weights, rows):
    from safetensors.numpy import save_file

    folder.mkdir()
    save_file(weights, folder / workdir.WEIGHTS)
    text = "".join(
        json.dumps({"kind": "step", "step": i, "time": i, "x": x}) + "\n" for i, x in rows
    )
    (folder / workdir.METRICS).write_text(text)
    names = ("test_accuracy", "test_loss", "train_loss", "best_epoch", "steps", "skipped_steps")
    (folder / workdir.SUMMARY).write_text(json.dumps(dict.fromkeys(names, 1)))
    return folder


def test_a_different_bit_and_a_different_row_are_found(tmp_path):
    array = np.ones(3, np.float32)
    one = finished(tmp_path / "one", {"w": array}, [(1, 0.5), (2, 0.25)])
    same = finished(tmp_path / "same", {"w": array}, [(1, 0.5), (2, 0.25)])
    assert differences(one, same) == []
    nearly = np.nextafter(array, np.float32(2))
    other = finished(tmp_path / "other", {"w": nearly}, [(1, 0.5), (2, 0.26), (3, 0)])
    assert differences(one, other) == ["w", "2 and 3 rows of metrics", "row 2"]
    assert load_safetensors(other / workdir.WEIGHTS)["w"][0] > 1


def test_exactly_one_bit_is_flipped(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(10))
    trials.DAMAGES["one bit flipped"](path, random.Random(0))
    assert sum(byte.bit_count() for byte in path.read_bytes()) == 1
