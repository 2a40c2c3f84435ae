"""scripts/report.py: the golden table, formats, derivation, measurements and figures."""

import csv
import functools
import io
import json
import math
import re
from pathlib import Path

import pytest
from PIL import Image

import nin_jax
from benchmarks.speed import memory
from benchmarks.speed.probe import measure
from benchmarks.speed.work import OURS, TORCH, TORCH_WITH_GRADIENTS
from nin_jax.accounting import report
from nin_jax.accounting.account import account
from nin_jax.accounting.account_tables import variant_table
from nin_jax.accounting.memory_tables import Measured, measured_table
from nin_jax.accounting.request import parse_memory
from nin_jax.tables import Bytes, text_of
from parity_tests.test_counts import GOLDEN
from tests.support.accounts import shapes_of

TASKS = ["train", "predict"]
RESULTS = Path(__file__).resolve().parent.parent.parent / "benchmarks" / "results" / "accounting"


@pytest.fixture(autouse=True, scope="module")
def each_account_is_made_once():
    """Share accounts between tests: XLA takes seconds for each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "account", functools.cache(account))
        yield


@pytest.mark.parametrize("in_channels", [1, 3])
def test_report_prints_the_golden_table(script, in_channels):
    outcome = script("report", "--all", "--in-channels", in_channels, "--format", "json")
    assert outcome.code == 0, outcome.err
    rows = json.loads(outcome.out)
    found = {(row["variant"], row["in_channels"]): (row["params"], row["macs"]) for row in rows}
    assert found == {key: counts for key, counts in GOLDEN.items() if key[1] == in_channels}


@pytest.mark.parametrize("output", ["table", "markdown"])
def test_published_figures_are_printed_with_their_names(script, output):
    options = ("--variant", "nin", "--in-channels", 3, "--image-size", 224, "--batch-size", 1)
    outcome = script("report", *options, "--per-layer", "--format", output)
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert any("parameters" in line and "2,015,398" in line for line in lines)
    assert any("thop" in line and "830,042,124" in line for line in lines)
    assert any("MACs" in line and "830,041,864" in line for line in lines)
    assert "thop's 830,042,124 = 830,041,864 MACs + 260" in outcome.out
    assert any("block2.conv1" in line and "415,334,400" in line for line in lines)
    (total,) = (line for line in lines if re.match(r"[|│ ]*total ", line) and "830,041" in line)
    assert re.search(r"\d\.\d\d\W*$", total), "no intensity"
    assert any("XLA's own operations" in line and "1,561,163,238" in line for line in lines)
    assert "not available" in outcome.out or "code" in outcome.out


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_contains_raw_numbers(script):
    variants = rows_of(script("report", "--all", "--format", "csv").out)
    assert [row["variant"] for row in variants] == nin_jax.list_variants()
    assert variants[0]["parameters"] == "1992166"
    small = ("--variant", "nin_one_1x1", "--image-size", 67, "--batch-size", 2, "--format", "csv")
    layers = rows_of(script("report", *small, "--per-layer").out)
    assert sum(int(row["MACs"]) for row in layers[:-1]) == int(layers[-1]["MACs"])
    values = {row["key"]: row["value"] for row in rows_of(script("report", *small).out)}
    assert values["params"] == "1769112"
    assert values["forward.plain.flops_unexplained"] == "0.0"
    assert values["memory.train.xla_as_run"] == "not available"  # not asked for


def tables_of(text):
    return [rows_of(table) for table in text.split("\n\n")]


@pytest.mark.slow
def test_csv_contains_measurements_and_largest_batches(script, tiny, monkeypatch):
    monkeypatch.setattr(report, "list_variants", lambda: [str(tiny)])
    monkeypatch.setattr(memory, "measure", lambda *_: {"steps_bytes": 7, "error": "odd"})
    small = ("--image-size", 16, "--batch-size", 2, "--train", "--memory", "20KB", "--format")
    outcome = script("report", "--all", *small, "csv", "--per-layer")
    assert outcome.code == 0, outcome.err
    networks, memory_rows, largest, layers = tables_of(outcome.out)
    assert networks[0]["parameters"] == str(nin_jax.count_params(shapes_of(tiny, image_size=16)))
    assert [row["measured"] for row in memory_rows] == ["7", "7"]
    assert "nin_jax: odd" in memory_rows[0]["error"]
    assert {row["task"]: row["variant"] for row in largest} == dict.fromkeys(TASKS, "tiny")
    assert layers[0]["variant"] == "tiny"
    outcome = script("report", "--variant", tiny, *small, "csv", "--per-layer")
    assert outcome.code == 0, outcome.err
    layers, gradients, measured, largest = tables_of(outcome.out)
    assert layers[-1]["layer"] == "total"
    assert gradients[0]["to its input, as run"] == "none"
    assert measured[0]["within a step"] == "7"
    assert [row["task"] for row in largest] == TASKS[::-1]


def test_unknown_values_are_not_printed_as_zero():
    assert text_of(None) == text_of(Bytes(None)) == "not available"
    assert text_of(Bytes(0)) == "0.0"
    assert text_of(0) == "0"
    assert text_of(1234567) == text_of(1234567.0) == "1,234,567"
    assert text_of(0.001234) == "0.00123"


@pytest.mark.parametrize(
    "options",
    [
        ("--in-channels", 3),
        ("--variant", "nin_fc", "--image-size", 131, 99),
        ("--variant", "nin15", "--num-classes", 7, "--recipe", "modern", "--batch-size", 5),
    ],
    ids=str,
)
def test_every_equation_of_the_derivation_holds(script, options):
    outcome = script("report", *options, "--explain")
    assert outcome.code == 0, outcome.err
    checked = 0
    for line in outcome.out.splitlines():
        bare = re.sub(r"\b(?!floor)[A-Za-z']{2,}\b", "", line.removeprefix("- "))
        bare = re.sub(r"(?<=\d),(?=\d{3})", "", bare).replace(" x ", " * ")
        for left, right in re.findall(r"((?:floor|[\d,()+*/ -])+) = \**(\d+)", bare):
            assert eval(left.strip(" ,"), {"floor": math.floor}) == int(right), line
            checked += 1
    assert checked > 30


def test_the_derivation_contains_the_published_figures(script):
    outcome = script("report", "--in-channels", 3, "--explain")
    assert "prints **830,042,124**" in outcome.out
    assert "= **2,015,398**" in outcome.out


@pytest.mark.slow
def test_training_memory_is_predicted_and_measured(script, tiny, monkeypatch):
    rows = {}

    def once(work, contender):
        """Measure a contender in one process for both tasks: each takes seconds to start."""
        if contender not in rows:
            rows[contender] = measure(work, contender)
        return rows[contender]

    monkeypatch.setattr(memory, "measure", once)
    options = ("--variant", tiny, "--image-size", 28, "--batch-size", 256, "--train")
    outcome = script("report", *options, "--format", "json", "--memory", "1GiB")
    assert outcome.code == 0, outcome.err
    report = json.loads(outcome.out)
    assert report["versions"]["jax"]
    for row in report["measured"]:
        assert row["error"] is None, row
        assert row["predicted_step_bytes"] > 0
        assert row["between_steps_bytes"] > 50 * 2**20  # every process with a framework is larger
        assert 0 <= row["step_bytes"] <= row["peak_resident_bytes"] - row["between_steps_bytes"]
        assert row["peak_resident_bytes"] < 50 * 2**30
    assert [(row["task"], row["contender"]) for row in report["measured"]] == [
        *(("train", OURS), ("train", TORCH)),
        *(("predict", OURS), ("predict", TORCH), ("predict", TORCH_WITH_GRADIENTS)),
    ]
    whole = report["training"]["parts"][-1]
    assert whole["plain_products"] > 0
    for batch in report["largest_batches"]:
        assert batch["needed_bytes"] <= 2**30
        assert batch["images"] > 256


@pytest.mark.slow
def test_training_of_all_adds_one_table(script, tiny, monkeypatch):
    monkeypatch.setattr(report, "list_variants", lambda: [str(tiny)])
    options = ("--all", "--train", "--no-measure", "--image-size", 16, "--batch-size", 2)
    outcome = script("report", *options, "--format", "markdown")
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("### ") == 2
    assert re.search(r"\| tiny +\| train +\|", outcome.out)
    assert "not available" in outcome.out  # nothing was measured


@pytest.mark.parametrize(
    ("step_bytes", "words"),
    [(116, "above the plan: train 1.16"), (84, "below the plan: train 0.84")],
)
def test_a_difference_of_more_than_15_percent_is_explained(step_bytes, words):
    def note(contender, step_bytes):
        row = Measured(contender, "train", step_bytes=step_bytes, predicted_step_bytes=100)
        return measured_table([row], 4).note

    assert words in note("nin_jax", step_bytes)
    assert "15%" not in note("nin_jax", 115) + note("nin_jax", 85) + note("nin_jax", None)
    assert "15%" not in note("torch eager channels_last", step_bytes)


@pytest.mark.slow
def test_figures_are_drawn(script, tmp_path, monkeypatch):
    variants = ["nin", "nin_fc"]
    monkeypatch.setattr(report, "list_variants", lambda: variants)
    outcome = script("report", "--all", "--plots", tmp_path / "new" / "plots")
    assert outcome.code == 0, outcome.err
    names = {path.name for path in (tmp_path / "new" / "plots").iterdir()}
    assert names == {"variants.png", *(f"layers-{name}.png" for name in variants)}
    for name in names:
        with Image.open(tmp_path / "new" / "plots" / name) as image:
            assert image.width >= 1000
            assert len(image.convert("RGB").getcolors(10**6) or []) > 50


def test_a_figure_that_cannot_be_written_is_one_line(script, tmp_path):
    (tmp_path / "plots" / "layers.png").mkdir(parents=True)
    small = ("--variant", "nin_one_1x1", "--image-size", 67, "--explain")
    outcome = script("report", *small, "--plots", tmp_path / "plots")
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: cannot write {tmp_path / 'plots' / 'layers.png'}: ")
    assert outcome.err.count("\n") == 1


@pytest.fixture(scope="module")
def on_paper():
    return [account(name, batch_size=128, xla=False) for name in nin_jax.list_variants()]


def test_committed_results_include_all_variants(on_paper):
    committed = (RESULTS / "on-paper.md").read_text(encoding="utf-8")
    for row in variant_table(on_paper).rows:
        assert f"| {' | '.join(map(text_of, row))} |" in re.sub(" +", " ", committed)
    with Image.open(RESULTS / "variants.png") as image:
        assert image.info["Description"] == ", ".join(nin_jax.list_variants())


@pytest.mark.parametrize(
    ("text", "expected"),
    [("8GiB", 8 * 2**30), ("500 MB", 5 * 10**8), ("1.5gb", 15 * 10**8), ("1024", 1024)],
)
def test_memory_sizes_are_parsed(text, expected):
    assert parse_memory(text) == expected
