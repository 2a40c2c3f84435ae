"""Runs side by side: their table and their figure."""

import json
import re
import shutil
from glob import glob
from itertools import chain
from pathlib import Path

import pytest

from nin_jax import plotting
from nin_jax.errors import UserError
from nin_jax.runs.comparison import read_history, table

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "benchmarks/results/modern"
NIN15, NIN = RESULTS / "nin15-64-60000", RESULTS / "nin-96-60000"


def test_committed_runs():
    runs = [read_history(folder) for folder in (NIN15, NIN)]
    found = table(runs)
    rows = [dict(zip(found.headings, row, strict=True)) for row in found.texts]
    accuracies = [[row["test accuracy"], row["training accuracy"]] for row in rows]
    assert accuracies == [["0.9333", "0.9411"], ["0.9313", "0.9430"]]
    assert [row["parameters"] for row in rows] == ["2,225,510", "1,992,166"]
    assert [row["million MACs"] for row in rows] == ["117.6", "108.0"]
    assert "recipe" not in found.headings
    assert found.note.startswith("All: dataset fashion_mnist, recipe modern, batch size 64, ")
    # The last of an epoch's 938 steps has only 32 images.
    speeds = [row.images_per_second or 0.0 for row in runs[0].epochs]
    expected = [60000 / speed / 60 for speed in speeds]
    assert runs[0].minutes == pytest.approx([sum(expected[: n + 1]) for n in range(3)])
    every = table(runs, every_epoch=True)
    assert [row[every.headings.index("epoch")] for row in every.rows] == [1, 2, 3, 1, 2, 3]


def test_options_that_differ_are_columns(tmp_path):
    shutil.copytree(NIN, tmp_path / "other")
    config = json.loads((tmp_path / "other/config.json").read_text())
    config["recipe"] |= {"lr": 0.02, "augment": "flip"}
    config["config"] |= {"limit_train": 12800, "precision": "bfloat16"}
    config["dataset"]["name"] = "digits"
    (tmp_path / "other/config.json").write_text(json.dumps(config))
    found = table([read_history(NIN), read_history(tmp_path / "other")])
    options = {"lr": ("0.01", "0.02"), "augment": ("none", "flip")}
    options |= {"dataset": ("fashion_mnist", "digits"), "precision": ("float32", "bfloat16")}
    for heading, expected in {**options, "training images": ("all", "12,800")}.items():
        column = found.headings.index(heading)
        assert tuple(row[column] for row in found.texts) == expected
    assert not {"momentum", "dropout", "epochs"} & set(found.headings)


def test_the_script_prints_and_draws(script):
    done = script("compare", NIN15, NIN, "--format", "csv", "--out", "both.png")
    assert done.code == 0, done.err
    head, *rows = done.out.splitlines()
    assert head.startswith("run,variant,image size")
    assert [row.split(",")[0] for row in rows] == ["nin15-64-60000", "nin-96-60000"]
    assert done.err == "wrote both.png\n"
    assert Path("both.png").stat().st_size > 10_000


def test_the_page_has_what_the_command_prints(script, monkeypatch):
    page = (RESULTS.parent / "modern.md").read_text()
    monkeypatch.chdir(ROOT)
    commands = re.findall(r"^python scripts/compare.py (.* --format markdown)", page, re.MULTILINE)
    assert len(commands) == 7
    for command in commands:
        words = [sorted(glob(word)) or [word] for word in command.split()]
        done = script("compare", *chain.from_iterable(words))
        assert done.out.strip() in page


def test_a_run_on_held_out_images_says_so(tmp_path):
    shutil.copytree(NIN, tmp_path / "run")
    config = json.loads((tmp_path / "run/config.json").read_text())
    config["config"]["holdout"] = 5000
    (tmp_path / "run/config.json").write_text(json.dumps(config))
    note = table([read_history(tmp_path / "run")]).note
    assert note.endswith("Evaluated on held-out training images: run.")


GOOD = {
    "kind": "epoch",
    "step": 2,
    "epoch": 1,
    "train_accuracy": 1,
    "test_accuracy": 0.5,
    "test_loss": 0.25,
    "images_per_second": 32,
}


def history_of(folder, *rows):
    shutil.copy(NIN / "config.json", folder)  # its batch size is 64
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_history(folder)


def test_numbers_that_a_good_run_may_lack(tmp_path):
    """Its first epoch is one dispatch, all its steps were skipped, and its test loss is NaN."""
    lacking = dict.fromkeys(("train_accuracy", "test_loss", "images_per_second"))
    run = history_of(tmp_path, GOOD | lacking, GOOD | {"step": 6, "epoch": 2})
    assert run.minutes == pytest.approx([60000 / 32 / 60, 120000 / 32 / 60])
    found = table([run], every_epoch=True)
    first = dict(zip(found.headings, found.texts[0], strict=True))
    unknown = ["training accuracy", "test loss"]
    assert [name for name, text in first.items() if text == "not available"] == unknown
    alone = table([history_of(tmp_path, GOOD | lacking)])
    assert alone.texts[0][-1] == "not available"


def test_runs_of_one_name_are_told_apart_by_their_paths(script, monkeypatch):
    draw, labels = plotting.plot_progress, []
    for folder in (Path("a/run"), Path("b/run")):
        folder.mkdir(parents=True)
        history_of(folder, GOOD | {"images_per_second": None})

    def plot(lines, path):
        labels.extend(label for label, *_ in lines)
        draw(lines, path)

    monkeypatch.setattr(plotting, "plot_progress", plot)
    done = script("compare", "a/run", "b/run", "--format", "csv", "--out", "both.svg")
    assert done.code == 0, done.err
    assert [row.split(",")[0] for row in done.out.splitlines()[1:3]] == ["a/run", "b/run"]
    assert labels == ["nin, 96x96, a/run", "nin, 96x96, b/run"]
    assert Path("both.svg").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": None}, "epoch must be a whole number, got None"),
        ({"train_accuracy": "0.5"}, "train_accuracy must be a number, got '0.5'"),
        ({"images_per_second": 0}, "images_per_second must be > 0, got 0"),
    ],
)
def test_damaged_metrics_raise(tmp_path, changes, message):
    with pytest.raises(UserError, match="has no complete epoch yet"):
        history_of(tmp_path)
    with pytest.raises(UserError, match=f"metrics.jsonl, the row of an epoch: {message}"):
        history_of(tmp_path, GOOD | changes)
