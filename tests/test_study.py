"""The study: the grid, resuming it, its statistics, answers and page; no accuracy is asserted."""

import csv
import io
import json
import re
from html.parser import HTMLParser

import pytest

import nin_jax
from nin_jax.errors import UserError
from nin_study import content, grid, page
from nin_study.answers import MISSING, QUESTIONS, answers
from nin_study.grid import ABLATION, Cell, Setting
from nin_study.summary import summarise


def row(variant="nin", recipe="modern", seed=0, accuracy=0.5, change="", **more):
    cell = Cell(variant, recipe, seed, change)
    return {
        "cell": cell.name,
        "variant": variant,
        "recipe": recipe,
        "change": change,
        "seed": seed,
        "dataset": "fashion_mnist",
        "image_size": [67, 67],
        "train_images": 100,
        "test_images": 20,
        "evaluated_on": "test images",
        "epochs": 2,
        "settings": {"lr": 0.03, "batch_size": 64},
        "setting": {},
        "test_accuracy": accuracy,
        "test_accuracy_per_class": [accuracy, None, 1.0],
        "train_loss": [2.0, 1.0],
        "test_loss": [2.0, 1.5],
        "test_accuracy_by_epoch": [accuracy / 2, accuracy],
        "epochs_to_80": 2 if accuracy >= 0.8 else None,
        "collapsed": accuracy < 0.2,
        "images_per_second": 100.0,
        "device": "cpu",
        "versions": {"jax": "0"},
    } | more


def network(**more):
    return {
        "batch_size": 64,
        "head_map": [1, 1],
        "params": 1_000_000,
        "macs": 2_000_000,
        "flops_per_training_step": 3_000_000,
        "train_bytes": 2**20,
        "predict_bytes": None,
        "step_ms": 640.0,
        "device": "cpu",
    } | more


NETWORKS = {
    f"{variant} {recipe}": network()
    for variant in nin_jax.list_variants()
    for recipe in ("d2l", "modern")
}


def summary(rows):
    return summarise(rows, NETWORKS)


def everything():
    return [
        row(variant, recipe, seed, 0.5 + 0.01 * seed + 0.001 * i)
        for i, variant in enumerate(nin_jax.list_variants())
        for recipe in ("d2l", "modern")
        for seed in range(3)
    ] + [row("nin", "modern", seed, 0.4, change) for change in ABLATION for seed in range(3)]


def test_the_grid_has_every_cell_once_and_one_seed_of_everything_first():
    cells = grid.cells(["nin", "nin15"], ["d2l", "modern"], 2, "nin")
    assert len(cells) == len({cell.name for cell in cells}) == 2 * (4 + len(ABLATION))
    assert {cell.seed for cell in cells[: len(cells) // 2]} == {0}
    names = [cell.name for cell in cells]
    assert all(re.fullmatch(r"[\w.-]+", name) for name in names), "names are folders"


def test_an_ablation_changes_the_recipe_it_is_about():
    setting = Setting(dataset="digits", image_size=67)
    from pathlib import Path

    from nin_jax.config import recipe_of

    base = recipe_of(Cell("nin", "modern", 0).config(setting, Path(), False))
    for change in ABLATION:
        recipe = recipe_of(Cell("nin", "modern", 0, change).config(setting, Path(), False))
        assert recipe != base, change


def test_the_ablation_needs_something_to_compare_with():
    from nin_study.study import _plan
    from scripts.study import StudyConfig

    def changes(**options):
        config = StudyConfig(dataset="digits", image_size=67, **options)
        return {cell.change for cell in _plan(config)[1]} - {""}

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
    for text, message in (
        ("lr", "'lr' is not of the form field=value"),
        ("lt=0.1", "unknown field of a recipe 'lt': did you mean lr"),
        ("epochs=3", "unknown field of a recipe 'epochs'"),
        ("optimizer=lion", "optimizer must be one of sgd, adam"),
        ("lr=fast", "'lr=fast' holds no number"),
    ):
        with pytest.raises(UserError, match=message):
            grid.changes_of(text)


def test_results_survive_a_torn_last_line(tmp_path):
    path = tmp_path / "results.jsonl"
    assert grid.read_results(path) == []
    grid.append_result(path, row(seed=0))
    grid.append_result(path, row(seed=1))
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.warns(UserWarning, match="the last line is torn"):
        rows = grid.read_results(path)
    assert [r["seed"] for r in rows] == [0]
    grid.append_result(path, row(seed=1))  # the torn line is cut off, not glued to
    assert path.read_bytes() == whole
    assert len(grid.read_results(path)) == 2


@pytest.mark.parametrize("line", ["{", "[]", "{}", "3", '{"cell": '])
def test_a_damaged_line_before_the_last_is_an_error(tmp_path, line):
    path = tmp_path / "results.jsonl"
    path.write_text(f"{line}\n{json.dumps(row())}\n")
    with pytest.raises(UserError, match="line 1 is no result"):
        grid.read_results(path)


def test_statistics_are_over_all_seeds_the_collapsed_ones_too():
    (group,) = summary([row(seed=0, accuracy=0.9), row(seed=1, accuracy=0.1)])
    assert group.accuracy == pytest.approx(0.5)
    assert group.accuracy_std == pytest.approx(0.8 / 2**0.5)  # sample deviation
    assert (group.seeds, group.collapsed, group.reached_80) == (2, 1, 1)
    assert group.epochs_to_80 == 2
    assert group.per_class == [pytest.approx(0.5), None, 1.0]
    (alone,) = summary([row()])
    assert alone.accuracy_std is None
    assert alone.epochs_to_80 is None


def test_every_question_is_answered_with_the_studys_numbers():
    found = answers(summary(everything()))
    assert len(found) == len(QUESTIONS) == 6
    for answer in found:
        assert MISSING not in answer.text
        assert re.search(r"\d", answer.text)
        assert 2 <= len(re.findall(r"[.?!:](?:\s|$)", answer.text)) <= 8
    assert "0.5100" in found[0].text  # nin's mean
    assert "0.5110" in found[0].text  # and nin_one_1x1's


def test_without_modern_runs_the_answers_are_by_the_others():
    rows = [r for r in everything() if r["recipe"] == "d2l" or r["change"]]
    assert not any(answer.text == MISSING for answer in answers(summary(rows)))


def test_maps_of_a_pixel_are_said_to_be_no_pooling():
    (text,) = [a.text for a in answers(summary(everything())) if "fully connected" in a.question]
    assert "(of 1x1 at this image size; of 5x5 at 224x224)" in text
    assert "Maps of a single pixel are their own mean" in text


def test_what_was_not_run_is_said():
    found = answers(summary([row("nin")]))
    assert [answer.text == MISSING for answer in found] == [True, True, True, False, True, True]


class Page(HTMLParser):
    """Collects what a page shows and refers to."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.sources, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in ("meta", "img", "br", "link", "source"):
            self.open.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "srcset", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def study(rows, **more):
    names = ["T-shirt", "trousers", "<b>bag</b> & co"]
    return content.Study(rows, summary(rows), names, ["python", "scripts/study.py"], **more)


def test_the_page_is_whole_and_fetches_nothing():
    text = page.as_html(study(everything(), gallery=[content.Picture(b"png", "a <i>shoe</i>")]))
    parsed = Page(text)
    assert not parsed.open
    assert parsed.sources
    assert all(source.startswith("data:image/") for source in parsed.sources)
    assert not re.search(r"https?://(?!www\.w3\.org)", re.sub(r'src(set)?="[^"]*"', "", text))
    for question in QUESTIONS:
        assert question in text
    reduced = "100 of 60,000 training images; 20 of 10,000 test images; 2 of 10 epochs"
    assert f"This study is reduced: {reduced}; images of 67x67 in place of 224x224." in text


def test_the_page_escapes_what_comes_from_files():
    evil = "<script>alert(1)</script>\"'&"
    rows = [row(evil, dataset=evil, device=evil, versions={evil: evil})]
    picture = content.Picture(b"", evil)
    made = content.Study(rows, summary(rows), [evil] * 3, ["python", evil], [picture])
    text = page.as_html(made)
    assert "alert(1)</script>" not in text
    assert text.count("<script>") == 1
    assert not Page(text).open


def test_markdown_and_csv_hold_the_table():
    made = study(everything())
    rows = list(csv.DictReader(io.StringIO(content.as_csv(made.groups))))
    assert len(rows) == len(made.groups) == 2 * len(nin_jax.list_variants()) + len(ABLATION)
    assert rows[0]["parameters"] == "1000000"
    assert (rows[0]["training MiB"], rows[0]["prediction MiB"]) == ("1.0", "")
    assert rows[0]["images/s"] == "100.0"
    text = content.as_markdown(made)
    classes = 2 * len(nin_jax.list_variants())
    assert text.count("\n| ") == len(rows) + classes + 4
    assert all(question in text for question in QUESTIONS)


@pytest.fixture
def small(tiny, tmp_path):
    """Options of a study of a second."""
    options = ["--variants", tiny, "--dataset", "digits", "--image-size", 16, "--epochs", 2]
    options += ["--limit-train", 64, "--limit-test", 20, "--ablation", "none"]
    return [*options, "--out", tmp_path / "study"]


def test_a_study_is_made_gone_on_with_and_not_made_twice(script, small, tmp_path):
    outcome = script("study", *small, "--recipes", "modern", "--seeds", 1)
    assert outcome.code == 0, outcome.err
    out = tmp_path / "study"
    assert {path.name for path in out.iterdir()} == {
        *("results.jsonl", "index.html", "study.md", "study.csv", "study.json", "runs"),
        "accuracy-modern.svg",
    }
    first = (out / "results.jsonl").read_text()
    outcome = script("study", *small, "--recipes", "modern", "--seeds", 2)
    assert outcome.code == 0, outcome.err
    assert "run 1 of 1" in outcome.out
    rows = grid.read_results(out / "results.jsonl")
    assert (out / "results.jsonl").read_text().startswith(first)
    assert [r["seed"] for r in rows] == [0, 1]
    assert len(rows[0]["test_accuracy_by_epoch"]) == 2
    story = json.loads((out / "study.json").read_text())
    (network,) = story["networks"].values()
    assert network["head_map"] == [3, 3]
    assert network["step_ms"] > 0
    assert network["train_bytes"] > 4 * network["params"]
    assert len(rows[0]["test_accuracy_per_class"]) == 10
    before = (out / "results.jsonl").read_text()
    page_of = (out / "index.html").read_text()
    outcome = script("study", "--out", out, "--page-only")  # from the results alone
    assert outcome.code == 0, outcome.err
    assert (out / "index.html").read_text() == page_of
    assert (out / "results.jsonl").read_text() == before
    other = [16 + 4 if option == 16 else option for option in small]
    outcome = script("study", *other, "--recipes", "modern", "--seeds", 1)
    assert outcome.code == 2
    assert "holds results of image_size 16 and not 20" in outcome.err


def test_an_interrupted_run_is_gone_on_with(script, small, tmp_path, monkeypatch):
    from nin_jax.loop import fit
    from nin_study import run as run_module

    resumed = []

    def interrupted(config):
        resumed.append(config.resume)
        if len(resumed) == 1:
            from dataclasses import replace

            fit(replace(config, epochs=1))
            (config.workdir / "summary.json").unlink()
            raise KeyboardInterrupt
        return fit(config)

    monkeypatch.setattr(run_module, "fit", interrupted)
    options = [*small, "--recipes", "modern", "--seeds", 1]
    assert script("study", *options).code == 130
    assert not (tmp_path / "study" / "results.jsonl").exists()
    outcome = script("study", *options)
    assert outcome.code == 0, outcome.err
    assert resumed == [False, True]


def test_a_run_of_another_version_is_told_of(script, small, tmp_path):
    folder = tmp_path / "study" / "runs" / "tiny-modern-seed0"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text("{}")
    outcome = script("study", *small, "--recipes", "modern", "--seeds", 1)
    assert outcome.code == 2
    assert "tiny-modern-seed0 is of another version of nin_jax: no " in outcome.err
    assert outcome.err.count("\n") == 1


BAD = {
    "unknown variant": (["--variants", "nin51"], "or nin15"),
    "unknown recipe": (["--recipes", "modem"], "did you mean modern"),
    "no seeds": (["--seeds", "0"], "--seeds must be a whole number >= 1"),
    "image too small": (["--variants", "nin", "--image-size", "20"], "too small"),
    "epochs zero": (["--epochs", "0"], "--epochs must be"),
    "limit zero": (["--limit-train", "0"], "--limit-train must be"),
    "nothing to show": (["--page-only"], "study holds no results"),
    "unknown data set": (["--dataset", "fashionmnist"], "did you mean fashion_mnist"),
    "two of one name": (["--variants", "nin", "nin"], "has two of one name"),
    "no such change": (["--changes", "lt=1"], "unknown field of a recipe"),
    "holdout zero": (["--holdout", "0"], "--holdout must be"),
    "gallery of nothing": (["--gallery", "none"], "none holds no run"),
    "ablation of another": (["--ablation", "nin15"], "--ablation must be one of"),
}


@pytest.mark.parametrize("case", BAD)
def test_study_refuses(script, tmp_path, case):
    arguments, text = BAD[case]
    defaults = [] if "--dataset" in arguments else ["--dataset", "digits"]
    outcome = script("study", *defaults, *arguments)
    assert outcome.code == 2, outcome
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert text in outcome.err
    assert not (tmp_path / "cwd" / "study").exists()
