"""What a run refuses, and its messages when numbers, memory or its folder fail."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from nin_jax import UserError
from nin_jax.runs import checkpoint, fit, workdir, writers
from nin_jax.runs.preparation import epoch_order, load_spec, prepare_run
from nin_jax.runs.saving import Cadence
from tests.conftest import SCRIPTS
from tests.support.disturbed import EPOCHS, STEPS


def test_another_configuration_is_refused_and_every_difference_listed(config, undisturbed):
    shutil.copytree(undisturbed, config.workdir)
    saved = json.loads((config.workdir / workdir.CONFIG).read_text())["config"]["variant"]
    other = replace(config, variant=saved, resume=True, precision="bfloat16", batch_size=60)
    match = r"precision was 'float32', is 'bfloat16'; batch_size was 50, is 60 .*may change.*epochs"
    with pytest.raises(UserError, match=match):
        fit.fit(other)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"epochs": 10**12}, "steps, more than the 10,000,000"),
        ({"lr": 1e300}, r"--lr must be <= 1e\+30, got 1e\+300"),
        ({"optimizer": "lion"}, "--optimizer must be 'sgd', 'adam' or 'muon', got 'lion'"),
        ({"precision": "float16"}, "--precision must be 'float32' or 'bfloat16'"),
        ({"recipe": ["d2l"]}, "--recipe must be a string"),
        ({"workdir": "x" * 300}, "cannot make"),
    ],
    ids=str,
)
def test_configurations_made_in_python_are_checked(config, changes, match):
    with pytest.raises(UserError, match=match):
        fit.fit(replace(config, **changes))


@pytest.mark.parametrize("text", ["0", "-1", "10 parsecs", "", "min", "1.5min", "9" * 20])
def test_invalid_cadences(text):
    with pytest.raises(UserError, match="--checkpoint-every must be a number of steps"):
        Cadence.parse(text)


def test_cadences():
    assert Cadence.parse("200") == Cadence(200, None)
    assert Cadence.parse("10min") == Cadence(None, 600.0)
    assert Cadence.parse("30 s") == Cadence(None, 30.0)
    assert Cadence.parse("1h") == Cadence(None, 3600.0)
    assert [Cadence(4, None).steps_left(step) for step in range(5)] == [4, 3, 2, 1, 4]


def test_a_step_that_is_not_finite_ends_the_run_and_is_reported(config):
    config = replace(config, lr=1e30, clip_norm=0.0)
    with pytest.raises(UserError, match=r"is (nan|inf) at step (\d+): lower --lr") as stopped:
        fit.fit(config)
    (folder,) = (config.workdir / "nonfinite").iterdir()
    assert str(folder) in str(stopped.value)
    report = json.loads((folder / "report.json").read_text())
    assert report["step"] == int(folder.name) > 1
    run = prepare_run(load_spec(config))
    expected = epoch_order(run, 0)[report["step"] - 1]
    assert report["batch_indices"] == [i for i in expected.tolist() if i >= 0]
    assert (folder / workdir.METRICS).exists()
    # All checkpoints are from before that step.
    for name in checkpoint.Checkpoints(config.workdir / "checkpoints").names():
        assert int(name[:8]) < report["step"]


def test_a_report_that_cannot_be_written_is_mentioned(config):
    config.workdir.mkdir()
    (config.workdir / "nonfinite").write_text("a file in the way")
    with pytest.raises(UserError, match="the batch could not be recorded"):
        fit.fit(replace(config, lr=1e30, clip_norm=0.0))


def test_steps_that_are_not_finite_can_be_skipped_and_counted(config, capsys):
    """The first step makes the parameters so large that no later step is finite."""
    summary = fit.fit(replace(config, lr=1e30, clip_norm=0.0, skip_nonfinite=True))
    assert summary["skipped_steps"] == EPOCHS * STEPS - 1
    rows = writers.read_metrics(config.workdir / workdir.METRICS)
    assert [r["skipped_steps"] for r in rows if r["kind"] == "epoch"] == [2, 5]
    assert rows[-1]["train_loss"] is None
    assert "all steps were skipped" in capsys.readouterr().out
    weights = load_file(config.workdir / workdir.WEIGHTS)
    assert all(np.isfinite(array).all() for array in weights.values())


def test_out_of_memory_names_the_batch_size_and_a_remedy(config, monkeypatch):
    def exhausted(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")

    run = prepare_run(load_spec(config))
    monkeypatch.setattr(fit, "prepare_run", lambda *_: replace(run, train_steps=exhausted))
    with pytest.raises(UserError, match=r"--batch-size 50 .*: try --micro-batch-size 25$"):
        fit.fit(config)


def test_other_errors_of_the_device_are_not_hidden(config, monkeypatch):
    def broken(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: the device fell off the bus")

    run = prepare_run(load_spec(config))
    monkeypatch.setattr(fit, "prepare_run", lambda *_: replace(run, train_steps=broken))
    with pytest.raises(jax.errors.JaxRuntimeError, match="fell off the bus"):
        fit.fit(config)


def test_of_two_runs_in_one_folder_the_second_is_refused(config):
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


@pytest.mark.slow
def test_deterministic_sets_known_xla_flags(config):
    """On a CPU they have no effect, but XLA must know them."""
    arguments = ["--variant", config.variant, "--dataset", "digits", "--image-size", "16"]
    arguments += ["--limit-train", "8", "--limit-test", "8", "--epochs", "1", "--deterministic"]
    arguments += ["--workdir", str(config.workdir), "--no-compilation-cache"]
    done = subprocess.run(
        [sys.executable, SCRIPTS / "train.py", *arguments], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
