"""Runs that are stopped or starved, and resumed: they end as the undisturbed one, bit for bit."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from nin_jax import UserError, checkpoint, loop, metrics, workdir
from nin_jax.config import TrainConfig, recipe_of
from nin_jax.errors import Interrupted, RunError
from nin_jax.preparation import epoch_order, load_data, prepare_run
from nin_jax.recorder import Recorder
from nin_jax.saving import Cadence
from tests.conftest import TINY_TOML

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
STEPS, EPOCHS = 3, 2  # steps an epoch
TIMES = {"seconds", "images_per_second", "time"}  # what may differ between two equal runs


@pytest.fixture(autouse=True)
def signals_as_in_a_terminal() -> Iterator[None]:
    """Whatever started the tests may have Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def config_in(folder: Path) -> TrainConfig:
    """Dropout and augmentation are on; a checkpoint after every step."""
    (folder / "tiny.toml").write_text(TINY_TOML)
    return TrainConfig(
        variant=str(folder / "tiny.toml"),
        recipe="modern",
        dataset="digits",
        image_size=16,
        batch_size=50,
        epochs=EPOCHS,
        limit_train=120,
        limit_test=30,
        augment="flip_shift",
        checkpoint_every="1",
        workdir=folder / "run",
    )


@pytest.fixture
def config(tmp_path) -> TrainConfig:
    return config_in(tmp_path)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    """The folder of a run of that configuration which nobody disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    loop.fit(config_in(folder))
    return folder / "run"


def rows_of(folder):
    rows = metrics.read_metrics(folder / workdir.METRICS)
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def events_of(folder):
    """Step and names of every event's values, times aside."""
    (path,) = (folder / workdir.TENSORBOARD).iterdir()
    events = [event for event in EventFileLoader(str(path)).Load() if event.summary.value]
    return [(event.step, {value.tag for value in event.summary.value} - TIMES) for event in events]


def assert_same(folder, other):
    """Weights, rows and events; times aside."""
    weights, others = (load_file(f / workdir.WEIGHTS) for f in (folder, other))
    for name, array in weights.items():
        np.testing.assert_array_equal(array, others[name])
    assert rows_of(folder) == rows_of(other)
    assert events_of(folder) == events_of(other)
    summaries = [json.loads((f / workdir.SUMMARY).read_text()) for f in (folder, other)]
    for name in ("test_accuracy", "test_loss", "train_loss", "best_epoch", "steps"):
        assert summaries[0][name] == summaries[1][name]


def signal_at(monkeypatch, number, when):
    """Sends this process a signal at a step (a number) or while it evaluates ("evaluation")."""
    with_signal = {"sent": False}

    def send():
        if not with_signal["sent"]:
            with_signal["sent"] = True
            signal.raise_signal(number)

    if when == "evaluation":
        evaluating = metrics.Screen.evaluating

        def evaluating_with_signal(*arguments):
            send()
            evaluating(*arguments)

        monkeypatch.setattr(metrics.Screen, "evaluating", evaluating_with_signal)
        return
    dispatched = Recorder.dispatched

    def counted(recorder, count, figures):
        dispatched(recorder, count, figures)
        if recorder.progress.step + count == when:
            send()

    monkeypatch.setattr(Recorder, "dispatched", counted)


@pytest.mark.parametrize("when", [1, 2, 3, 4, 6, "evaluation"])
def test_interrupted_at_any_step_it_ends_as_the_undisturbed(config, undisturbed, monkeypatch, when):
    with monkeypatch.context() as patch:
        signal_at(patch, signal.SIGTERM, when)
        with pytest.raises(Interrupted, match=r"SIGTERM: step . is saved; go on with") as stopped:
            loop.fit(replace(config, checkpoint_every="1h"))
    assert stopped.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert not (config.workdir / workdir.SUMMARY).exists()
    loop.fit(replace(config, checkpoint_every="1h", resume=True))
    assert_same(config.workdir, undisturbed)


def test_several_steps_a_dispatch_are_resumed_too(config, tmp_path, monkeypatch):
    config = replace(config, steps_per_dispatch=2)
    loop.fit(replace(config, workdir=tmp_path / "left alone"))
    with monkeypatch.context() as patch:
        signal_at(patch, signal.SIGINT, 4)
        with pytest.raises(Interrupted) as stopped:
            loop.fit(config)
    assert stopped.value.code == 130
    loop.fit(replace(config, resume=True))
    assert_same(config.workdir, tmp_path / "left alone")


def test_a_second_signal_ends_the_process_at_once():
    from nin_jax.interruption import Interruption

    with Interruption() as interruption:
        interruption.check()
        signal.raise_signal(signal.SIGINT)
        assert interruption.signal == signal.SIGINT
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
        with pytest.raises(Interrupted):
            interruption.check()
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_a_signal_that_is_to_be_ignored_stays_ignored():
    from nin_jax.interruption import Interruption

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGINT)
        interruption.check()
        signal.raise_signal(signal.SIGTERM)
        assert interruption.signal == signal.SIGTERM
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_script_says_where_it_is_and_exits_as_a_shell_expects(config, number, code):
    arguments = ["--variant", config.variant, "--dataset", "digits", "--image-size", "16"]
    arguments += ["--epochs", "100000", "--limit-test", "10", "--no-compilation-cache"]
    arguments += ["--workdir", str(config.workdir)]
    process = subprocess.Popen(
        [sys.executable, SCRIPTS / "train.py", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while "epoch 1/" not in process.stdout.readline():
        pass
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code
    assert err.startswith(f"interrupted by {number.name}: step ")
    assert f"is saved; go on with --resume --workdir {config.workdir}\n" in err
    (newest,) = checkpoint.Checkpoints(config.workdir / "checkpoints").names()[-1:]
    checkpoint.verify(config.workdir / "checkpoints" / newest)


def test_killed_before_its_first_checkpoint_a_run_begins_again(config, undisturbed):
    """config.json is there, nothing else: nothing is lost, so nothing is refused."""
    loop.fit(replace(config, epochs=1))
    for name in ("checkpoints", "tensorboard"):
        shutil.rmtree(config.workdir / name)
    (config.workdir / workdir.METRICS).write_text("")
    loop.fit(replace(config, resume=True))
    assert_same(config.workdir, undisturbed)


def test_killed_before_its_summary_a_run_is_finished_without_training(config, undisturbed):
    shutil.copytree(undisturbed, config.workdir)
    (config.workdir / workdir.SUMMARY).unlink()
    saved = json.loads((config.workdir / workdir.CONFIG).read_text())["config"]["variant"]
    loop.fit(replace(config, variant=saved, resume=True))
    assert_same(config.workdir, undisturbed)
    with pytest.raises(UserError, match="nothing left to do"):
        loop.fit(replace(config, variant=saved, resume=True))


def test_rows_after_the_checkpoint_are_written_again_once(config, undisturbed):
    """A killed run's metrics may be ahead of its checkpoint, the last row torn."""
    shutil.copytree(undisturbed, config.workdir)
    for name in checkpoint.Checkpoints(config.workdir / "checkpoints").names()[-1:]:
        shutil.rmtree(config.workdir / "checkpoints" / name)
    (config.workdir / workdir.SUMMARY).unlink()
    with open(config.workdir / workdir.METRICS, "a") as file:
        file.write('{"kind": "st')
    saved = json.loads((config.workdir / workdir.CONFIG).read_text())["config"]["variant"]
    loop.fit(replace(config, variant=saved, resume=True))
    assert_same(config.workdir, undisturbed)


def test_the_newest_and_the_best_checkpoints_are_kept(config, undisturbed):
    names = checkpoint.Checkpoints(undisturbed / "checkpoints").names()
    best = json.loads((undisturbed / workdir.SUMMARY).read_text())["best_epoch"]
    assert names[-2:] == ["00000005", "00000006-evaluated"]
    assert f"{best['step']:08d}-evaluated" in names
    assert len(names) <= 3
    assert not (undisturbed / "checkpoints" / ".saving").exists()


# Damage ------------------------------------------------------------------------------------------


def small_state(step):
    from nin_jax.step import TrainState

    values = np.random.default_rng(step).normal(size=(7, 5)).astype(np.float32)
    params = {"kernel": jax.numpy.asarray(values)}
    momentum = {"kernel": jax.numpy.asarray(-values)}
    return TrainState(params, momentum, jax.numpy.int32(step), jax.random.key(step))  # type: ignore


def position(step):
    return {"step": step, "evaluated": False, "best": None, "metrics_bytes": step}


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


DAMAGE = {
    "removed": lambda path: path.unlink(),
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "one bit flipped": flip,
}


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
        DAMAGE[how](tmp_path / "damaged" / file.relative_to(tmp_path / "whole"))
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


def test_an_empty_folder_and_an_added_file_are_damage(tmp_path):
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


def test_without_an_intact_checkpoint_there_is_an_error_never_a_restart(config, undisturbed):
    shutil.copytree(undisturbed, config.workdir)
    saved = json.loads((config.workdir / workdir.CONFIG).read_text())["config"]["variant"]
    again = replace(config, variant=saved, resume=True, epochs=3)
    folder = config.workdir / "checkpoints"
    for name in checkpoint.Checkpoints(folder).names():
        flip(folder / name / "position" / "metadata")
    before = (config.workdir / workdir.METRICS).read_bytes()
    with (
        pytest.warns(UserWarning, match="position/metadata has changed"),
        pytest.raises(UserError, match=r"no checkpoint in .* is intact: \d damaged"),
    ):
        loop.fit(again)
    with pytest.raises(UserError, match="is intact"):  # nor the next time
        loop.fit(again)
    shutil.rmtree(folder)
    with pytest.raises(UserError, match="has metrics but no checkpoint"):
        loop.fit(again)
    assert (config.workdir / workdir.METRICS).read_bytes() == before


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(small_state(1), position(1))
    other = replace(small_state(0), params={"kernel": jax.numpy.zeros((7, 6))})
    with pytest.raises(UserError, match="checkpoint 00000001 is of another run or version"):
        checkpoints.restore(other)


def test_half_a_checkpoint_is_none(tmp_path, monkeypatch):
    """A process that dies while it writes leaves what the next one clears away."""
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(small_state(1), position(1))

    def die(folder):
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_seal", die)
        patch.setattr(checkpoint.Checkpoints, "clear_partial", lambda self: None)
        with pytest.raises(SystemExit):
            checkpoints.save(small_state(2), position(2))
    assert (tmp_path / ".saving" / "00000002").exists()
    assert checkpoints.names() == ["00000001"]
    checkpoints.save(small_state(2), position(2))
    assert checkpoints.names() == ["00000001", "00000002"]


# What is refused, what is said -------------------------------------------------------------------


def test_another_configuration_is_refused_and_what_may_change_is_said(config, undisturbed):
    shutil.copytree(undisturbed, config.workdir)
    saved = json.loads((config.workdir / workdir.CONFIG).read_text())["config"]["variant"]
    other = replace(config, variant=saved, resume=True, precision="bfloat16", batch_size=60)
    match = r"batch_size was 50, is 60; precision was 'float32', is 'bfloat16' .*may change.*epochs"
    with pytest.raises(UserError, match=match):
        loop.fit(other)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"epochs": 10**12}, "steps, more than the 10,000,000"),
        ({"lr": 1e300}, r"--lr must be at most 1e\+30, got 1e\+300"),
        ({"optimizer": "lion"}, "--optimizer must be one of sgd, adam, got 'lion'"),
        ({"precision": "float16"}, "--precision must be one of float32, bfloat16"),
        ({"recipe": ["d2l"]}, "unknown recipe"),
        ({"workdir": "x" * 300}, "cannot make"),
    ],
    ids=str,
)
def test_configurations_made_in_python_are_checked_too(config, changes, match):
    with pytest.raises(UserError, match=match):
        loop.fit(replace(config, **changes))


@pytest.mark.parametrize("text", ["0", "-1", "10 parsecs", "", "min", "1.5min", "9" * 20])
def test_a_cadence_that_is_none(text):
    with pytest.raises(UserError, match="--checkpoint-every must be a number of steps"):
        Cadence.parse(text)


def test_cadences():
    assert Cadence.parse("200") == Cadence(200, None)
    assert Cadence.parse("10min") == Cadence(None, 600.0)
    assert Cadence.parse("30 s") == Cadence(None, 30.0)
    assert Cadence.parse("1h") == Cadence(None, 3600.0)
    assert [Cadence(4, None).steps_left(step) for step in range(5)] == [4, 3, 2, 1, 4]


def test_a_step_that_is_not_finite_ends_the_run_and_is_kept(config):
    config = replace(config, lr=1e30, clip_norm=0.0)
    with pytest.raises(UserError, match=r"is (nan|inf) at step (\d+): lower --lr") as stopped:
        loop.fit(config)
    (folder,) = (config.workdir / "nonfinite").iterdir()
    assert str(folder) in str(stopped.value)
    report = json.loads((folder / "report.json").read_text())
    assert report["step"] == int(folder.name) > 1
    run = prepare_run(config, recipe_of(config), load_data(config))
    expected = epoch_order(run, 0)[report["step"] - 1]
    assert report["batch_indices"] == [i for i in expected.tolist() if i >= 0]
    assert (folder / workdir.METRICS).exists()
    # No checkpoint holds what came of it.
    for name in checkpoint.Checkpoints(config.workdir / "checkpoints").names():
        assert int(name[:8]) < report["step"]


def test_steps_that_are_not_finite_can_be_left_out_and_counted(config, capsys):
    """The first step throws the parameters so far that no later one is finite."""
    summary = loop.fit(replace(config, lr=1e30, clip_norm=0.0, skip_nonfinite=True))
    assert summary["skipped_steps"] == EPOCHS * STEPS - 1
    rows = metrics.read_metrics(config.workdir / workdir.METRICS)
    assert [r["skipped_steps"] for r in rows if r["kind"] == "epoch"] == [2, 5]
    assert rows[-1]["train_loss"] is None
    assert "all steps were skipped" in capsys.readouterr().out
    weights = load_file(config.workdir / workdir.WEIGHTS)
    assert all(np.isfinite(array).all() for array in weights.values())


def test_out_of_memory_names_the_batch_and_proposes_a_part(config, monkeypatch):
    def exhausted(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")

    run = prepare_run(config, recipe_of(config), load_data(config))
    monkeypatch.setattr(loop, "prepare_run", lambda *_: replace(run, train_steps=exhausted))
    with pytest.raises(UserError, match=r"--batch-size 50, .*: try --micro-batch-size 25$"):
        loop.fit(config)


def test_other_errors_of_the_device_are_not_hidden(config, monkeypatch):
    def broken(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: the device fell off the bus")

    run = prepare_run(config, recipe_of(config), load_data(config))
    monkeypatch.setattr(loop, "prepare_run", lambda *_: replace(run, train_steps=broken))
    with pytest.raises(jax.errors.JaxRuntimeError, match="fell off the bus"):
        loop.fit(config)


def test_two_at_once_on_one_folder_one_runs_the_other_is_told(config):
    arguments = ["--variant", config.variant, "--dataset", "digits", "--image-size", "16"]
    arguments += ["--limit-test", "10", "--epochs", "1", "--workdir", str(config.workdir)]
    command = [sys.executable, SCRIPTS / "train.py", *arguments, "--no-compilation-cache"]
    both = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outcomes = sorted((process.communicate()[1], process.returncode) for process in both)
    assert outcomes[0] == ("", 0)
    error, code = outcomes[1]
    assert code == 2
    assert "is in use by process" in error or "already holds a run" in error
    assert error.count("\n") == 1


# Disks -------------------------------------------------------------------------------------------


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
    """Does something when the host has seen that many steps."""
    write = Recorder._step

    def step(recorder, *arguments, **more):
        write(recorder, *arguments, **more)
        actions.pop(recorder.progress.step, lambda: None)()

    monkeypatch.setattr(Recorder, "_step", step)


def test_a_disk_that_is_full_for_a_while_costs_nothing(
    config, undisturbed, small_disk, monkeypatch, capsys
):
    config = replace(config, workdir=small_disk / "run")
    at_steps(
        monkeypatch,
        {2: lambda: fill(small_disk), 5: lambda: (small_disk / "ballast").unlink()},
    )
    loop.fit(config)
    out = capsys.readouterr().out
    assert "WARNING: a checkpoint of step 2 could not be saved (" in out
    assert "training goes on" in out
    assert_same(config.workdir, undisturbed)


def test_a_disk_that_stays_full_loses_nothing_that_was_saved(
    config, undisturbed, small_disk, monkeypatch
):
    config = replace(config, workdir=small_disk / "run")
    with monkeypatch.context() as patch:
        at_steps(patch, {2: lambda: fill(small_disk)})
        with pytest.raises(RunError, match=r"could not be saved .*: make room, then go on with"):
            loop.fit(config)
    checkpoints = checkpoint.Checkpoints(config.workdir / "checkpoints")
    assert checkpoints.names()[-1] == "00000001"
    for name in checkpoints.names():
        checkpoint.verify(config.workdir / "checkpoints" / name)
    (small_disk / "ballast").unlink()
    loop.fit(replace(config, resume=True))
    assert_same(config.workdir, undisturbed)


def test_a_folder_that_may_not_be_written_any_more_is_told_of(config, monkeypatch, capsys):
    save = checkpoint.Checkpoints.save

    def denied(self, state, position):
        if position["step"] in (2, 3):
            raise PermissionError(13, "Permission denied")
        return save(self, state, position)

    monkeypatch.setattr(checkpoint.Checkpoints, "save", denied)
    loop.fit(config)
    out = capsys.readouterr().out
    assert "a checkpoint of step 2 could not be saved (Permission denied); the last good" in out
    assert "checkpoint is 00000001; training goes on" in out


def test_rows_wait_for_room_and_never_stay_torn(tmp_path):
    class Full:
        """A file that takes half of what it is given, and then no more."""

        def __init__(self, file):
            self.file, self.full = file, True

        def write(self, data):
            return self.file.write(data[: len(data) // 2] if self.full else data)

        def __getattr__(self, name):
            return getattr(self.file, name)

    path = tmp_path / "metrics.jsonl"
    writer = metrics.JsonlWriter(path)
    writer.write({"kind": "step", "step": 1})
    whole = path.read_bytes()
    writer._file = full = Full(writer._file)  # type: ignore[assignment]
    with pytest.raises(OSError, match="No space left"):
        writer.write({"kind": "step", "step": 2})
    assert path.read_bytes() == whole
    full.full = False
    writer.write({"kind": "step", "step": 3})
    assert [row["step"] for row in metrics.read_metrics(path)] == [1, 2, 3]
    assert writer.size == path.stat().st_size
    writer.close()


def test_metrics_that_lost_rows_are_told_of(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"st')
    with pytest.warns(UserWarning, match="has lost rows"):
        metrics.cut(path, 1000)
    assert path.read_bytes() == b'{"step": 1}\n'


def test_deterministic_asks_xla_for_it(config):
    """On a CPU it changes nothing; XLA must know the flags all the same."""
    arguments = ["--variant", config.variant, "--dataset", "digits", "--image-size", "16"]
    arguments += ["--limit-train", "8", "--limit-test", "8", "--epochs", "1", "--deterministic"]
    arguments += ["--workdir", str(config.workdir), "--no-compilation-cache"]
    done = subprocess.run(
        [sys.executable, SCRIPTS / "train.py", *arguments], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
