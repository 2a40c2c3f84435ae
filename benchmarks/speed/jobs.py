"""The benchmarks. Each yields flat rows; a contender that fails yields a row with its error."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial

from benchmarks.speed import (
    accuracy,
    gpu,
    ours,
    pipelines,
    probe,
    profile,
    pytorch,
    scale,
    summary,
    timing,
)
from benchmarks.speed.contenders import against_rivals, measure, over_ours
from benchmarks.speed.plan import MAIN, Plan
from benchmarks.speed.work import (
    OURS,
    PLAIN,
    Row,
    Work,
    last_line,
    random_pixels,
    training_cost,
)

EPOCH_IMAGES = 1280
SWEEP_IMAGE_SIZES = (96, 128, 160, 192, 224, 256, 320)
SWEEP_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
DATASET_SIZES = (1_000, 4_000, 15_000, 60_000)


def train(plan: Plan) -> Iterator[Row]:
    """Time one training step of every variant against PyTorch and plain Flax."""
    for variant in plan.variants:
        for batch_size in plan.batch_sizes or ((32, 128) if variant in MAIN else (32,)):
            work = plan.work("train", variant, batch_size)
            # With larger batches a step of plain Flax takes 20 s.
            yield from against_rivals(plan, work, (PLAIN,) if batch_size <= 32 else ())


def predict(plan: Plan) -> Iterator[Row]:
    """Time the logits of one batch."""
    for work in plan.works("predict", MAIN, 1, 128):
        yield from against_rivals(plan, work)


def ops(plan: Plan) -> Iterator[Row]:
    """Time the training step with one of our operations replaced at a time."""
    for work in plan.works("train", plan.variants, 32):
        yield from over_ours(plan, work, "ops", ours.ablations(work))


def settings(plan: Plan) -> Iterator[Row]:
    """Time the training step in bfloat16, and with Muon, against float32 and SGD."""
    for work in plan.works("train", MAIN, 64):
        base = replace(work, precision="float32")
        changed = {
            "bfloat16": replace(base, precision="bfloat16"),
            "Muon": replace(base, optimizer="muon", momentum=0.95),
        }
        others = {name: partial(ours.nin_jax_call, other) for name, other in changed.items()}
        for row in over_ours(plan, base, "settings", others):
            del row["precision"]  # the contender says it
            yield row


def profiles(plan: Plan) -> Iterator[Row]:
    """Divide the time of a training step among its parts, here and in PyTorch."""
    for work in plan.works("train", MAIN, 32):
        plan.say(f"profile: {work.variant} {work.batch_size}")
        yield from profile.rows(work)


def epoch(plan: Plan) -> Iterator[Row]:
    """Time an epoch of the published pipeline against ours, data included."""
    images, labels = random_pixels(EPOCH_IMAGES)
    few = replace(plan, rounds=min(plan.rounds, 3))
    for work in plan.works("train", ("nin",), 128):
        work = replace(work, in_channels=1)
        published = {}
        for precision in dict.fromkeys((work.precision, "float32")):
            theirs = replace(work, precision=precision)
            suffix = "" if precision == work.precision else f", {precision}"
            for name, channels_last in (("NCHW", False), ("channels_last", True)):
                published[f"published pipeline, {name}{suffix}"] = partial(
                    pipelines.torch_epoch,
                    theirs,
                    images,
                    labels,
                    channels_last=channels_last,
                    workers=plan.workers,
                )
        contenders = {OURS: partial(pipelines.nin_jax_epoch, work, images, labels), **published}
        measured = measure(few, contenders, f"epoch {work.variant}", screening=1)
        common = work.row() | {"benchmark": "epoch"}
        common |= {"images": EPOCH_IMAGES, "workers": plan.workers}
        yield from measured.rows_with_ratio(common, EPOCH_IMAGES, published)


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
    pixels, labels = random_pixels(max(DATASET_SIZES))
    for variant in plan.variants if plan.batch_sizes else ("nin",):
        work = replace(plan.work("train", variant, batch_size), in_channels=1)
        steps = {
            str(n): partial(ours.step_call, work, pixels[:n], labels[:n]) for n in DATASET_SIZES
        }
        orders = {str(n): partial(ours.order_call, n, batch_size) for n in DATASET_SIZES}
        measured = measure(plan, steps, f"images {variant}", screening=plan.rounds)
        ordered = measure(plan, orders, "order", screening=plan.rounds)
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
    measured = measure(few, contenders, f"sweep {work.variant} {swept}")
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


JOBS: Mapping[str, Callable[[Plan], Iterator[Row]]] = {
    "train": train,
    "predict": predict,
    "epoch": epoch,
    "memory": memory,
    "startup": startup,
    "images": images,
    "ops": ops,
    "settings": settings,
    "profile": profiles,
    "summary": summary.measure,
    "gpu": gpu.measure,
    "sweep": sweep,
    "scale": scaling,
    "accuracy": lambda plan: accuracy.measure(plan.config, plan.say),
}
HEADLINE = ("train", "predict", "epoch", "memory", "startup", "images")
