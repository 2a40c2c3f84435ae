"""A training step on one device and on many: python -m benchmarks.speed.scale JSON.

Each part runs in a process of its own. A CPU is one device unless JAX is configured otherwise
before it is imported; here it becomes several virtual devices, which share its cores. Where there
are GPUs, they are the devices.
"""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import jax
import numpy as np
from flax import nnx

from benchmarks.speed.ours import new_model
from benchmarks.speed.probe import answer
from benchmarks.speed.timing import Timing, interleave
from benchmarks.speed.work import LEARNING_RATE, OURS, Call, Row, Work
from nin_jax.accounting.collectives import KINDS, collectives
from nin_jax.data.datasets import Split
from nin_jax.training.device import default_micro_batch_size
from nin_jax.training.feed import Resident
from nin_jax.training.optimizer import make_optimizer
from nin_jax.training.recipes import Recipe
from nin_jax.training.sharding import EVERYWHERE, Layout, make_layout
from nin_jax.training.step import init_train_state, make_train_step, make_train_steps

Part = Literal["mesh overhead", "weak scaling"]
PARTS: tuple[Part, ...] = ("mesh overhead", "weak scaling")
VIRTUAL_DEVICES = 8
REPLICATED, SHARDED = "on every device", "sharded"


def measure(part: Part, work: Work, rounds: int) -> Iterator[Row]:
    """Measure a part in a fresh process.

    Args:
        part: "mesh overhead": one device with and without a mesh. "weak scaling": 1, 2, 4, ...
            devices, with the work's batch on each, and the communication between them.
        work: a training step.
        rounds: interleaved rounds.

    Yields:
        The rows of the part, or one row with an error.
    """
    environment = virtual_devices(VIRTUAL_DEVICES) if part == "weak scaling" else {}
    request = {"part": part, "work": asdict(work), "rounds": rounds}
    rows = answer("benchmarks.speed.scale", request, environment)
    if isinstance(rows, dict):  # an error
        rows = [work.row() | {"benchmark": part} | rows]
    yield from rows


def virtual_devices(count: int) -> dict[str, str]:
    """Return the environment in which a CPU is that many devices; GPUs are not affected."""
    flags = os.environ.get("XLA_FLAGS", "")
    return {"XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={count}".strip()}


@dataclass(frozen=True)
class Step:
    """A compiled training step.

    Attributes:
        work: the whole batch of all devices.
        layout: None for no mesh.
        call: takes one step and waits for its end.
        text: HLO of the compiled program.
        parameter_bytes: size of all parameters.
    """

    work: Work
    layout: Layout | None
    call: Call
    text: str
    parameter_bytes: int

    def row(self, benchmark: str) -> Row:
        """Return the columns that describe the step, without its time."""
        sharded = self.layout is not None and self.layout.shard_params
        return self.work.row() | {
            "benchmark": benchmark,
            "devices": self.layout.devices if self.layout else 1,
            "parameters": SHARDED if sharded else REPLICATED,
        }


def build(work: Work, layout: Layout | None) -> Step:
    """Compile the step of scripts/train.py, one step a call, with resident images."""
    model = new_model(work)
    graphdef, params = nnx.split(model, nnx.Param)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    recipe = Recipe(lr=LEARNING_RATE, momentum=work.momentum, batch_size=work.batch_size)
    optimizer = make_optimizer(recipe, 1_000_000)
    micro = default_micro_batch_size(model, work.batch_size)
    step = make_train_step(graphdef, optimizer, recipe, work.sides, micro, layout)
    state = init_train_state(params, optimizer, layout=layout)
    arguments = _arguments(work, layout)
    compiled = make_train_steps(step, 1, layout, state).lower(state, *arguments).compile()

    def call() -> None:
        nonlocal state
        state, sums = compiled(state, *arguments)
        jax.block_until_ready((state.params, sums))

    return Step(work, layout, call, compiled.as_text(), size)


def _arguments(work: Work, layout: Layout | None) -> tuple[Any, ...]:
    """Return images, labels, order and the number of steps, placed as the layout requires."""
    images, labels, one = work.images(), work.labels(), np.int32(1)
    order = np.arange(work.batch_size, dtype=np.int32)[None]  # [1, B]
    if layout is None:
        return jax.device_put((images, labels, order, one))
    chunk = next(Resident(layout, Split(images, labels)).chunks(order, 0))
    return chunk.images, chunk.labels, chunk.order, layout.place(one, EVERYWHERE)


def overhead(work: Work, rounds: int) -> Iterator[Row]:
    """Time one device without a mesh and with a mesh of one."""
    mesh = make_layout(jax.devices()[:1])
    steps = {"no mesh": build(work, None), "a mesh of one device": build(work, mesh)}
    timings, _ = _timed(steps, rounds)
    base = timings["no mesh"].median
    for name, step in steps.items():
        ratio = {"over_no_mesh": round(timings[name].median / base, 4)}
        timing = timings[name].row(work.batch_size)
        yield step.row("mesh overhead") | {"contender": name} | timing | ratio


def weak_scaling(work: Work, rounds: int) -> Iterator[Row]:
    """Time 1, 2, 4, ... devices with the work's batch on each; then count their communication."""
    devices = jax.devices()
    counts = [2**power for power in range(len(devices).bit_length())]
    steps = {f"{n}": _on(work, devices[:n], shard_params=False) for n in counts}
    steps["sharded"] = _on(work, devices[: counts[-1]], shard_params=True)
    timings, cores = _timed(steps, rounds)
    one = timings["1"]
    for name, step in steps.items():
        yield (
            step.row("weak scaling")
            | {"contender": OURS}
            | timings[name].row(step.work.batch_size)
            | {"host_cores_busy": round(cores[name], 2)}
            | efficiency(step, timings[name], one, devices[0].platform)
        )
    for name in (str(counts[-1]), "sharded"):
        yield from communication(steps[name])


def _on(work: Work, devices: list[Any], shard_params: bool) -> Step:
    whole = replace(work, batch_size=work.batch_size * len(devices))
    return build(whole, make_layout(devices, shard_params=shard_params))


def efficiency(step: Step, timing: Timing, one: Timing, platform: str) -> Row:
    """Return the throughput relative to the ideal one.

    Virtual devices share the cores, and one device uses all of them already: without any loss, n
    devices take n times as long for n times the work. Devices with their own hardware take the
    same time.
    """
    assert step.layout is not None
    count, ideal = step.layout.devices, one.median
    if platform != "cpu":
        return {"efficiency": round(ideal / timing.median, 3)}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    virtual = f"virtual device{'s share' if count > 1 else ' has'}"
    return {
        "efficiency": round(count * ideal / timing.median, 3),
        "note": f"{count} {virtual} {cores} cores",
    }


def communication(step: Step) -> Iterator[Row]:
    """Count a step's collectives of each kind, and the bytes of their operands."""
    counts, sizes = Counter[str](), Counter[str]()
    for found in collectives(step.text):
        counts[found.kind] += 1
        sizes[found.kind] += found.bytes
    for kind in KINDS:
        yield step.row("communication") | {
            "collective": kind,
            "count": counts[kind],
            "operand_bytes": sizes[kind],
            "parameter_bytes": step.parameter_bytes,
        }


@dataclass
class Clocked:
    """A call that measures its own wall time and processor time.

    Attributes:
        call: what is called.
        cores: how many cores were busy, on average over all calls.
    """

    call: Call
    _wall: float = 0.0
    _busy: float = 0.0

    def __call__(self) -> None:
        wall, busy = time.perf_counter(), time.process_time()
        self.call()
        self._wall += time.perf_counter() - wall
        self._busy += time.process_time() - busy

    @property
    def cores(self) -> float:
        """The cores that were busy on average."""
        return self._busy / self._wall


def _timed(steps: Mapping[str, Step], rounds: int) -> tuple[dict[str, Timing], dict[str, float]]:
    """Time all steps in every round; also return how many cores each kept busy."""
    expected = {}
    for name, step in steps.items():
        step.call()
        start = time.perf_counter()
        step.call()
        expected[name] = time.perf_counter() - start
    calls = {name: Clocked(step.call) for name, step in steps.items()}
    timings = interleave(calls, rounds, next(iter(calls)), screening=rounds, expected=expected)
    return timings, {name: call.cores for name, call in calls.items()}


MEASURES = {"mesh overhead": overhead, "weak scaling": weak_scaling}

if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    print(json.dumps(list(MEASURES[asked["part"]](Work(**asked["work"]), asked["rounds"]))))
