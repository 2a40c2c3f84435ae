"""What a run reports of its steps and epochs: metrics, speed, and notes with a remedy."""

import time
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.soak.small_run import rows_of
from nin_jax.models.nin import new_model
from nin_jax.runs import preparation, workdir, writers
from nin_jax.runs.checkpoint import Checkpoints
from nin_jax.runs.fit import fit
from nin_jax.runs.progress import Recorder
from tests.support.picture_folders import make_folder, pictures


@pytest.mark.slow
def test_one_step_on_one_class(config, capsys, tmp_path):
    """There is no speed, because the first step includes compilation, and nothing to learn."""
    images = make_folder(tmp_path / "set", pictures(4, 8, 8), np.zeros(4, int))
    fit(replace(config, dataset=f"folder:{images}", limit_train=None, epochs=1, optimizer="sgd"))
    out = capsys.readouterr().out
    assert "epoch 1/1" in out
    assert "images/s" not in out
    assert "nan" not in out
    assert "NOTE: all training images have the same class, so there is nothing to learn" in out


def test_several_steps_per_dispatch_are_the_same_run(config, undisturbed):
    """An epoch has 3 steps, so its last dispatch has fewer than 2.

    The compiled loop is another program, so sums may round differently.
    """
    fit(replace(config, steps_per_dispatch=2))
    one, many = rows_of(undisturbed), rows_of(config.workdir)
    assert len(one) == len(many)
    for a, b in zip(one, many, strict=True):
        assert a.keys() == b.keys()
        for name in a.keys() - {"kind"}:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-4)


def test_the_time_of_an_evaluation_does_not_count_for_the_speed(config, monkeypatch):
    """The first dispatch of an epoch has the end of a row's ten steps inside it."""
    epoch = Recorder.epoch

    def late(recorder, score):
        time.sleep(0.5)
        epoch(recorder, score)

    monkeypatch.setattr(Recorder, "epoch", late)
    limits = {"limit_train": 60, "batch_size": 4, "micro_batch_size": 4}  # 15 steps in an epoch
    fit(replace(config, steps_per_dispatch=10, epochs=3, **limits))
    rows = writers.read_metrics(config.workdir / workdir.METRICS)
    speeds = {row["step"]: row["images_per_second"] for row in rows if row["kind"] == "step"}
    assert list(speeds) == [10, 15, 20, 30, 40, 45]
    assert speeds.pop(10) is None  # it includes compilation
    assert min(speeds.values()) > 8  # 4 images in 0.5 s


def test_the_time_of_saving_does_not_count_for_the_speed(config, monkeypatch):
    """Within an epoch and between two epochs, by a clock that jumps while a checkpoint is saved."""
    save, clock, late = Checkpoints.save, time.perf_counter, [0]

    def slowly(*arguments):
        late[0] += 1000
        save(*arguments)

    monkeypatch.setattr(Checkpoints, "save", slowly)
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + late[0])
    limits = {"limit_train": 60, "batch_size": 4, "micro_batch_size": 4}  # 15 steps in an epoch
    fit(replace(config, checkpoint_every="7", epochs=2, **limits))
    rows = writers.read_metrics(config.workdir / workdir.METRICS)
    speeds = [row["images_per_second"] for row in rows]
    assert len(speeds) == 6  # after 10, 15, 20 and 30 steps, and of two epochs
    assert None not in speeds
    assert min(speeds) > 1  # 40 images are the most in a row


@pytest.mark.slow
def test_a_run_that_learns_nothing_prints_a_remedy_and_the_dead_classes(config, capsys):
    """A network that does not learn predicts few of the ten classes."""
    summary = fit(replace(config, optimizer="sgd", lr=1e-9, epochs=1))
    out = capsys.readouterr().out
    assert summary["at_chance_after_first_epoch"]
    assert "Remedy: more images or --epochs" in out
    dead = summary["dead_classes"]
    assert 0 < len(dead) < 10
    assert set(dead) < {str(digit) for digit in range(10)}
    assert f"never predicted: {', '.join(dead[:3])}" in out
    assert rows_of(config.workdir)[-1]["dead_classes"] == len(dead)
    published = {"momentum": 0.0, "nesterov": False, "workdir": config.workdir / "d2l"}
    fit(replace(config, recipe="d2l", lr=1e-9, epochs=1, **published))
    assert "Remedy: --recipe modern" in capsys.readouterr().out


@pytest.mark.slow
def test_dead_classes_have_a_remedy(config, capsys, monkeypatch):
    """The accuracy is above chance, but one class cannot be predicted."""

    def blind(*arguments, **options):
        model = new_model(*arguments, **options)
        bias = model.head.convs[-1].bias
        bias[...] = bias[...].at[3].set(-50.0)
        return model

    monkeypatch.setattr(preparation, "new_model", blind)
    summary = fit(replace(config, limit_train=None, epochs=1, checkpoint_every="1h"))
    assert summary["dead_classes"] == ["3"]
    note = "NOTE: epoch 1 never predicted 3 for a training image. Remedy"
    assert note in capsys.readouterr().out


def test_a_class_that_dies_after_the_first_epoch_has_a_remedy(config, capsys, monkeypatch):
    epoch = Recorder.epoch

    def dying(recorder, score):
        progress = recorder.progress
        progress.predictions[3] = 0.0 if progress.epochs else 1.0
        epoch(recorder, score)

    monkeypatch.setattr(Recorder, "epoch", dying)
    fit(replace(config, limit_train=None, epochs=3, checkpoint_every="1h"))
    out = capsys.readouterr().out
    assert "NOTE: epoch 1" not in out
    assert "NOTE: epoch 2 never predicted 3 for a training image. Remedy" in out
    assert "NOTE: epoch 3" not in out
