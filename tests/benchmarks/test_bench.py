"""Logic of the benchmarks: rounds, ratios, error rows, output. No measured value is asserted."""

import csv
import json
import re
from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import torch
from flax import nnx

import nin_jax
import nin_torch_ref
from benchmarks.speed import figures, jobs, ours, output, pytorch, summary, timing
from benchmarks.speed.bench import run_benchmarks
from benchmarks.speed.config import BenchConfig
from benchmarks.speed.contenders import against_rivals
from benchmarks.speed.timing import Timing, interleave
from benchmarks.speed.work import OURS, TORCH, Work, training_cost
from benchmarks.speed.worker import FailedError, Worker
from nin_jax.models import processor


@pytest.fixture
def one_rival(monkeypatch):
    """Offer a single rival: torch.compile takes a minute."""
    monkeypatch.setattr(pytorch, "rivals", lambda work: {TORCH: None})


def test_contenders_take_turns_and_slow_ones_drop_out(monkeypatch):
    clock, order = [0.0], []
    monkeypatch.setattr("benchmarks.speed.timing.time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("benchmarks.speed.timing.time.sleep", lambda seconds: None)

    def call(name, seconds):
        def run():
            order.append(name)
            clock[0] += seconds

        return run

    speeds = {"ours": 9.0, "fast": 1.0, "near": 1.2, "slow": 2.0}
    timings = interleave({n: call(n, s) for n, s in speeds.items()}, rounds=4, keep="ours")
    assert order[:8] == [*speeds, *speeds]
    assert order[8:] == ["ours", "fast", "near"] * 2
    assert timings["ours"] == Timing((9.0,) * 4)
    assert timings["slow"] == Timing((2.0,) * 2)
    assert timings["near"].row(images=6)["images_per_second"] == 5.0


def test_a_far_slower_contender_is_not_timed_again(monkeypatch):
    monkeypatch.setattr("benchmarks.speed.timing.time.sleep", lambda seconds: None)
    calls = {name: lambda: None for name in ("ours", "best", "slow")}
    expected = {"ours": 9.0, "best": 1.0, "slow": 3.1}
    timings = interleave(calls, rounds=3, keep="ours", expected=expected)
    assert timings["slow"] == Timing((3.1,))
    assert [len(timings[name].seconds) for name in ("ours", "best")] == [3, 3]
    all_rounds = interleave(calls, rounds=3, keep="ours", screening=3, expected=expected)
    assert len(all_rounds["slow"].seconds) == 3


def test_short_calls_are_repeated_within_a_round(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("benchmarks.speed.timing.time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("benchmarks.speed.timing.time.sleep", lambda seconds: None)

    def short():
        clock[0] += 0.01

    timing = interleave({"ours": short}, rounds=2, keep="ours", expected={"ours": 0.01})["ours"]
    assert timing.seconds == pytest.approx((0.01, 0.01))
    assert clock[0] == pytest.approx(0.4)  # 20 calls a round


def test_a_call_that_fails_in_a_round_does_not_stop_the_others(monkeypatch):
    monkeypatch.setattr("benchmarks.speed.timing.time.sleep", lambda seconds: None)
    answers = iter([1, 0])
    failed = {}
    timings = interleave(
        {"ours": lambda: None, "odd": lambda: 1 // next(answers)},
        rounds=3,
        keep="ours",
        failed=failed.__setitem__,
    )
    assert list(timings) == ["ours"]
    assert len(timings["ours"].seconds) == 3
    assert isinstance(failed["odd"], ZeroDivisionError)


@pytest.mark.usefixtures("one_rival")
@pytest.mark.parametrize("job", [pytest.param("train", marks=pytest.mark.slow), "predict"])
def test_rows_are_flat_and_ours_has_a_ratio(plan, job):
    # A larger network: in a row, times and ratio have three decimals.
    rows = list(jobs.JOBS[job](replace(plan, variants=("nin_one_1x1",), image_size=67)))
    mine, rival = rows[:2]
    assert mine["contender"] == OURS
    assert mine["best_rival"] == rival["contender"] == TORCH
    ratio = rival["median_ms"] / mine["median_ms"]
    half = 5e-4  # of the last decimal: the ratio is rounded, and so are the two times
    most = half + 1.001 * ratio * (half / rival["median_ms"] + half / mine["median_ms"])
    assert abs(mine["best_rival_over_ours"] - ratio) <= most
    assert 0 < mine["least_ratio"] <= mine["largest_ratio"]
    assert all(isinstance(v, str | int | float) for row in rows for v in row.values())


@pytest.mark.usefixtures("one_rival")
def test_a_failure_is_a_row_and_the_others_continue(plan):
    work = Work("predict", "nin_one_1x1", 2, 67)
    rows = {row["contender"]: row for row in against_rivals(plan, work, ["no such way"])}
    assert rows["no such way"]["error"] == "KeyError: 'no such way'"
    assert all(rows[name]["median_ms"] > 0 for name in (OURS, TORCH))


def test_a_process_that_dies_says_why():
    work = Work("predict", "nin_one_1x1", 2, 67)
    with Worker(work, TORCH) as call:
        call()
        call.process.kill()
        with pytest.raises(FailedError, match="killed by signal 9"):
            call()


def test_rivals_of_bfloat16_are_there_without_autocast_too():
    exact, half = (
        set(pytorch.rivals(Work("train", "nin", 2, 67, precision=precision)))
        for precision in ("float32", "bfloat16")
    )
    assert half == exact | {f"{name}, float32" for name in exact}


@pytest.mark.parametrize("variant", nin_jax.list_variants())
def test_a_variant_in_the_notation_of_the_reference(variant):
    architecture = pytorch.architecture_of(nin_jax.get_variant(variant))
    with torch.device("meta"):
        models = [
            nin_torch_ref.create_model(each, image_size=96) for each in (architecture, variant)
        ]
    assert len({repr(model) for model in models}) == 1


def test_the_plain_network_computes_what_ours_does():
    variant = nin_jax.Variant(
        "pools",
        stages=(
            nin_jax.Stage((5, 3), 3, mlp=((1, 0),), pool=nin_jax.Pool(padding=1, round_up=True)),
            nin_jax.Stage(4, 1, mlp=(), pool=nin_jax.Pool("average", 2, 3), dropout=0.5),
        ),
    )
    model = nin_jax.create_model(variant, image_size=15)
    plain = ours.PlainNiN(model)
    blocks = zip([*model.blocks, model.head], [*plain.blocks, plain.head], strict=True)
    for block, plain_block in blocks:
        for conv, plain_conv in zip(block.convs, plain_block, strict=True):
            plain_conv.kernel[...] = conv.kernel[...]
            plain_conv.bias[...] = conv.bias[...]
    x = jax.random.uniform(jax.random.key(0), (2, 15, 15, 1))
    keys = jax.random.split(jax.random.key(1), 2)
    expected = nnx.jit(model)(x, keys)
    np.testing.assert_allclose(nnx.jit(plain)(x, keys), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_ablation_trains(monkeypatch, tiny, precision):
    monkeypatch.setattr(processor, "multiplies_bfloat16", lambda: True)
    ablations = ours.ablations(Work("train", str(tiny), 2, 16, precision=precision))
    assert ("bfloat16 convolutions in float32" in ablations) is (precision == "bfloat16")
    for build in ablations.values():
        build()()


@pytest.mark.slow
def test_settings_are_compared_with_ours(plan):
    rows = list(jobs.settings(plan))
    assert [row["contender"] for row in rows] == [OURS, "bfloat16", "Muon"]
    assert all(row["over_ours"] > 0 for row in rows)


def test_the_summary_collects_the_comparisons(plan, monkeypatch):
    calls = []

    def run(command, env, **_):
        calls.append((command[2], "MALLOC_TOP_PAD_" in env))
        if command[2] == "startup":
            return SimpleNamespace(returncode=1, stderr="a long story\nerror: no disk")
        ours = {"benchmark": command[2], "variant": "nin", "contender": OURS, "median_ms": 2.0}
        ours |= {"best_rival": "torch eager NCHW", "best_rival_over_ours": 1.5}
        other = {"benchmark": command[2], "variant": "nin", "contender": "torch eager NCHW"}
        return SimpleNamespace(returncode=0, stdout=json.dumps({"rows": [ours, other]}))

    monkeypatch.setattr(summary.subprocess, "run", run)
    monkeypatch.setattr(summary, "PARTS", (*summary.PARTS[:2], summary.Part("startup")))
    rows = list(summary.measure(plan))
    assert calls == [("train", False), ("train", True), ("startup", False)]
    assert rows[4] == {"benchmark": "startup", "contender": OURS, "error": "error: no disk"}
    assert [row["benchmark"] for row in rows[5:]] == ["summary"] * 2
    assert [row.get("allocator") for row in rows[5:]] == [None, "keeps memory"]
    assert all(row["rival"] == "torch eager NCHW" for row in rows[5:])


@pytest.mark.slow
def test_both_sides_train_with_muon(tiny):
    work = Work("train", str(tiny), 2, 16, optimizer="muon", momentum=0.95)
    ours.nin_jax_call(work)()
    pytorch.torch_call(work, channels_last=True)()


@pytest.mark.slow
def test_an_epoch_and_its_published_rivals(plan, monkeypatch):
    monkeypatch.setattr(jobs, "EPOCH_IMAGES", 5)
    rows = list(jobs.epoch(plan))
    assert [row["images"] for row in rows] == [5] * 3
    assert not any("error" in row for row in rows)


@pytest.mark.slow
def test_cost_per_image(plan, monkeypatch):
    monkeypatch.setattr(jobs, "DATASET_SIZES", (4, 9))
    rows = list(jobs.images(plan))
    assert [row["images"] for row in rows] == [4, 9]
    assert all(row["ms_per_image"] > row["order_ms_per_image"] > 0 for row in rows)


def test_rows_in_bfloat16_say_so():
    rows = [Work("train", "nin", 2).row() | {"contender": OURS}]
    both = [*rows, *(row | {"precision": "bfloat16"} for row in rows)]
    assert "our precision" not in output.as_text(rows, {}, "")
    assert "our precision" in output.as_text(both, {}, "")


@pytest.mark.slow
def test_a_sweep_is_drawn_with_its_roofline(plan, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # the figure has room for a short name
    plan = replace(plan, variants=("tiny.toml",), image_size=64)
    monkeypatch.setattr(jobs, "SWEEP_IMAGE_SIZES", (64, 72))
    monkeypatch.setattr(jobs, "SWEEP_BATCH_SIZES", (1, 2))
    monkeypatch.setattr(timing, "matmul_gflops", lambda precision: 400.0)
    monkeypatch.setattr(timing, "copy_gb_per_s", lambda: 20.0)
    rows = list(jobs.sweep(plan))
    assert [row["benchmark"] for row in rows] == ["roof"] + ["sweep"] * 4
    assert figures.draw_sweep(rows, tmp_path / "sweep.png").stat().st_size > 10_000


def test_training_cost_follows_the_macs():
    flops, _ = training_cost(Work("train", "nin", 1))
    first_layer = 54 * 54 * 96 * 121
    assert flops == 2 * (3 * 762_297_352 - first_layer)


def test_results_as_json_csv_and_markdown(tmp_path):
    rows = [
        {"benchmark": "train", "variant": "nin", "contender": "nin_jax", "median_ms": 1.5},
        {"benchmark": "train", "variant": "nin", "contender": "x", "error": "RuntimeError: y, z"},
    ]
    output.write(tmp_path, rows, {"jax": "1"}, "python scripts/bench.py")
    saved = json.loads((tmp_path / "results.json").read_text())
    assert saved["rows"] == rows
    with open(tmp_path / "results.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert read[0]["median_ms"] == "1.5"
    assert read[1]["error"] == "RuntimeError: y, z"
    text = (tmp_path / "results.md").read_text()
    assert re.search(r"^\| nin +\| nin_jax +\| +1\.5 \|", text, re.MULTILINE)
    assert "x " in output.as_text(rows, {"jax": "1"}, "python scripts/bench.py")


def test_an_interrupted_call_has_written_its_rows(monkeypatch, tmp_path):
    def measure(plan):
        yield {"benchmark": "train", "variant": "nin", "contender": "nin_jax", "median_ms": 1.5}
        raise KeyboardInterrupt

    monkeypatch.setitem(jobs.JOBS, "train", measure)
    with pytest.raises(KeyboardInterrupt):
        run_benchmarks(BenchConfig(("train",), out=tmp_path), "python scripts/bench.py train")
    (row,) = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert row["median_ms"] == 1.5
