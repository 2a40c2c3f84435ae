"""Where the time of a training step goes, part by part: nin_jax and PyTorch's eager step.

Each side is traced by its framework's profiler, for a few steps. XLA runs several operations at
once: the time of each moment is divided equally among those that run, so that the parts add up to
the time in which any operation runs. The whole step is timed without the profiler, which slows it:
the parts may add up to more.
"""

import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import torch
from torch.profiler import ProfilerActivity

from benchmarks.speed import ours, pytorch, timing
from benchmarks.speed.work import OURS, TORCH, Row, Work
from nin_jax.accounting.hlo import Instruction, Program, parse
from nin_jax.accounting.operations import own_flops
from nin_jax.errors import UserError
from nin_jax.training.device import default_device

STEPS = 3
FORWARD, GRADIENTS = "products, forward", "products, gradients"
NESTING = ("while", "conditional", "call")  # their time is that of the operations inside


@dataclass(frozen=True)
class Profile:
    """A training step in parts.

    Attributes:
        seconds: of each part.
        flops: of each part's products.
        whole: the seconds of the step without a profiler.
    """

    seconds: Mapping[str, float]
    flops: Mapping[str, float]
    whole: float


@dataclass(frozen=True)
class Operation:
    """An instruction of a compiled step: the part that it belongs to, and its products' FLOPs."""

    part: str
    flops: int


def check() -> None:
    """Check that JAX computes on a CPU; the operations of a GPU are not read.

    Raises:
        UserError: it does not.
    """
    if (platform := default_device().platform) != "cpu":
        raise UserError(f"the benchmark profile needs a CPU (JAX_PLATFORMS=cpu), not a {platform}")


def rows(work: Work) -> Iterator[Row]:
    """Yield the parts of a step of each side, the largest first, and the rate of a large product.

    Args:
        work: a training step. PyTorch runs it eagerly, channels_last.
    """
    common = work.row() | {"benchmark": "profile"}
    rate = round(timing.matmul_gflops(work.precision), 1)
    yield common | {"contender": "product of two 2048x2048 matrices", "gflops": rate}
    for contender, measure in ((OURS, our_profile), (TORCH, torch_profile)):
        profile = measure(work)
        parts = sorted(profile.seconds.items(), key=lambda part: -part[1])
        for part, seconds in [*parts, ("whole step", profile.whole)]:
            row = common | {"contender": contender, "part": part}
            row |= {"ms": round(1e3 * seconds, 3), "share": round(seconds / profile.whole, 4)}
            if flops := profile.flops.get(part):
                row["gflops"] = round(flops / seconds / 1e9, 1)
            yield row


def our_profile(work: Work) -> Profile:
    """Profile a training step of nin_jax."""
    model = ours.new_model(work)
    compiled, step = ours.compiled_step(work, model, None, work.images(), work.labels())
    whole = _seconds(step)
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # the calls of Python functions are not wanted
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            for _ in range(STEPS):
                step()
        (path,) = Path(folder).rglob("*.xplane.pb")
        data = jax.profiler.ProfileData.from_file(str(path))
    operations = classify(compiled.as_text() or "")
    runs = [run for run in _runs(data) if run[0] in operations]
    seconds: defaultdict[str, float] = defaultdict(float)
    for name, spent in divide(runs).items():
        seconds[operations[name].part] += spent / STEPS
    flops: defaultdict[str, float] = defaultdict(float)
    for name, _, _ in runs:
        flops[operations[name].part] += operations[name].flops / STEPS
    return Profile(seconds, flops, whole)


def torch_profile(work: Work) -> Profile:
    """Profile PyTorch's eager training step; its products are counted on paper."""
    step = pytorch.torch_call(work, channels_last=True)
    whole = _seconds(step)
    with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as traced:
        for _ in range(STEPS):
            step()
    seconds: defaultdict[str, float] = defaultdict(float)
    for event in traced.key_averages():
        seconds[torch_part(event.key)] += event.self_cpu_time_total / 1e6 / STEPS
    macs = [layer.macs for layer in work.layers if layer.macs]
    flops = {FORWARD: 2.0 * sum(macs), GRADIENTS: 2.0 * (2 * sum(macs) - macs[0])}
    return Profile(seconds, {part: n * work.batch_size for part, n in flops.items()}, whole)


def _seconds(step: Callable[[], object]) -> float:
    """Return the least seconds of some steps, after two others."""
    seconds = []
    for _ in range(2 + STEPS):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return min(seconds[2:])


def _runs(data: Any) -> Iterator[tuple[str, float, float]]:
    """Yield (instruction, start, end) of each run of an instruction, in seconds.

    An instruction that returns before its work is done has a second event, "end: NAME", when it is.

    Args:
        data: a `jax.profiler.ProfileData`.
    """
    starts: list[tuple[float, float, str]] = []
    ends: defaultdict[str, list[float]] = defaultdict(list)
    for plane in data.planes:
        for line in plane.lines:
            for event in line.events:
                start = event.start_ns / 1e9
                if event.name.startswith("end: "):
                    ends[event.name.removeprefix("end: ")].append(start)
                elif name := dict(event.stats).get("hlo_op"):
                    starts.append((start, start + event.duration_ns / 1e9, str(name)))
    for start, end, name in starts:
        done = min((at for at in ends[name] if at >= start), default=end)
        yield name, start, max(end, done)


def divide(runs: Iterable[tuple[str, float, float]]) -> Mapping[str, float]:
    """Divide the time among named intervals: each moment equally among those that contain it.

    Args:
        runs: (name, start, end), in seconds.

    Returns:
        The seconds of each name.
    """
    changes = sorted(
        change for name, start, end in runs for change in ((start, 1, name), (end, -1, name))
    )
    seconds: defaultdict[str, float] = defaultdict(float)
    running: Counter[str] = Counter()
    before = 0.0
    for at, change, name in changes:
        for each, count in running.items():
            seconds[each] += (at - before) * count / running.total()
        running[name] += change
        running += Counter()  # leaves out those with count 0
        before = at
    return seconds


def classify(text: str) -> Mapping[str, Operation]:
    """Return the operation of each instruction that does work, by name.

    Args:
        text: of a compiled training step of nin_jax.
    """
    program, entry = parse(text)
    of_weights: set[str] = set()
    for instruction in program[entry]:
        first = instruction.name.startswith("state_params")
        if first or (instruction.operands and of_weights.issuperset(instruction.operands)):
            of_weights.add(instruction.name)
    found = {}
    for computation in program.values():
        shapes = {instruction.name: instruction.shape for instruction in computation}
        for instruction in computation:
            if instruction.opcode not in NESTING:
                flops = _product_flops(program, instruction, shapes)
                is_weights = instruction.name in of_weights
                found[instruction.name] = Operation(_part(instruction, flops, is_weights), flops)
    return found


def _product_flops(
    program: Program, instruction: Instruction, shapes: Mapping[str, tuple[int, ...]]
) -> int:
    """Count the FLOPs of the matrix products and convolutions in an instruction."""
    if instruction.opcode == "fusion":
        inside = program[instruction.attribute("calls").removeprefix("%")]
        shapes = {each.name: each.shape for each in inside}
        return sum(_product_flops(program, each, shapes) for each in inside)
    if instruction.opcode in ("dot", "convolution"):
        return own_flops(instruction, [shapes[operand] for operand in instruction.operands])
    return 0


def _part(instruction: Instruction, flops: int, is_weights: bool) -> str:
    origin = instruction.attribute("op_name")
    is_gradient = "transpose(" in origin
    if flops:
        return GRADIENTS if is_gradient else FORWARD
    if is_weights:
        return "weights: copies, transforms for the convolutions"
    if "jvp(" not in origin:
        return "data, update, and other"
    # Inside a convolution, the operations for this platform are a branch.
    around = "transforms and copies" if "/cond/" in origin else "bias, ReLU, pools and loss"
    return f"{around}, {'gradients' if is_gradient else 'forward'}"


def torch_part(name: str) -> str:
    """Return the part of a step that an operation of PyTorch's profiler belongs to."""
    name = name.lower()
    if "conv" in name or name in ("aten::addmm", "aten::mm"):
        return GRADIENTS if "backward" in name else FORWARD
    for part, words in {
        "update": ("optimizer", "accumulategrad", "add_"),
        "pools": ("pool", "mean"),
        "ReLU": ("relu", "threshold", "clamp"),
        "copies": ("copy", "fill", "zero", "clone", "contiguous"),
    }.items():
        if any(word in name for word in words):
            return part
    return "other"
