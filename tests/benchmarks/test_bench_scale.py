"""The logic of the scale benchmark, on a tiny network. No measured value is asserted."""

import re
from pathlib import Path

import flax.nnx as nnx
import jax
import pytest
from jax.sharding import AbstractMesh

import nin_jax
from benchmarks.speed import jobs, scale
from benchmarks.speed.timing import Timing
from benchmarks.speed.work import Work
from nin_jax.accounting.collectives import KINDS
from nin_jax.training.sharding import AXIS, Layout

ROOT = Path(__file__).resolve().parent.parent.parent
DOC = ROOT / "docs" / "scale.md"


@pytest.mark.slow
def test_the_job_yields_all_rows(plan, monkeypatch):
    monkeypatch.setattr(scale, "VIRTUAL_DEVICES", 2)
    rows = list(jobs.JOBS["scale"](plan))
    assert not [row["error"] for row in rows if "error" in row]
    assert all(isinstance(v, str | int | float) for row in rows for v in row.values())
    plain, mesh, *others = rows
    assert plain["over_no_mesh"] == 1
    assert mesh["over_no_mesh"] == pytest.approx(mesh["median_ms"] / plain["median_ms"], rel=0.02)

    weak, sent = others[:3], others[3:]
    assert [(row["devices"], row["batch_size"]) for row in weak] == [(1, 2), (2, 4), (2, 4)]
    assert [row["parameters"] for row in weak] == ["on every device"] * 2 + ["sharded"]
    assert all("2 virtual devices share" in row["note"] for row in weak[1:])
    assert weak[0]["efficiency"] == 1
    assert all(row["host_cores_busy"] > 0 for row in weak)

    assert [row["collective"] for row in sent] == [*KINDS] * 2
    counts = [
        {row["collective"]: row["count"] for row in sent if row["parameters"] == kind}
        for kind in ("on every device", "sharded")
    ]
    assert counts[0] == dict.fromkeys(KINDS, 0) | {"all-reduce": 1}
    assert counts[1]["all-gather"] == counts[1]["reduce-scatter"] == 1
    # Every gradient; loss, correct predictions and examples; each class's labels and predictions.
    assert sent[0]["operand_bytes"] == sent[0]["parameter_bytes"] + (3 + 2 * 10) * 4


def test_a_failure_is_a_row():
    (row,) = scale.measure("mesh overhead", Work("train", "nin", 1, 20), rounds=1)
    assert row["benchmark"] == "mesh overhead"
    assert "too small" in row["error"]


def test_flags_of_the_environment_are_kept(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=1")
    assert scale.virtual_devices(4)["XLA_FLAGS"].split()[0] == "--xla_a=1"


def test_efficiency_of_virtual_devices_and_of_gpus(tiny):
    work = Work("train", str(tiny), 2, 16)
    mesh = AbstractMesh((4,), (AXIS,))
    step = scale.Step(work, Layout(mesh), lambda: None, "", 0)  # type: ignore[arg-type]
    cpu = scale.efficiency(step, Timing((8.0,)), Timing((2.0,)), "cpu")
    assert cpu["efficiency"] == 1  # four times the work in four times the time
    gpu = scale.efficiency(step, Timing((2.5,)), Timing((2.0,)), "gpu")
    assert gpu == {"efficiency": 0.8}  # four times the work in nearly the same time


def test_busy_cores_are_processor_time_over_wall_time(monkeypatch):
    clock = {"perf_counter": 0.0, "process_time": 0.0}
    for name in clock:
        monkeypatch.setattr(f"benchmarks.speed.scale.time.{name}", lambda name=name: clock[name])

    def work():
        clock["perf_counter"] += 2.0
        clock["process_time"] += 3.0

    call = scale.Clocked(work)
    call()
    call()
    assert call.cores == 1.5


@pytest.mark.parametrize("variant", ["nin", "nin15"])
def test_the_documented_bytes_follow_from_the_layout(variant):
    model = nnx.eval_shape(lambda: nin_jax.create_model(variant))
    leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
    layout = Layout(AbstractMesh((8,), (AXIS,)), shard_params=True)  # type: ignore[arg-type]
    sharded = [4 * leaf.size for leaf in leaves if layout._axis(leaf.shape) is not None]
    whole = sum(4 * leaf.size for leaf in leaves) - sum(sharded)
    found = re.findall(
        rf"^\| `{variant}` \| ([\w ]+) \| ([\w-]+) \| (\d+) \| ([\d,]+) \|$",
        DOC.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    sent = {(kind, name): int(size.replace(",", "")) for kind, name, _, size in found}
    assert sent.pop(("on every device", "all-reduce")) == whole + sum(sharded) + 12
    assert sent.pop(("sharded", "all-gather")) == sum(sharded) // 8
    assert sent.pop(("sharded", "reduce-scatter")) == sum(sharded)
    # Whole arrays, three sums, and for each sharded array a slice's part of the norm.
    assert sent.pop(("sharded", "all-reduce")) == whole + 12 + 4 * len(sharded)
    assert not sent
