"""The benchmarks. Each yields flat rows; a contender that fails yields a row with its error."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from benchmarks.speed import accuracy, gpu, ours, pipelines, probe, pytorch, scale, timing
from benchmarks.speed.timing import Timing, interleave
from benchmarks.speed.work import OURS, Call, Row, Task, Work, error_text, last_line, training_cost

EPOCH_IMAGES = 1280
SWEEP_IMAGE_SIZES = (96, 128, 160, 192, 224, 256, 320)
SWEEP_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
DATASET_SIZES = (1_000, 4_000, 15_000, 60_000)
# The networks of the published comparison.
MAIN = ("nin", "nin15")

Builders = Mapping[str, Callable[[], Call]]
"""A function for each contender that builds it and returns its call."""


@dataclass(frozen=True)
class Plan:
    """What to measure, and how often.

    Attributes:
        variants: names or files.
        batch_sizes: None for each benchmark's own variants and batch sizes.
        image_size: side in pixels.
        in_channels: channels of the images.
        precision: of our computation, and of PyTorch's by autocast.
        rounds: measured rounds.
        workers: processes of PyTorch's DataLoader.
        comparison: what `accuracy` trains.
        say: receives a text about what is being measured.
    """

    variants: Sequence[str]
    batch_sizes: Sequence[int] | None
    image_size: int
    in_channels: int
    precision: Any
    rounds: int
    workers: int
    comparison: accuracy.Comparison = field(default_factory=accuracy.Comparison)
    say: Callable[[str], None] = lambda text: None

    def works(self, task: Task, variants: Sequence[str], *batch_sizes: int) -> Iterator[Work]:
        """Yield work for these variants and batch sizes, or for the plan's if it has any."""
        for variant in self.variants if self.batch_sizes else variants:
            for batch_size in self.batch_sizes or batch_sizes:
                yield self.work(task, variant, batch_size)

    def work(self, task: Task, variant: str, batch_size: int) -> Work:
        """Return the work of a benchmark on a variant, with the settings of this plan."""
        return Work(task, variant, batch_size, self.image_size, self.in_channels, self.precision)


@dataclass(frozen=True)
class Measured:
    """The timings of some contenders, and the errors of the others."""

    names: Sequence[str]
    timings: Mapping[str, Timing]
    errors: Mapping[str, str]

    def rows(self, common: Row, images: int) -> Iterator[tuple[str, Row]]:
        """Yield each contender's name and row, for calls that process that many images."""
        for name in self.names:
            figures = {"error": self.errors[name]} if name in self.errors else {}
            figures = figures or self.timings[name].row(images)
            yield name, common | {"contender": name} | figures

    def rows_with_ratio(self, common: Row, images: int, rivals: Iterable[str]) -> Iterator[Row]:
        """Yield each contender's row, ours with the best of the rivals and its time over ours."""
        measured = [name for name in rivals if name in self.timings]
        best = min(measured, key=lambda name: self.timings[name].median, default=None)
        for name, row in self.rows(common, images):
            if name == OURS and best is not None and "error" not in row:
                ratio = self.timings[best].median / self.timings[OURS].median
                row |= {"best_rival": best, "best_rival_over_ours": round(ratio, 3)}
            yield row


def train(plan: Plan) -> Iterator[Row]:
    """Time one training step of every variant against PyTorch and plain Flax."""
    for variant in plan.variants:
        for batch_size in plan.batch_sizes or ((32, 128) if variant in MAIN else (32,)):
            work = plan.work("train", variant, batch_size)
            # With larger batches a step of plain Flax takes 20 s.
            plain = {ours.PLAIN: partial(ours.plain_flax_call, work)} if batch_size <= 32 else {}
            yield from _against_rivals(plan, work, plain)


def predict(plan: Plan) -> Iterator[Row]:
    """Time the logits of one batch."""
    for work in plan.works("predict", MAIN, 1, 128):
        yield from _against_rivals(plan, work, {})


def _against_rivals(plan: Plan, work: Work, more: Builders) -> Iterator[Row]:
    rivals = pytorch.rivals(work)
    contenders = {OURS: partial(ours.nin_jax_call, work), **rivals, **more}
    measured = _measure(plan, contenders, f"{work.task} {work.variant} {work.batch_size}")
    yield from measured.rows_with_ratio(work.row(), work.batch_size, rivals)


def ops(plan: Plan) -> Iterator[Row]:
    """Time the training step with one of our operations replaced at a time."""
    for work in plan.works("train", plan.variants, 32):
        yield from _over_ours(plan, work, "ops", ours.ablations(work))


def settings(plan: Plan) -> Iterator[Row]:
    """Time the training step in bfloat16, and with Muon, against float32 and SGD."""
    for work in plan.works("train", MAIN, 64):
        base = replace(work, precision="float32")
        changed = {
            "bfloat16": replace(base, precision="bfloat16"),
            "Muon": replace(base, optimizer="muon", momentum=0.95),
        }
        others = {name: partial(ours.nin_jax_call, other) for name, other in changed.items()}
        yield from _over_ours(plan, base, "settings", others)


def gpu_defaults(plan: Plan) -> Iterator[Row]:
    """On a GPU, time a step and a batch against PyTorch, and an epoch with other settings."""
    pixels, labels = _random_pixels(gpu.EPOCH_IMAGES)
    for precision in ("float32", "bfloat16"):
        part = replace(plan, precision=precision)
        for work in part.works("train", MAIN, 128):
            yield from _against_rivals(part, work, {})
            yield from _against_rivals(part, replace(work, task="predict"), {})
            gray = replace(work, in_channels=1)
            epochs = gpu.contenders(gray, pixels, labels)
            few = replace(part, rounds=min(plan.rounds, 3))
            yield from _compared(few, gray, "gpu", epochs, gpu.EPOCH_IMAGES)


def _over_ours(plan: Plan, work: Work, benchmark: str, others: Builders) -> Iterator[Row]:
    """Time our step and changed ones; a row has the changed one's time over ours."""
    contenders = {OURS: partial(ours.nin_jax_call, work), **others}
    yield from _compared(plan, work, benchmark, contenders, work.batch_size)


def _compared(
    plan: Plan, work: Work, benchmark: str, contenders: Builders, images: int
) -> Iterator[Row]:
    measured = _measure(plan, contenders, f"{benchmark} {work.variant}", screening=plan.rounds)
    for name, row in measured.rows(work.row() | {"benchmark": benchmark}, images):
        if name in measured.timings and OURS in measured.timings:
            ratio = measured.timings[name].median / measured.timings[OURS].median
            row["over_ours"] = round(ratio, 3)
        yield row


def epoch(plan: Plan) -> Iterator[Row]:
    """Time an epoch of the published pipeline against ours, data included."""
    images, labels = _random_pixels(EPOCH_IMAGES)
    few = replace(plan, rounds=min(plan.rounds, 3))
    for work in plan.works("train", ("nin",), 128):
        job = (replace(work, in_channels=1), images, labels)
        published = {
            f"published pipeline, {name}": partial(
                pipelines.torch_epoch, *job, channels_last=channels_last, workers=plan.workers
            )
            for name, channels_last in (("NCHW", False), ("channels_last", True))
        }
        contenders = {OURS: partial(pipelines.nin_jax_epoch, *job), **published}
        measured = _measure(few, contenders, f"epoch {work.variant}", screening=1)
        common = job[0].row() | {"benchmark": "epoch"}
        common |= {"images": EPOCH_IMAGES, "workers": plan.workers}
        yield from measured.rows_with_ratio(common, EPOCH_IMAGES, published)


def _random_pixels(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 [N, 28, 28, 1] and int32 [N]."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 28, 28, 1), np.uint8)
    return images, rng.integers(0, 10, count).astype(np.int32)


def memory(plan: Plan) -> Iterator[Row]:
    """Measure the peak memory of each contender, each in a process of its own."""
    for trained in plan.works("train", MAIN, 128):
        for work in (trained, replace(trained, task="predict")):
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
    for kind in ("resident", "device"):
        if (peak := measured.get(f"peak_{kind}_bytes")) is not None:
            row[f"peak_{kind}_mib"] = round(peak / 2**20, 1)
    return row


def startup(plan: Plan) -> Iterator[Row]:
    """Time the first step of scripts/train.py, without and with a compilation cache."""
    for work in plan.works("train", MAIN, 128):
        plan.say(f"startup: {work.variant}")
        try:
            yield from pipelines.first_step(work.variant, work.batch_size, plan.image_size)
        except (RuntimeError, OSError) as error:
            row = {"benchmark": "startup", "variant": work.variant, "contender": OURS}
            yield row | {"error": last_line(str(error))}


def images(plan: Plan) -> Iterator[Row]:
    """Time an image of an epoch by size of the dataset: order, gather, resize and step."""
    batch_size = (plan.batch_sizes or (32,))[0]
    pixels, labels = _random_pixels(max(DATASET_SIZES))
    for variant in plan.variants if plan.batch_sizes else ("nin",):
        work = replace(plan.work("train", variant, batch_size), in_channels=1)
        steps = {
            str(n): partial(ours.step_call, work, pixels[:n], labels[:n]) for n in DATASET_SIZES
        }
        orders = {str(n): partial(ours.order_call, n, batch_size) for n in DATASET_SIZES}
        measured = _measure(plan, steps, f"images {variant}", screening=plan.rounds)
        ordered = _measure(plan, orders, "order", screening=plan.rounds)
        for name, row in measured.rows(work.row() | {"benchmark": "images"}, batch_size):
            row |= {"contender": OURS, "images": int(name)}
            if name in measured.timings and name in ordered.timings:
                order_ms = 1e3 * ordered.timings[name].median / int(name)
                step_ms = 1e3 * measured.timings[name].median / batch_size
                row["order_ms_per_image"] = round(order_ms, 6)
                row["ms_per_image"] = round(step_ms + order_ms, 4)
            yield row


def sweep(plan: Plan) -> Iterator[Row]:
    """Time the training step by batch and image size, and measure the machine's peak rates."""
    yield {
        "benchmark": "roof",
        "precision": plan.precision,
        "matmul_gflops": round(timing.matmul_gflops(plan.precision), 1),
        "copy_gb_per_s": round(timing.copy_gb_per_s(), 2),
    }
    for variant in plan.variants:
        base = plan.work("train", variant, 16)
        for size in SWEEP_IMAGE_SIZES:
            yield _sweep_row(plan, replace(base, image_size=size), "image_size")
        for size in SWEEP_BATCH_SIZES:
            yield _sweep_row(plan, replace(base, batch_size=size), "batch_size")


def _sweep_row(plan: Plan, work: Work, swept: str) -> Row:
    few = replace(plan, rounds=min(plan.rounds, 3))
    contenders = {OURS: partial(ours.nin_jax_call, work)}
    measured = _measure(few, contenders, f"sweep {work.variant} {swept}")
    common = work.row() | {"benchmark": "sweep", "swept": swept}
    ((_, row),) = measured.rows(common, work.batch_size)
    if "error" not in row:
        flops, moved = training_cost(work)
        seconds = measured.timings[OURS].median / work.batch_size
        row["ms_per_image"] = round(1e3 * seconds, 4)
        row["gflops"] = round(flops / seconds / 1e9, 1)
        row["flop_per_byte"] = round(flops / moved, 2)
    return row


def scaling(plan: Plan) -> Iterator[Row]:
    """Time a step with a mesh and with more devices, and count their communication."""
    batch_size = (plan.batch_sizes or (32,))[0]
    for variant in plan.variants if plan.batch_sizes else ("nin",):
        for part in scale.PARTS:
            plan.say(f"scale: {variant}, {part}")
            yield from scale.measure(part, plan.work("train", variant, batch_size), plan.rounds)


def _measure(plan: Plan, contenders: Builders, what: str, screening: int = 2) -> Measured:
    """Build and warm up every contender, then time those that work."""
    pytorch.forget_compiled()
    calls: dict[str, Call] = {}
    expected: dict[str, float] = {}
    errors: dict[str, str] = {}
    for name, build in contenders.items():
        plan.say(f"{what}: preparing {name}")
        try:
            calls[name] = build()
            calls[name]()  # some contenders compile now
            start = time.perf_counter()
            calls[name]()
            expected[name] = time.perf_counter() - start
        except Exception as error:  # whatever a framework raises becomes its row
            calls.pop(name, None)
            errors[name] = error_text(error)

    def say(text: str) -> None:
        plan.say(f"{what}, {text}")

    timings = interleave(calls, plan.rounds, OURS, say, screening, expected)
    return Measured(list(contenders), timings, errors)


JOBS: Mapping[str, Callable[[Plan], Iterator[Row]]] = {
    "train": train,
    "predict": predict,
    "epoch": epoch,
    "memory": memory,
    "startup": startup,
    "images": images,
    "ops": ops,
    "settings": settings,
    "gpu": gpu_defaults,
    "sweep": sweep,
    "scale": scaling,
    "accuracy": lambda plan: accuracy.measure(plan.comparison, plan.say),
}
HEADLINE = ("train", "predict", "epoch", "memory", "startup", "images")
