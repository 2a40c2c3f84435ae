"""The benchmarks: each yields flat rows, and an error row in place of what fails."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from benchmarks.speed import (
    accuracy,
    machine,
    ours,
    pipelines,
    probe,
    pytorch,
    scale,
    startup,
)
from benchmarks.speed.timing import Timing, interleave
from benchmarks.speed.work import OURS, Call, Row, Task, Work, error_text, last_line, training_cost

EPOCH_IMAGES = 1280
SWEEP_IMAGE_SIZES = (96, 128, 160, 192, 224, 256, 320)
SWEEP_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
DATA_SET_SIZES = (1_000, 4_000, 15_000, 60_000)


@dataclass(frozen=True)
class Plan:
    """What is measured, and how often."""

    variants: Sequence[str]
    batch_sizes: Sequence[int] | None
    image_size: int
    in_channels: int
    precision: Any
    rounds: int
    workers: int
    comparison: accuracy.Comparison = field(default_factory=accuracy.Comparison)
    say: Callable[[str], None] = lambda text: None

    def work(self, task: Task, variant: str, batch_size: int) -> Work:
        return Work(task, variant, batch_size, self.image_size, self.in_channels, self.precision)


# The networks that the published comparison is about; the others are measured once.
MAIN = ("nin", "nin15")


def train(plan: Plan) -> Iterator[Row]:
    """One training step, of every variant, against PyTorch and plain Flax."""
    for variant in plan.variants:
        for batch_size in plan.batch_sizes or ((32, 128) if variant in MAIN else (32,)):
            work = plan.work("train", variant, batch_size)
            more: dict[str, Callable[[], Call]] = {}
            if batch_size <= 32:  # beyond, a step of it takes 20 s and tells nothing new
                more[ours.PLAIN] = lambda work=work: ours.plain_flax_call(work)
            yield from _against_rivals(plan, work, more)


def predict(plan: Plan) -> Iterator[Row]:
    """The logits of one batch."""
    for variant in plan.variants if plan.batch_sizes else MAIN:
        for batch_size in plan.batch_sizes or (1, 128):
            yield from _against_rivals(plan, plan.work("predict", variant, batch_size), {})


def _against_rivals(
    plan: Plan, work: Work, more: Mapping[str, Callable[[], Call]]
) -> Iterator[Row]:
    rivals = pytorch.rivals(work)
    contenders = {OURS: lambda: ours.nin_jax_call(work)} | rivals | dict(more)
    timings, errors = _measure(plan, contenders, f"{work.task} {work.variant} {work.batch_size}")
    best = _best(timings, rivals)
    for name in contenders:
        row = work.row() | {"contender": name}
        if name in errors:
            yield row | {"error": errors[name]}
            continue
        row |= timings[name].row(work.batch_size)
        if name == OURS and best is not None:
            row |= {
                "best_rival": best,
                "best_rival_over_ours": round(timings[best].median / timings[name].median, 3),
            }
        yield row


def ops(plan: Plan) -> Iterator[Row]:
    """What each of our operations earns: the training step with one of them given up."""
    for variant in plan.variants:
        for batch_size in plan.batch_sizes or (32,):
            work = plan.work("train", variant, batch_size)
            contenders = {OURS: lambda work=work: ours.nin_jax_call(work)}
            contenders |= ours.ablations(work)
            timings, errors = _measure(plan, contenders, f"ops {variant}", screening=plan.rounds)
            base = timings[OURS].median
            for name in contenders:
                row = work.row() | {"benchmark": "ops", "contender": name}
                if name in errors:
                    yield row | {"error": errors[name]}
                else:
                    timing = timings[name]
                    ratio = {"over_ours": round(timing.median / base, 3)}
                    yield row | timing.row(batch_size) | ratio


def epoch(plan: Plan) -> Iterator[Row]:
    """The whole job, data included: an epoch of the published pipeline against ours."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (EPOCH_IMAGES, 28, 28, 1), np.uint8)
    labels = rng.integers(0, 10, EPOCH_IMAGES).astype(np.int32)
    for variant in plan.variants if plan.batch_sizes else ("nin",):
        for batch_size in plan.batch_sizes or (128,):
            work = replace(plan.work("train", variant, batch_size), in_channels=1)
            job = (work, images, labels)
            published = {
                "published pipeline, NCHW": lambda job=job: pipelines.torch_epoch(
                    *job, channels_last=False, workers=plan.workers
                ),
                "published pipeline, channels_last": lambda job=job: pipelines.torch_epoch(
                    *job, channels_last=True, workers=plan.workers
                ),
            }
            contenders = {OURS: lambda job=job: pipelines.nin_jax_epoch(*job)} | published
            few = replace(plan, rounds=min(plan.rounds, 3))
            timings, errors = _measure(few, contenders, f"epoch {variant}", screening=1)
            best = _best(timings, published)
            for name in contenders:
                row = work.row() | {"benchmark": "epoch", "contender": name}
                row |= {"images": EPOCH_IMAGES, "workers": plan.workers}
                if name in errors:
                    yield row | {"error": errors[name]}
                    continue
                row |= timings[name].row(EPOCH_IMAGES)
                if name == OURS and best is not None:
                    ratio = timings[best].median / timings[name].median
                    row |= {"best_rival": best, "best_rival_over_ours": round(ratio, 3)}
                yield row


def memory(plan: Plan) -> Iterator[Row]:
    """Peak memory of each side, each in a process of its own."""
    for variant in plan.variants if plan.batch_sizes else MAIN:
        for batch_size in plan.batch_sizes or (128,):
            for task in ("train", "predict"):
                work = plan.work(task, variant, batch_size)
                rivals = [name for name in pytorch.rivals(work) if "compile" not in name]
                rows = [_probe(plan, work, name) for name in (OURS, *rivals)]
                column = "peak_device_mib" if "peak_device_mib" in rows[0] else "peak_resident_mib"
                theirs = {row["contender"]: row[column] for row in rows[1:] if column in row}
                if column in rows[0] and theirs:
                    best = min(theirs, key=lambda name: theirs[name])
                    ratio = round(theirs[best] / rows[0][column], 3)
                    rows[0] |= {"best_rival": best, "best_rival_over_ours": ratio}
                yield from rows


def _probe(plan: Plan, work: Work, contender: str) -> Row:
    plan.say(f"memory: {work.task} {work.variant} {work.batch_size}, {contender}")
    row = work.row() | {"benchmark": "memory", "task": work.task, "contender": contender}
    measured = probe.measure(work, contender)
    if "error" in measured:
        return row | measured
    mib = {
        name: f"peak_{name}_mib"
        for name in ("resident", "device")
        if f"peak_{name}_bytes" in measured
    }
    return row | {
        column: round(measured[f"peak_{name}_bytes"] / 2**20, 1) for name, column in mib.items()
    }


def first_step(plan: Plan) -> Iterator[Row]:
    """Time to the first step of scripts/train.py, cold and with a compilation cache."""
    for variant in plan.variants if plan.batch_sizes else MAIN:
        for batch_size in plan.batch_sizes or (128,):
            plan.say(f"startup: {variant}")
            try:
                yield from startup.first_step(variant, batch_size, plan.image_size)
            except (RuntimeError, OSError) as error:
                row = {"benchmark": "startup", "variant": variant, "contender": OURS}
                yield row | {"error": last_line(str(error))}


def images(plan: Plan) -> Iterator[Row]:
    """Cost per image of an epoch as the data set grows: order, gather, resize and step."""
    for variant in plan.variants if plan.batch_sizes else ("nin",):
        batch_size = (plan.batch_sizes or (32,))[0]
        work = replace(plan.work("train", variant, batch_size), in_channels=1)
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (max(DATA_SET_SIZES), 28, 28, 1), np.uint8)
        labels = rng.integers(0, 10, max(DATA_SET_SIZES)).astype(np.int32)
        steps: dict[str, Callable[[], Call]] = {
            str(n): partial(ours.step_call, work, pixels[:n], labels[:n]) for n in DATA_SET_SIZES
        }
        orders = {str(n): partial(ours.order_call, n, batch_size) for n in DATA_SET_SIZES}
        timings, errors = _measure(plan, steps, f"images {variant}", screening=plan.rounds)
        order_timings, _ = _measure(plan, orders, "order", screening=plan.rounds)
        for name in steps:
            row = work.row() | {"benchmark": "images", "contender": OURS, "images": int(name)}
            if name in errors:
                yield row | {"error": errors[name]}
                continue
            order_ms = 1e3 * order_timings[name].median / int(name)
            per_image = 1e3 * timings[name].median / batch_size + order_ms
            yield (
                row
                | timings[name].row(batch_size)
                | {
                    "order_ms_per_image": round(order_ms, 6),
                    "ms_per_image": round(per_image, 4),
                }
            )


def sweep(plan: Plan) -> Iterator[Row]:
    """How the cost grows with batch and image size; and the machine's roof."""
    yield {
        "benchmark": "roof",
        "precision": plan.precision,
        "matmul_gflops": round(machine.matmul_gflops(plan.precision), 1),
        "copy_gb_per_s": round(machine.copy_gb_per_s(), 2),
    }
    for variant in plan.variants:
        base = plan.work("train", variant, 16)
        for size in SWEEP_IMAGE_SIZES:
            yield from _sweep_row(plan, replace(base, image_size=size), "image_size")
        for size in SWEEP_BATCH_SIZES:
            yield from _sweep_row(plan, replace(base, batch_size=size), "batch_size")


def _sweep_row(plan: Plan, work: Work, swept: str) -> Iterator[Row]:
    few = replace(plan, rounds=min(plan.rounds, 3))
    name = f"sweep {work.variant} {swept}"
    timings, errors = _measure(few, {OURS: lambda: ours.nin_jax_call(work)}, name)
    row = work.row() | {"benchmark": "sweep", "swept": swept, "contender": OURS}
    if OURS in errors:
        yield row | {"error": errors[OURS]}
        return
    flops, moved = training_cost(work)
    row |= timings[OURS].row(work.batch_size)
    seconds = timings[OURS].median / work.batch_size
    yield row | {
        "ms_per_image": round(1e3 * seconds, 4),
        "gflops": round(flops / seconds / 1e9, 1),
        "flop_per_byte": round(flops / moved, 2),
    }


def scaling(plan: Plan) -> Iterator[Row]:
    """What a mesh costs, how a step grows with devices, and what they send each other."""
    for variant in plan.variants if plan.batch_sizes else ("nin",):
        work = plan.work("train", variant, (plan.batch_sizes or (32,))[0])
        for part in scale.PARTS:
            plan.say(f"scale: {variant}, {part}")
            yield from scale.measure(part, work, plan.rounds)


def _measure(
    plan: Plan,
    contenders: Mapping[str, Callable[[], Call]],
    what: str,
    screening: int = 2,
) -> tuple[dict[str, Timing], dict[str, str]]:
    """Builds and warms up every contender, then times those that work; and what the others say."""
    calls: dict[str, Call] = {}
    expected: dict[str, float] = {}
    errors: dict[str, str] = {}
    for name, build in contenders.items():
        plan.say(f"{what}: preparing {name}")
        try:
            calls[name] = build()
            calls[name]()  # some compile now
            start = time.perf_counter()
            calls[name]()
            expected[name] = time.perf_counter() - start
        except Exception as error:  # whatever a framework raises becomes its row
            calls.pop(name, None)
            errors[name] = error_text(error)
    timings = interleave(
        calls,
        plan.rounds,
        OURS,
        lambda text: plan.say(f"{what}, {text}"),
        screening,
        expected,
    )
    return timings, errors


def _best(timings: Mapping[str, Timing], among: Mapping[str, Any]) -> str | None:
    measured = [name for name in among if name in timings]
    return min(measured, key=lambda name: timings[name].median, default=None)


JOBS: Mapping[str, Callable[[Plan], Iterator[Row]]] = {
    "train": train,
    "predict": predict,
    "epoch": epoch,
    "memory": memory,
    "startup": first_step,
    "images": images,
    "ops": ops,
    "sweep": sweep,
    "scale": scaling,
    "accuracy": lambda plan: accuracy.measure(plan.comparison, plan.say),
}
HEADLINE = ("train", "predict", "epoch", "memory", "startup", "images")
