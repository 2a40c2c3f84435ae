"""What a study finds in its folder, and what it cannot write there."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from nin_jax import plotting
from nin_jax.errors import RunError
from nin_jax.runs.examples import load_data
from nin_jax.runs.manifest import read_run
from nin_jax.study import cell, grid, study
from nin_jax.study.config import StudyConfig
from nin_jax.study.grid import Setting
from nin_jax.study.story import Story, read_story
from nin_jax.study.study import make_study
from tests.conftest import TINY_TOML, in_use
from tests.support.shipped import make_run
from tests.support.study_results import row


def test_a_run_of_another_version_is_an_error(script, small, tmp_path):
    folder = tmp_path / "study" / "runs" / "tiny-modern-seed0"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text("{}")
    outcome = script("study", *small, "--recipes", "modern", "--seeds", 1)
    assert outcome.code == 2
    assert "tiny-modern-seed0 is of another version of nin_jax: no " in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize("other", [{"epochs": 3}, {"limit_train": 32}, {"lr": 0.5}], ids=str)
def test_a_run_with_other_options_is_an_error(script, small, tiny, tmp_path, other):
    """It has finished, but its row is missing: the study was stopped between the two."""
    folder = tmp_path / "study" / "runs" / "tiny-modern-seed0"
    options = {"epochs": 2, "limit_train": 64, "limit_test": 20} | other
    make_run(folder, str(tiny), **options)
    (folder / "summary.json").write_text("{}")
    outcome = script("study", *small, "--recipes", "modern", "--seeds", 1)
    assert outcome.code == 2
    (name,) = other
    assert f"tiny-modern-seed0 is a run with other options ({name}): give anoth" in outcome.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TINY_TOML.replace("channels = 8", "channels = 9"), "tiny.toml is not the network of"),
        (None, "cannot read variant file"),
    ],
    ids=["changed", "gone"],
)
def test_a_network_that_has_changed_is_an_error(script, small, tiny, tmp_path, text, message):
    """It is found before the first of the new runs."""
    out = tmp_path / "study"
    make_run(out / "runs" / "tiny-modern-seed0", str(tiny))
    setting = Setting("digits", image_size=16, epochs=2, limit_train=64, limit_test=20)
    grid.append_result(out / "results.jsonl", row(str(tiny), setting=asdict(setting)))
    other = tiny.rename(tmp_path / "other.toml")
    if text is not None:
        tiny.write_text(text)
    options = [other if option == tiny else option for option in small]
    outcome = script("study", *options, "--recipes", "modern", "--seeds", 1)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert message in outcome.err
    assert not (out / "runs" / "other-modern-seed0").exists()


def test_two_networks_of_one_name_are_an_error(script, small, tiny, tmp_path):
    """Their runs would have one mean: those of two files, or those of a file and a variant."""
    out, others = tmp_path / "study", tmp_path / "others"
    make_run(out / "runs" / "tiny-modern-seed0", str(tiny))
    setting = Setting("digits", image_size=16, epochs=2, limit_train=64, limit_test=20)
    grid.append_result(out / "results.jsonl", row(str(tiny), setting=asdict(setting)))
    others.mkdir()
    messages = {
        "tiny.toml": f"tiny.toml is not the network of {out}",
        "nin.toml": "nin.toml' has the name of a built-in variant and is another network",
    }
    for name, message in messages.items():
        (others / name).write_text(TINY_TOML.replace("channels = 8", "channels = 9"))
        options = [others / name if option == tiny else option for option in small]
        outcome = script("study", *options, "--recipes", "modern", "--seeds", 2)
        assert (outcome.code, outcome.err.count("\n")) == (2, 1)
        assert message in outcome.err
        assert len(grid.read_results(out / "results.jsonl")) == 1


def test_a_run_has_collapsed_if_one_class_is_as_good_as_its_predictions(undisturbed):
    """The most frequent class may have more than its share of the images."""
    of = cell.Cell("tiny", "modern", 0)
    accuracies = cell.result(of, undisturbed, np.arange(1000))["test_accuracy_by_epoch"]
    assert max(accuracies) < 1
    for labels, collapsed in ((np.arange(1000), False), (np.zeros(1000, int), True)):
        assert cell.result(of, undisturbed, labels)["collapsed"] is collapsed


def test_a_folder_in_use_is_an_error(script, small, tmp_path):
    out = tmp_path / "study"
    with in_use(out):
        outcome = script("study", *small)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert f"--out {out} is in use by process 123 on host" in outcome.err


def test_what_another_study_wrote_meanwhile_is_kept(script, small, tiny, tmp_path, monkeypatch):
    """It ended while this one loaded its data, and had made the same run."""
    setting = Setting("digits", image_size=16, epochs=2, limit_train=64, limit_test=20)
    results, asked = tmp_path / "study" / "results.jsonl", []

    def load(*arguments):
        results.parent.mkdir()
        grid.append_result(results, row(str(tiny), setting=asdict(setting)))
        Story(commands=[["other"]]).write(results.parent)
        return cell.data_of(*arguments)

    monkeypatch.setattr(study, "data_of", load)
    monkeypatch.setattr(study, "_run", lambda missing, *_: asked.extend(missing))
    options = ("--recipes", "modern", "--seeds", 1, "--no-times")
    outcome = script("study", *small, *options)
    assert outcome.code == 0, outcome.err
    assert asked == []
    assert read_story(results.parent).commands[0] == ["other"]


def test_the_page_does_not_depend_on_the_order_of_the_runs(tmp_path):
    rows = [row(f"{name}.toml", seed=seed) for name in "ab" for seed in (0, 1)]
    rows += [row("nin", change=change) for change in ("", "lr=0.06", "lr=0.1")]
    pages = []
    for name, ordered in {"one": rows, "other": rows[::-1]}.items():
        out = tmp_path / name
        out.mkdir()
        for each in ordered:
            grid.append_result(out / "results.jsonl", each)
        make_study(StudyConfig(out=out, page_only=True), [])
        pages.append([(out / file).read_text() for file in ("study.md", "study.csv")])
    assert pages[0] == pages[1]


def test_a_file_that_cannot_be_written_is_one_line(script, tmp_path):
    grid.append_result(tmp_path / "results.jsonl", row())
    for name in ("index.html", "study.json", "folder"):
        (tmp_path / name).mkdir()
    with pytest.raises(RunError, match=r"cannot write .*/study\.json: Is a directory"):
        Story().write(tmp_path)
    with pytest.raises(RunError, match=r"cannot write .*/folder: Is a directory"):
        grid.append_result(tmp_path / "folder", row())
    (tmp_path / "study.json").rmdir()
    outcome = script("study", "--out", tmp_path, "--page-only")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert f"error: cannot write {tmp_path / 'index.html'}: Is a directory" in outcome.err
    assert not (tmp_path / "index.html.partial").exists()


@pytest.mark.slow
def test_a_run_that_diverges_does_not_stop_the_others(script, small, tmp_path):
    """It has no result and is named at the end; the same command tries it again."""
    options = [*small, "--recipes", "modern", "--seeds", 1, "--no-times", "--changes"]
    name = "tiny-modern-optimizer_sgd_lr_1e25_clip_norm_0-seed0"
    for others in (["lr=2e-2"], ["lr=2e-2", "lr=3e-2"]):
        outcome = script("study", *options, "optimizer=sgd, lr=1e25, clip_norm=0", *others)
        assert (outcome.code, outcome.err.count("\n")) == (1, 1)
        assert f"runs without a result, because they diverged: {name}" in outcome.err
        assert f"{name} diverged: the " in outcome.out
        assert "--skip-nonfinite" not in outcome.out  # an option that the study does not have
        rows = grid.read_results(tmp_path / "study" / "results.jsonl")
        assert [each["change"] for each in rows] == ["", *others]
        page = (tmp_path / "study" / "study.md").read_text()
        assert "lr=2e-2" in page
        assert f"Diverged, and without a result: {name}." in page
    outcome = script("study", *options, "lr=2e+2")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "holds the result of 'lr=2e-2' as tiny-modern-lr_2e_2-seed0: write" in outcome.err


@pytest.mark.slow
def test_with_held_out_images_the_gallery_shows_those_of_its_run(
    script, small, tmp_path, monkeypatch
):
    """Each seed holds out other images, and the test images are none of them."""
    shown: list[bytes] = []
    monkeypatch.setattr(
        plotting, "plot_class_maps", lambda image, *_: shown.append(image.tobytes())
    )
    run = tmp_path / "study" / "runs" / "tiny-modern-seed1"
    options = [*small, "--recipes", "modern", "--seeds", 2, "--no-times", "--holdout", 40]
    assert script("study", *options).code == 0
    shown.clear()
    outcome = script("study", *options, "--gallery", run)  # named, as it may have collapsed
    assert outcome.code == 0, outcome.err
    held_out = load_data(replace(read_run(run).config, feed="resident")).test.images
    assert shown
    assert {image.tobytes() for image in held_out} >= set(shown)
    captions = [picture["caption"] for picture in read_story(tmp_path / "study").gallery]
    assert all("tiny-modern-seed1, held-out image" in caption for caption in captions)
