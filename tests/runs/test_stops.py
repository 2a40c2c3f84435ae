"""What a run refuses, and its messages when numbers, memory or its folder fail."""

import contextlib
import importlib.metadata
import json
import os
import subprocess
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from nin_jax import UserError
from nin_jax.runs import checkpoint, environment, failure, fit, manifest, resuming, workdir, writers
from nin_jax.runs.preparation import epoch_order, load_spec, prepare_run
from nin_jax.runs.saving import Cadence
from nin_jax.training.optimizer import optimizer_of
from nin_jax.training.recipes import Recipe
from tests.support.disturbed import EPOCHS, STEPS, command_of


def test_another_configuration_is_refused_and_every_difference_listed(again):
    match = r"precision was 'float32', is 'bfloat16'; batch_size was 50, is 60 .*may change.*epochs"
    with pytest.raises(UserError, match=match):
        fit.fit(replace(again, precision="bfloat16", batch_size=60))


@pytest.fixture
def resumed(again):
    """The specification of a copy of the undisturbed run, to be resumed."""
    return load_spec(again)


@pytest.mark.parametrize(
    ("change", "listed"),
    [
        (lambda patch: jax.enable_x64(True), "jax_enable_x64 was False, is True"),
        (lambda patch: jax.threefry_partitionable(False), "threefry_partitionable was True"),
        (lambda patch: jax.default_prng_impl("rbg"), "prng_impl was 'threefry2x32', is 'rbg'"),
        (
            lambda patch: jax.default_matmul_precision("bfloat16"),
            "jax_default_matmul_precision was None, is 'bfloat16'",
        ),
        (
            lambda patch: patch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true"),
            "is '--xla_cpu_enable_fast_math=true'",
        ),
        (lambda patch: patch.setenv("PJRT_NPROC", "77"), ", 77 threads'"),
        (
            lambda patch: patch.setattr(importlib.metadata, "version", lambda name: "0.0.1"),
            "is '0.0.1'; optax was",
        ),
    ],
    ids=["x64", "partitionable", "prng", "precision", "flags", "threads", "versions"],
)
def test_settings_that_change_the_numbers_are_compared(resumed, monkeypatch, change, listed):
    folder = resumed.config.workdir
    resuming.check_same_run(folder, resumed)
    with change(monkeypatch) or contextlib.nullcontext():
        with pytest.raises(UserError, match="with other numbers than the run's: ") as caught:
            resuming.check_same_run(folder, resumed)
        assert listed in str(caught.value)
        resumed.config = replace(resumed.config, exact_resume=False)
        resuming.check_same_run(folder, resumed)


@pytest.mark.parametrize(
    "flags",
    [
        "--xla_force_host_platform_device_count=2 --xla_dump_to=x",
        "--xla_gpu_autotune_level=0 --xla_tpu_x=1",  # of other platforms
    ],
)
def test_flags_that_change_no_number_are_not_compared(resumed, monkeypatch, flags):
    monkeypatch.setenv("XLA_FLAGS", f"{flags} {os.environ.get('XLA_FLAGS', '')}")
    resuming.check_same_run(resumed.config.workdir, resumed)


def test_flags_may_be_in_a_file_and_the_last_of_a_name_counts(monkeypatch, tmp_path):
    (tmp_path / "flags").write_text("--xla_cpu_b=1 --xla_cpu_a=1\n--xla_cpu_b=2")
    monkeypatch.setenv("XLA_FLAGS", str(tmp_path / "flags"))
    if jax.default_backend() == "cpu":
        assert environment.settings()["XLA_FLAGS"] == "--xla_cpu_a=1 --xla_cpu_b=2"


def test_another_number_of_devices_is_a_warning(resumed):
    path = resumed.config.workdir / workdir.CONFIG
    saved = json.loads(path.read_text())
    saved["devices"] += 1
    path.write_text(json.dumps(saved))
    with pytest.warns(UserWarning, match="the run continues on . devices and had .: sums may"):
        resuming.check_same_run(path.parent, resumed)


def test_the_remedy_for_too_little_memory_is_accepted(resumed):
    """The size of a micro-batch changes only how sums are rounded."""
    resumed.config = replace(resumed.config, micro_batch_size=5)
    with pytest.raises(UserError, match="micro_batch_size was "):
        resuming.check_same_run(resumed.config.workdir, resumed)
    resumed.config = replace(resumed.config, exact_resume=False)
    resuming.check_same_run(resumed.config.workdir, resumed)


def test_a_changed_network_is_refused(resumed):
    path = resumed.config.workdir / workdir.CONFIG
    saved = json.loads(path.read_text())
    saved["variant"]["dropout"] = 0.25
    path.write_text(json.dumps(saved))
    with pytest.raises(UserError, match=r"the variant .*tiny\.toml has changed"):
        resuming.check_same_run(path.parent, resumed)


def test_a_run_of_an_earlier_version_is_resumed(resumed):
    """Its config.json has neither the settings nor the options that are newer."""
    path = resumed.config.workdir / workdir.CONFIG
    saved = json.loads(path.read_text())
    del saved["variant"]["image_size"]
    for stage in saved["variant"]["stages"]:
        stage["pool"] = True  # 3x3 with stride 2
    del saved["numerics"], saved["config"]["exact_resume"]
    for table in (saved["config"], saved["recipe"]):
        del table["class_weights"]
    path.write_text(json.dumps(saved))
    with jax.enable_x64(True):
        resuming.check_same_run(path.parent, resumed)
    assert manifest.read_run(path.parent).config.exact_resume


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


def test_a_norm_that_overflows_skips_the_step(config):
    """Its entries are finite, so Optax alone would apply a step that is reported as skipped."""
    optimizer = optimizer_of(replace(config, skip_nonfinite=True), Recipe(lr=1.0), 1, lambda _: 1.0)
    params = {"kernel": jnp.ones((2, 2))}
    state = optimizer.init(params)
    for entry, applied in ((1.0, True), (1e20, False), (jnp.nan, False)):
        updates: Any = optimizer.update({"kernel": jnp.full((2, 2), entry)}, state, params)[0]
        assert bool(jnp.any(updates["kernel"] != 0)) is applied, entry


def test_out_of_memory_names_the_batch_size_and_a_remedy(config, monkeypatch):
    def exhausted(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")

    run = prepare_run(load_spec(config))
    monkeypatch.setattr(fit, "prepare_run", lambda *_, **__: replace(run, train_steps=exhausted))
    with pytest.raises(UserError, match=r"--batch-size 50 .*: try --micro-batch-size 25$"):
        fit.fit(config)
    run = replace(run, config=replace(config, resume=True))
    match = "try --micro-batch-size 25 --no-exact-resume$"
    with pytest.raises(UserError, match=match), failure.memory_errors(run):
        exhausted()


def test_other_errors_of_the_device_are_not_hidden(config, monkeypatch):
    def broken(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: the device fell off the bus")

    run = prepare_run(load_spec(config))
    monkeypatch.setattr(fit, "prepare_run", lambda *_, **__: replace(run, train_steps=broken))
    with pytest.raises(jax.errors.JaxRuntimeError, match="fell off the bus"):
        fit.fit(config)


@pytest.mark.slow
def test_of_two_runs_in_one_folder_the_second_is_refused(config):
    options = ("--limit-test", "10", "--epochs", "1", "--no-compilation-cache")
    command = command_of(config, *options)
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
