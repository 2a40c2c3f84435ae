"""Networks of a run: its last weights, its best ones, those of a checkpoint."""

import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import nin_jax
from nin_jax import UserError
from nin_jax.models import convert
from nin_jax.plotting import plot_confusion
from nin_jax.runs import workdir
from nin_jax.runs.checkpoint import Checkpoints

LAST = 6  # the undisturbed run keeps checkpoints of steps 5 and 6, and its best


def params_of(model):
    return jax.tree.leaves(nnx.state(model, nnx.Param))


def test_the_last_checkpoint_has_the_weights_of_the_run(undisturbed):
    last = params_of(nin_jax.load_run(undisturbed))
    loaded = params_of(nin_jax.load_run(undisturbed, checkpoint=LAST))
    before = params_of(nin_jax.load_run(undisturbed, checkpoint=LAST - 1))
    assert all(np.array_equal(a, b) for a, b in zip(last, loaded, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(last, before, strict=True))


def test_the_best_weights_have_the_best_accuracy(undisturbed, script, tmp_path):
    best = json.loads((undisturbed / workdir.SUMMARY).read_text())["best_epoch"]
    outcome = script("evaluate", "--workdir", undisturbed, "--best", "--out", tmp_path)
    assert outcome.code == 0, outcome.err
    assert f"test accuracy {best['test_accuracy']}\n" in outcome.out
    assert (tmp_path / f"confusion-{best['step']}.png").exists()
    assert not (tmp_path / workdir.CONFUSION).exists()


def test_a_figure_that_cannot_be_written_is_one_line(undisturbed, script, tmp_path):
    path = tmp_path / workdir.CONFUSION
    path.mkdir()
    outcome = script("evaluate", "--workdir", undisturbed, "--out", tmp_path)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert f"error: cannot write {path}: Is a directory" in outcome.err


def test_the_figure_of_many_classes_has_a_bounded_size(tmp_path):
    names = tuple(f"class {i}" for i in range(1000))
    plot_confusion(np.eye(1000, dtype=np.int64), names, "many", tmp_path / "many.png")
    with Image.open(tmp_path / "many.png") as figure:
        assert max(figure.size) < 5000


def test_convert_writes_the_weights_of_a_checkpoint(undisturbed, script, tmp_path):
    path = tmp_path / "five.safetensors"
    outcome = script("convert", undisturbed, path, "--checkpoint", LAST - 1)
    assert outcome.code == 0, outcome.err
    model = nin_jax.load_run(undisturbed, checkpoint=LAST - 1)
    written = convert.load_safetensors(path)
    assert all(np.array_equal(written[n], a) for n, a in convert.to_torch(model).items())


def test_missing_and_damaged_checkpoints_are_refused(undisturbed, tmp_path):
    run = shutil.copytree(undisturbed, tmp_path / "run")
    with pytest.raises(UserError, match=r"no checkpoint of step 4: it has (3, )?5, 6 "):
        nin_jax.load_run(run, checkpoint=4)
    with pytest.raises(UserError, match="not both"):
        nin_jax.load_run(run, checkpoint=5, best=True)
    folder = Checkpoints(run / workdir.CHECKPOINTS).folder / "00000005"
    os.truncate(folder / "position" / "metadata", 0)
    with pytest.raises(UserError, match="00000005 is damaged: position/metadata has changed"):
        nin_jax.load_run(run, checkpoint=5)


def test_a_run_stopped_in_its_first_epoch_has_a_network(undisturbed, tmp_path):
    run = shutil.copytree(undisturbed, tmp_path / "run")
    (run / workdir.WEIGHTS).unlink()
    with pytest.raises(UserError, match="has not finished an epoch"):
        nin_jax.load_run(run)
    model = nin_jax.load_run(run, checkpoint=LAST)
    assert jax.eval_shape(model, jnp.zeros((1, 16, 16, 1))).shape == (1, 10)
