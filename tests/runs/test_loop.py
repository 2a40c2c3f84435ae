"""A whole run: what it writes and prints, and scoring it again."""

import json
import os
import re
import shutil
import subprocess
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from nin_jax import UserError
from nin_jax.data import datasets, download
from nin_jax.data.built_in import BUILT_IN
from nin_jax.models import convert, processor
from nin_jax.runs import manifest, preparation, workdir, writers
from nin_jax.runs.examples import load_data
from nin_jax.runs.fit import fit
from nin_jax.training import device
from tests.support.disturbed import assert_same, command_of, events_of


def test_what_a_run_writes(config, undisturbed, capsys):
    summary = fit(config)
    folder = config.workdir
    assert_same(folder, undisturbed)  # of the same configuration, to the bit
    written = {path.name for path in folder.iterdir()}
    assert written == {
        ".lock",
        "checkpoints",
        "config.json",
        "curves.png",
        "metrics.jsonl",
        "model.safetensors",
        "summary.json",
        "tensorboard",
    }
    saved = json.loads((folder / "config.json").read_text())
    assert saved["dataset"]["name"] == "digits"
    assert len(saved["dataset"]["checksum"]) == 64
    assert saved["recipe"]["lr"] > 0
    assert {"jax", "flax", "optax", "python"} <= saved["versions"].keys()
    assert summary == json.loads((folder / "summary.json").read_text())
    assert summary["dataset"] == "digits"
    assert (summary["steps"], summary["epochs"]) == (6, 2)
    epochs = [r for r in writers.read_metrics(folder / "metrics.jsonl") if r["kind"] == "epoch"]
    assert [row["epoch"] for row in epochs] == [1, 2]
    wanted = {"train_loss", "test_loss", "test_accuracy", "images_per_second"}
    assert all(wanted <= row.keys() for row in epochs)
    events = events_of(folder)
    assert ["step/train_loss" in tags for _, tags in events] == [True, False, True, False]
    assert all("epoch/train_loss" in tags for _, tags in events[1::2])
    assert all(tag.startswith(("step/", "epoch/")) for _, tags in events for tag in tags)
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert 0 < summary["time_to_first_step_seconds"] < 600
    out = capsys.readouterr().out
    for text in ("tiny: 16x16x1 -> 10 classes", "first step after ", "epoch 2/2"):
        assert text in out


def test_a_line_is_printed_as_it_is(capsys):
    with writers.Screen(1) as screen:
        screen.line("wrote runs/a:x:1 [b]")
    assert capsys.readouterr().out == "wrote runs/a:x:1 [b]\n"


def test_a_row_without_a_time_is_an_event_too(tmp_path):
    rows = [{"kind": "step", "step": 1, "train_loss": 0.5}]
    with closing(writers.TensorBoardWriter(tmp_path / "tensorboard", rows)):
        assert events_of(tmp_path) == [(1, {"step/train_loss"})]


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--no-compilation-cache", "--deterministic")])
def test_compiled_programs_are_kept_for_the_next_start(config, tmp_path, options):
    """They are in the user's cache folder. JAX chooses it once, so this needs a new process.

    On a CPU the flags of --deterministic have no effect, but XLA must know them.
    """
    command = command_of(config, "--limit-train", "8", "--limit-test", "8", "--epochs", "1")
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        environment.pop(name, None)
    done = subprocess.run([*command, *options], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    kept = [path.name for path in tmp_path.glob("nin_jax/xla/*")]
    assert any("step" in name for name in kept) == (not options)


def test_limits_of_the_compilation_cache_in_the_environment_are_left(monkeypatch):
    """The conftest.py at the top sets both."""
    changed = {}
    monkeypatch.setattr(jax.config, "update", changed.__setitem__)
    device.use_compilation_cache(True)
    assert changed == {}
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
    device.use_compilation_cache(True)
    assert changed == {"jax_persistent_cache_min_compile_time_secs": 0.0}


@pytest.mark.slow
def test_a_finished_run_can_be_loaded_and_scored_without_its_variant_file(config, script, tiny):
    summary = fit(config)
    tiny.unlink()  # config.json has the variant's definition
    model = manifest.read_run(config.workdir).load_model()
    assert model.variant.name == "tiny"
    weights = load_file(config.workdir / "model.safetensors")
    assert sum(array.size for array in weights.values()) == summary["params"]
    outcome = script("evaluate", "--workdir", config.workdir)
    assert outcome.code == 0, outcome.err
    assert f"test accuracy {summary['test_accuracy']}\n" in outcome.out
    assert (config.workdir / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_evaluate_refuses_other_data(undisturbed, script, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(undisturbed, folder)
    saved = json.loads((folder / "config.json").read_text())
    saved["dataset"]["checksum"] = "0" * 64
    (folder / "config.json").write_text(json.dumps(saved))
    outcome = script("evaluate", "--workdir", folder)
    assert (outcome.code, "the data differ from the run's" in outcome.err) == (2, True)


def test_holdout_images_are_training_images_that_are_not_trained_on(config, script, capsys):
    whole = load_data(replace(config, limit_train=None, limit_test=None))
    held = load_data(replace(config, limit_train=None, limit_test=None, holdout=100))
    assert (len(held.train), len(held.test)) == (len(whole.train) - 100, 100)
    parts = np.concatenate([held.train.images, held.test.images]).reshape(len(whole.train), -1)
    order, same = (np.lexsort(x.T) for x in (parts, whole.train.images.reshape(len(parts), -1)))
    np.testing.assert_array_equal(parts[order], whole.train.images.reshape(len(parts), -1)[same])
    summary = fit(replace(config, holdout=100, limit_test=None, epochs=1))
    printed = capsys.readouterr().out
    assert "training and 100 held-out images" in printed
    assert "  held-out loss " in printed
    assert "test" not in printed.replace(str(config.workdir), "")
    assert summary["evaluated_on"] == "held-out training images"
    assert summary["test_images"] == 100
    held_out = script("evaluate", "--workdir", config.workdir).out
    assert f"accuracy on held-out images {summary['test_accuracy']}\n" in held_out
    on_test = script("evaluate", "--workdir", config.workdir, "--test").out
    assert re.search(r"^test accuracy 0\.\d+$", on_test, re.MULTILINE)
    with pytest.raises(UserError, match="--holdout 1442 leaves nothing to train on"):
        fit(replace(config, holdout=1442, workdir=config.workdir / "other"))


def test_steps_are_rounded_up_to_whole_epochs(config):
    """120 images make 3 batches of 50."""
    spec = preparation.load_spec(replace(config, epochs=None, steps=7))
    assert (spec.steps_per_epoch, spec.recipe.epochs) == (3, 3)
    with pytest.raises(UserError, match="give --steps or --epochs, not both"):
        fit(replace(config, steps=7))


@pytest.mark.slow
def test_without_a_workdir_runs_are_numbered(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = replace(config, workdir=None, epochs=1, optimizer="sgd")
    assert workdir.claim(config) == Path("runs", "tiny-001")
    fit(config)
    assert (tmp_path / "runs" / "tiny-002" / "summary.json").exists()


def test_without_network_or_files_training_falls_back_to_digits(config, monkeypatch, tmp_path):
    monkeypatch.delenv("NIN_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))

    def unreachable(*_):
        raise download.DownloadError("no network")

    entry = BUILT_IN["fashion_mnist"]._replace(load=unreachable)
    monkeypatch.setitem(BUILT_IN, "fashion_mnist", entry)
    with pytest.warns(datasets.FallbackWarning):
        spec = preparation.load_spec(replace(config, dataset=None))
    assert (spec.config.dataset, spec.dataset.name) == ("digits", "digits")


@pytest.mark.parametrize("multiplies", [False, True])
def test_bfloat16_trains(config, monkeypatch, capsys, multiplies):
    monkeypatch.setattr(processor, "multiplies_bfloat16", lambda: multiplies)
    options = {"image_size": (16, 20), "optimizer": "adam", "label_smoothing": 0.1, "epochs": 1}
    summary = fit(replace(config, precision="bfloat16", **options))
    notice = "bfloat16: this processor computes convolutions in float32" in capsys.readouterr().out
    assert notice is not multiplies
    assert np.isfinite(summary["test_loss"])
    weights = load_file(config.workdir / "model.safetensors")
    assert {array.dtype for array in weights.values()} == {np.dtype("float32")}


def test_dropout_replaces_every_rate_of_the_network(config, tiny):
    stage = "[[stages]]\nchannels = 4\nkernel = 3\nmlp = []\n"
    tiny.write_text(f"{stage}dropout = 0.2\n{stage}padding = 1\n")
    options = replace(config, image_size=16)
    own = preparation.prepare_run(preparation.load_spec(options)).model
    assert [d.rate for d in (*own.pool_dropouts, own.dropout)] == [0.2, 0, 0.5]
    for rate in (0.3, 0.0):
        spec = preparation.load_spec(replace(options, dropout=rate))
        model = preparation.prepare_run(spec).model
        assert [d.rate for d in (*model.pool_dropouts, model.dropout)] == [rate, 0, rate]
        # The layers keep their numbers.
        assert [*convert.to_torch(model)] == [*convert.to_torch(own)]


@pytest.mark.slow
def test_a_run_without_jit(config, tiny):
    """As with JAX_DISABLE_JIT=1, for a debugger: every operation runs by itself.

    The images are not resized: each operation is a program to compile.
    """
    stage = "[[stages]]\nchannels = 4\nkernel = 3\nmlp = []\npool = false\n"
    tiny.write_text(f"{stage}[head]\nkernel = 1\nmlp = []\n")
    config = replace(config, optimizer="sgd", lr=0.01, init="he", augment="none", batch_size=2)
    config = replace(config, epochs=1, limit_train=2, limit_test=2, image_size=8)
    expected = fit(config)
    with jax.disable_jit():
        summary = fit(replace(config, workdir=config.workdir.parent / "without"))
    for name in ("train_loss", "test_loss"):
        np.testing.assert_allclose(summary[name], expected[name], rtol=1e-4)
