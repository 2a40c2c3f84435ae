"""Runs that are stopped or killed and then resumed end bit-equal to an undisturbed run."""

import errno
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from nin_jax import UserError
from nin_jax.errors import Interrupted, RunError
from nin_jax.runs import checkpoint, description, workdir, writers
from nin_jax.runs.fit import fit
from nin_jax.runs.progress import Recorder
from tests.support.disturbed import assert_same, command_of


@pytest.fixture(autouse=True)
def signals_as_in_a_terminal() -> Iterator[None]:
    """The program that started the tests may ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def signal_at(monkeypatch, number, when):
    """Send this process a signal at a step (a number) or while it evaluates ("evaluation")."""
    with_signal = {"sent": False}

    def send():
        if not with_signal["sent"]:
            with_signal["sent"] = True
            signal.raise_signal(number)

    if when == "evaluation":
        evaluating = writers.Screen.evaluating

        def evaluating_with_signal(*arguments):
            send()
            evaluating(*arguments)

        monkeypatch.setattr(writers.Screen, "evaluating", evaluating_with_signal)
        return
    dispatched = Recorder.dispatched

    def counted(recorder, count, figures):
        dispatched(recorder, count, figures)
        if recorder.progress.step + count == when:
            send()

    monkeypatch.setattr(Recorder, "dispatched", counted)


@pytest.mark.parametrize(
    "when", [4, *(pytest.param(when, marks=pytest.mark.slow) for when in ("evaluation", 6))]
)
def test_interrupted_at_any_step_it_ends_as_the_undisturbed(config, undisturbed, monkeypatch, when):
    """In an epoch, in the first evaluation, and between the last step and its evaluation."""
    with monkeypatch.context() as patch:
        signal_at(patch, signal.SIGTERM, when)
        with pytest.raises(
            Interrupted, match=r"SIGTERM: step . is saved; continue with"
        ) as stopped:
            fit(config)
    assert stopped.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert not (config.workdir / workdir.SUMMARY).exists()
    fit(replace(config, resume=True))
    assert_same(config.workdir, undisturbed)


@pytest.mark.slow
def test_a_run_with_several_steps_per_dispatch_is_resumed(config, tmp_path, monkeypatch):
    config = replace(config, steps_per_dispatch=2)
    fit(replace(config, workdir=tmp_path / "undisturbed"))
    with monkeypatch.context() as patch:
        signal_at(patch, signal.SIGINT, 5)  # dispatches end after steps 2, 3, 5 and 6
        with pytest.raises(Interrupted) as stopped:
            fit(config)
    assert stopped.value.code == 130
    fit(replace(config, resume=True))
    assert_same(config.workdir, tmp_path / "undisturbed")


def test_a_second_signal_ends_the_process_at_once():
    from nin_jax.runs.signals import Interruption

    with Interruption() as interruption:
        assert interruption.signal is None
        signal.raise_signal(signal.SIGINT)
        assert interruption.signal == signal.SIGINT
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_an_ignored_signal_stays_ignored():
    from nin_jax.runs.signals import Interruption

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGINT)
        assert interruption.signal is None
        signal.raise_signal(signal.SIGTERM)
        assert interruption.signal == signal.SIGTERM
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


@pytest.mark.slow
def test_the_script_prints_its_step_and_exits_as_a_shell_expects(config):
    """After Ctrl-C; test_processes.py sends SIGTERM."""
    options = ("--epochs", "100000", "--limit-test", "10", "--no-compilation-cache")
    process = subprocess.Popen(
        command_of(config, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while "epoch 1/" not in process.stdout.readline():
        pass
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err.startswith("interrupted by SIGINT: step ")
    assert f"is saved; continue with --resume --workdir {config.workdir}\n" in err
    (newest,) = checkpoint.Checkpoints(config.workdir / "checkpoints").names()[-1:]
    assert not checkpoint.damage(config.workdir / "checkpoints" / newest)


@pytest.mark.slow
def test_a_run_killed_before_its_first_checkpoint_starts_again(again, undisturbed):
    """Only config.json and empty metrics exist, so nothing can be lost."""
    shutil.rmtree(again.workdir)
    again.workdir.mkdir()
    shutil.copy(undisturbed / workdir.CONFIG, again.workdir)
    (again.workdir / workdir.METRICS).touch()
    fit(again)
    assert_same(again.workdir, undisturbed)


def test_a_run_killed_before_its_summary_finishes_without_training(again, undisturbed):
    """Its weights are missing too, as if the disk had been full after the last epoch."""
    for name in (workdir.SUMMARY, workdir.WEIGHTS):
        (again.workdir / name).unlink()
    fit(again)
    assert_same(again.workdir, undisturbed)
    with pytest.raises(UserError, match=r"nothing left to do: .* has its 6 steps; raise --epochs"):
        fit(again)
    with pytest.raises(UserError, match="raise --steps"):
        fit(replace(again, epochs=None, steps=6))
    assert_same(again.workdir, undisturbed)  # what is refused deletes nothing


def test_a_longer_run_that_has_no_summary_yet_finishes_when_it_is_resumed(again, monkeypatch):
    """The summary of fewer epochs does not mark it as done."""
    longer = replace(again, epochs=3)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(description, "draw_curves", full)
        with pytest.raises(RunError, match=r"training is done; .* cannot be written: No space"):
            fit(longer)
    assert fit(longer)["epochs"] == 3
    assert json.loads((again.workdir / workdir.SUMMARY).read_text())["epochs"] == 3


@pytest.mark.parametrize("length", ["--steps", "--epochs"])
def test_either_length_of_a_longer_run_replaces_the_other(again, script, length):
    """A run that was started with --epochs may be continued with --steps, and the other way."""
    path = again.workdir / workdir.CONFIG
    saved = json.loads(path.read_text())
    saved["config"] |= {"steps": 6, "epochs": None} if length == "--epochs" else {}
    path.write_text(json.dumps(saved))
    options = ("--resume", "--workdir", again.workdir, "--no-compilation-cache")
    refused = script("train", *options)
    assert (refused.code, "nothing left to do" in refused.err) == (2, True)
    done = script("train", *options, length, {"--steps": 9, "--epochs": 3}[length])
    assert done.code == 0, done.err
    assert json.loads((again.workdir / workdir.SUMMARY).read_text())["epochs"] == 3


def test_a_checkpoint_of_another_version_is_refused(again, monkeypatch):
    restore = checkpoint.Checkpoints.restore

    def of_another_version(self, like):
        found = restore(self, like)
        assert found is not None
        state, position = found
        return state, {"progress": position["progress"]}

    monkeypatch.setattr(checkpoint.Checkpoints, "restore", of_another_version)
    with pytest.raises(UserError, match="are of another version of nin_jax"):
        fit(replace(again, epochs=3))


@pytest.mark.parametrize("damage", ["a line", "a folder"])
def test_damaged_metrics_leave_the_run_as_it_is(again, damage):
    saved = (again.workdir / workdir.CONFIG).read_bytes()
    metrics = again.workdir / workdir.METRICS
    if damage == "a line":
        metrics.write_bytes(b"{" + metrics.read_bytes()[1:].replace(b"{", b"[", 1))
        error, message = UserError, "line 2: not a JSON object"
    else:
        metrics.unlink()
        metrics.mkdir()
        error, message = RunError, "metrics.jsonl cannot be written: Is a directory"
    with pytest.raises(error, match=message):
        fit(replace(again, epochs=3))
    assert (again.workdir / workdir.CONFIG).read_bytes() == saved
    assert (again.workdir / workdir.SUMMARY).exists()


@pytest.mark.slow
def test_rows_after_the_checkpoint_are_replaced(again, undisturbed):
    """The metrics of a killed run may be ahead of its checkpoint, with an incomplete last row."""
    for name in checkpoint.Checkpoints(again.workdir / "checkpoints").names()[-1:]:
        shutil.rmtree(again.workdir / "checkpoints" / name)
    (again.workdir / workdir.SUMMARY).unlink()
    with open(again.workdir / workdir.METRICS, "a") as file:
        file.write('{"kind": "st')
    fit(again)
    assert_same(again.workdir, undisturbed)


@pytest.mark.slow
def test_patience_ends_a_run_and_counts_over_an_interruption(config, tmp_path, monkeypatch, capsys):
    """A rate of 1e-30 changes no weight, so the first epoch stays the best."""
    config = replace(config, optimizer="sgd", lr=1e-30, epochs=6, holdout=30, patience=2)
    whole = replace(config, workdir=tmp_path / "whole")
    summary = fit(whole)
    ended = "ended after epoch 3 of 6: the accuracy on the held-out images has not risen since"
    assert f"\n{ended} epoch 1 (--patience 2)\n" in capsys.readouterr().out
    assert (summary["epochs"], summary["steps"]) == (3, 9)
    assert (summary["ended_by_patience"], summary["best_epoch"]["epoch"]) == (True, 1)
    kept = checkpoint.Checkpoints(whole.workdir / "checkpoints").names()
    assert kept == ["00000003-evaluated", "00000006-evaluated", "00000009-evaluated"]
    with monkeypatch.context() as patch:
        signal_at(patch, signal.SIGTERM, 8)
        with pytest.raises(Interrupted):
            fit(config)
    fit(replace(config, resume=True))
    assert_same(config.workdir, whole.workdir)
    (config.workdir / workdir.SUMMARY).unlink()  # killed just before its end
    assert fit(replace(config, resume=True))["steps"] == 9
    for more in ({}, {"epochs": 7}):
        with pytest.raises(UserError, match=r"nothing left to do: .* ended after .*patience"):
            fit(replace(config, resume=True, **more))
    summary = fit(replace(config, resume=True, patience=4))
    assert (summary["epochs"], summary["best_epoch"]["epoch"]) == (5, 1)


def test_the_newest_and_the_best_checkpoints_are_kept(config, undisturbed):
    names = checkpoint.Checkpoints(undisturbed / "checkpoints").names()
    best = json.loads((undisturbed / workdir.SUMMARY).read_text())["best_epoch"]
    assert names[-2:] == ["00000005", "00000006-evaluated"]
    assert f"{best['step']:08d}-evaluated" in names
    assert len(names) <= 3
    assert not (undisturbed / "checkpoints" / ".saving").exists()
