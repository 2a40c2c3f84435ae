"""The grid, the results file, and studies in parts. No accuracy is asserted."""

import json
import re
import signal
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

import nin_jax
from nin_jax.data.datasets import Split
from nin_jax.models.nin import NiN
from nin_jax.runs.progress import Recorder
from nin_jax.study import cell, gallery, grid
from nin_jax.study.config import StudyConfig, plan
from nin_jax.study.grid import ABLATION, Cell, Setting
from nin_jax.training.config import recipe_of
from tests.support.study_results import row


def test_the_grid_has_each_cell_once_and_the_first_seed_of_all_first():
    cells = grid.cells(["nin", "nin15"], ["d2l", "modern"], 2, "nin")
    assert len(cells) == len({cell.name for cell in cells}) == 2 * (4 + len(ABLATION))
    assert {cell.seed for cell in cells[: len(cells) // 2]} == {0}
    names = [cell.name for cell in cells]
    assert all(re.fullmatch(r"[\w.-]+", name) for name in names), "names are folders"


def test_each_ablation_changes_the_recipe():
    setting = Setting(dataset="digits", image_size=67)
    base = recipe_of(Cell("nin", "modern", 0).config(setting, Path(), False))
    for change in ABLATION:
        recipe = recipe_of(Cell("nin", "modern", 0, change).config(setting, Path(), False))
        assert recipe != base, change


def test_the_ablation_needs_unchanged_runs():
    def changes(**options):
        config = StudyConfig(dataset="digits", image_size=67, **options)
        return {cell.change for cell in plan(config)[1]} - {""}

    assert changes(variants=("nin", "nin15")) == set(ABLATION)
    assert not changes(variants=("nin15",))
    assert not changes(variants=("nin",), recipes=("d2l",))
    assert changes(variants=("nin15",), changes=("lr=0.1",)) == {"lr=0.1"}


def test_changes_are_fields_of_a_recipe():
    assert grid.changes_of("lr=0.06, optimizer=adam,nesterov=false") == {
        "lr": 0.06,
        "optimizer": "adam",
        "nesterov": False,
    }


def test_changes_that_cannot_be_told_apart_are_refused():
    def check(*changes):
        return plan(StudyConfig("digits", image_size=67, variants=("nin",), changes=changes))

    check("lr=0.1", "lr=0.2")
    for changes in (("lr=1e-1", "lr=1e+1"), ("lr=0.1, init=he", "lr=0.1,init=he")):
        with pytest.raises(nin_jax.UserError, match="would have the same folder, nin-d2l-lr_"):
            check(*changes)
    with pytest.raises(nin_jax.UserError, match="is too long for a name"):
        check("lr=0." + "0" * 300 + "1")


def test_results_survive_an_incomplete_last_line(tmp_path):
    path = tmp_path / "results.jsonl"
    assert grid.read_results(path) == []
    grid.append_result(path, row(seed=0))
    grid.append_result(path, row(seed=1))
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.warns(UserWarning, match="the last line is incomplete"):
        rows = grid.read_results(path)
    assert [r["seed"] for r in rows] == [0]
    grid.append_result(path, row(seed=1))  # the incomplete line is removed first
    assert path.read_bytes() == whole
    assert len(grid.read_results(path)) == 2


@pytest.mark.slow
def test_a_study_in_parts_adds_up(script, small, tmp_path, monkeypatch):
    """No run is repeated, each recipe has its own length; the last command times all networks."""
    monkeypatch.setattr(gallery, "SHOWN", 1)  # a picture takes a second
    out = tmp_path / "study"
    results = out / "results.jsonl"
    for options in (
        ["--recipes", "modern", "--seeds", 1, "--no-times"],
        ["--recipes", "modern", "--seeds", 2, "--no-times"],
        ["--recipes", "d2l", "--seeds", 1, "--epochs", 1, "--limit-train", 32],
    ):
        before = results.read_text() if results.exists() else ""
        outcome = script("study", *small, *options)
        assert outcome.code == 0, outcome.err
        assert "run 1 of 1" in outcome.out
        assert results.read_text().startswith(before)
        networks = json.loads((out / "study.json").read_text())["networks"]
        timed = {name for name, network in networks.items() if "step_ms" in network}
        assert timed == (set() if "--no-times" in options else {"tiny modern", "tiny d2l"})
        assert all(network["macs"] > 0 for network in networks.values())
    # A run that has not collapsed draws the gallery.
    assert {path.name for path in out.iterdir()} - {"gallery"} == {
        *("results.jsonl", "index.html", "study.md", "study.csv", "study.json", "runs"),
        *("accuracy-modern.svg", "accuracy-d2l.svg", ".lock"),
    }
    rows = grid.read_results(results)
    assert [(r["recipe"], r["seed"], len(r["test_accuracy_by_epoch"])) for r in rows] == [
        ("modern", 0, 2),
        ("modern", 1, 2),
        ("d2l", 0, 1),
    ]
    assert list(rows[0]["test_accuracy_by_size"]) == ["12", "16", "20", "24"]
    assert rows[0]["test_accuracy_by_size"]["16"] == pytest.approx(rows[0]["test_accuracy"])
    assert rows[0]["test_images_by_size"] == 20
    assert len(rows[0]["test_accuracy_per_class"]) == 10
    story = json.loads((out / "study.json").read_text())
    assert len(story["commands"]) == 3
    for network in story["networks"].values():
        assert network["head_map"] == [3, 3]
        assert network["step_ms"] > 0
        assert network["train_bytes"] > 4 * network["params"]
    markdown = (out / "study.md").read_text()
    assert "Recipe modern: digits at 16x16, 64 training images, 2 epochs; 2 runs" in markdown
    assert "Recipe d2l: digits at 16x16, 32 training images, 1 epoch; 1 run," in markdown
    written = [path.read_text() for path in (results, out / "index.html")]
    outcome = script("study", "--out", out, "--page-only")  # from the results alone
    assert outcome.code == 0, outcome.err
    assert [path.read_text() for path in (results, out / "index.html")] == written
    outcome = script("study", *small, "--recipes", "d2l", "--image-size", 20)
    assert outcome.code == 2
    differences = "image_size 16 and not 20, epochs 1 and not 2, limit_train 32 and not 64"
    assert f"holds results of {differences} for recipe d2l" in outcome.err


def dark_head(logit_relu: bool, classifier: Literal["mean", "linear"]) -> NiN:
    """Return a network with a logit of -1 for class 2 and every image, or 0 with a ReLU."""
    variant = nin_jax.Variant("dark", (nin_jax.Stage(4, 3, padding=1),), classifier=classifier)
    model = nin_jax.create_model(variant, num_classes=4, image_size=8, logit_relu=logit_relu)
    last = model.head.convs[-1] if model.linear is None else model.linear
    assert last.bias is not None
    kernel, bias = np.abs(last.kernel[...]), np.ones(4, np.float32)
    kernel[..., 2], bias[2] = 0, -1
    last.kernel[...], last.bias[...] = kernel, bias
    return model


@pytest.mark.parametrize("classifier", [pytest.param("mean", marks=pytest.mark.slow), "linear"])
def test_a_dead_class_is_zero_everywhere_or_never_predicted(classifier, monkeypatch):
    if classifier == "mean":  # each size takes a second; those of a study are checked above
        monkeypatch.setattr(cell, "SIZES", ())
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 1), np.uint8)
    test = Split(images, np.zeros(30, np.int32))
    under_relu = cell.examine(dark_head(True, classifier), test)
    without = cell.examine(dark_head(False, classifier), test)
    assert 2 in under_relu["dead_classes"]
    assert 2 in without["dead_classes"]
    if classifier == "mean":
        assert under_relu["dead_classes"] == [2]  # the other maps are positive
        assert len(without["dead_classes"]) > 1
    assert list(without["test_accuracy_by_size"]) == ["8"]


@pytest.mark.slow
def test_an_interrupted_run_is_resumed(script, small, tmp_path, monkeypatch):
    from nin_jax.runs.fit import fit

    resumed, epoch = [], Recorder.epoch

    def then_a_signal(recorder, score):
        epoch(recorder, score)
        signal.raise_signal(signal.SIGTERM)

    def interrupted(config):
        resumed.append(config.resume)
        with monkeypatch.context() as patch:
            if len(resumed) == 1:
                patch.setattr(Recorder, "epoch", then_a_signal)
            return fit(config)

    monkeypatch.setattr(cell, "fit", interrupted)
    options = [*small, "--recipes", "modern", "--seeds", 1, "--no-times"]
    stopped = script("study", *options)
    assert stopped.code == 143
    assert "SIGTERM: the same command continues the study\n" in stopped.err
    assert not (tmp_path / "study" / "results.jsonl").exists()
    outcome = script("study", *options)
    assert outcome.code == 0, outcome.err
    assert resumed == [False, True]


@pytest.mark.parametrize(
    ("variant", "message"),
    [("nin_fc", "has no class maps"), ("nin", "its class maps have a single pixel")],
)
def test_a_gallery_needs_maps_with_places(monkeypatch, variant, message):
    model = nin_jax.create_model(variant, image_size=67)
    monkeypatch.setattr(gallery, "load_run", lambda folder: model)
    with pytest.raises(nin_jax.UserError, match=message):
        plan(StudyConfig(gallery=Path("run")))
