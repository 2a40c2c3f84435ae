"""Training by many GPUs on paper: python -m benchmarks.speed.scale_model.

A step takes the time of its computation and of the all-reduce of its gradients, which waits for the
last of them and hides behind nothing. What the machine can do is from its data sheet; how much of
that a step reaches is an assumption. Nothing here is measured.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.speed import paper
from benchmarks.speed.work import Work
from nin_jax import cli
from nin_jax.errors import UserError
from nin_jax.training.config import Precision

# NVIDIA H200 (SXM), data sheet of 2024; it gives the tensor cores' rates with sparsity, of which
# dense products reach half.
FLOPS = {"float32": 494e12, "bfloat16": 989e12}  # a second; float32 as TF32, JAX's default there
MEMORY_BANDWIDTH = 4.8e12  # bytes a second, HBM3e
NVLINK = 450e9  # bytes a second each way, of 900e9 in both
# NVIDIA DGX H200, data sheet: one ConnectX-7 of 400 Gb/s (InfiniBand NDR) for each GPU.
INFINIBAND = 50e9  # bytes a second each way
GPUS_PER_NODE = 8
# Assumptions: seconds from one GPU to the next in a ring, within a node and across.
NVLINK_LATENCY, INFINIBAND_LATENCY = 2e-6, 5e-6
# An assumption: the share of the machine's roof that a step reaches.
FRACTION = 0.5

EPOCH = 60_000  # training images of Fashion-MNIST
DEVICES = (1, 8, 16, 64, 256, 1024)
VARIANTS = ("nin", "nin15")
GLOBAL_BATCH = 1024  # of the table for a batch that stays


def ring_seconds(devices: int, size: float, bandwidth: float, latency: float) -> float:
    """A ring all-reduce: a reduce-scatter and an all-gather, each of n - 1 turns of size / n bytes.

    Args:
        devices: in the ring, n.
        size: bytes that each of them holds.
        bandwidth: bytes a second from one to the next.
        latency: seconds a turn.
    """
    turns = 2 * (devices - 1)
    return turns * (size / devices / bandwidth + latency)


def all_reduce_seconds(devices: int, size: float) -> float:
    """Reduce-scatter within a node, all-reduce of the parts across nodes, all-gather within.

    Args:
        devices: full nodes, or fewer than one.
        size: bytes of the gradients.
    """
    within = min(devices, GPUS_PER_NODE)
    if devices % within:
        raise ValueError(f"{devices} devices do not fill nodes of {GPUS_PER_NODE}")
    return ring_seconds(within, size, NVLINK, NVLINK_LATENCY) + ring_seconds(
        devices // within, size / within, INFINIBAND, INFINIBAND_LATENCY
    )


def compute_seconds(work: Work, fraction: float) -> float:
    """A step's computation: under the roof of FLOPs and of memory, whichever is lower.

    Args:
        work: one device's share of a step.
        fraction: of the roof that is reached.
    """
    flops, moved = paper.image_cost(work)
    roof = max(flops / FLOPS[work.precision], moved / MEMORY_BANDWIDTH)
    return work.batch_size * roof / fraction


@dataclass(frozen=True)
class Prediction:
    """A step by so many devices; seconds.

    Attributes:
        devices: how many.
        work: each one's share of the step.
        fraction: of the roof that its computation reaches.
    """

    devices: int
    work: Work
    fraction: float = FRACTION

    @property
    def compute(self) -> float:
        return compute_seconds(self.work, self.fraction)

    @property
    def all_reduce(self) -> float:
        """Of the gradients, which are float32 in any precision."""
        return all_reduce_seconds(self.devices, 4 * paper.parameters(self.work))

    @property
    def step(self) -> float:
        return self.compute + self.all_reduce

    @property
    def efficiency(self) -> float:
        """The share of a step in which devices compute."""
        return self.compute / self.step


def assumptions() -> str:
    """What the model rests on, as a Markdown table."""
    rows = [
        ("dense products, TF32", f"{FLOPS['float32'] / 1e12:g} TFLOP/s", "H200 data sheet"),
        ("dense products, bfloat16", f"{FLOPS['bfloat16'] / 1e12:g} TFLOP/s", "H200 data sheet"),
        ("memory, HBM3e", f"{MEMORY_BANDWIDTH / 1e12:g} TB/s", "H200 data sheet"),
        ("NVLink, each way", f"{NVLINK / 1e9:g} GB/s a GPU", "H200 data sheet"),
        ("InfiniBand, each way", f"{INFINIBAND / 1e9:g} GB/s a GPU", "DGX H200 data sheet"),
        ("GPUs a node", f"{GPUS_PER_NODE}", "DGX H200 data sheet"),
        ("latency of a turn, NVLink", f"{NVLINK_LATENCY * 1e6:g} µs", "assumption"),
        ("latency of a turn, InfiniBand", f"{INFINIBAND_LATENCY * 1e6:g} µs", "assumption"),
    ]
    return _table(("", "value", "source"), rows)


def growing(work: Work, fraction: float = FRACTION) -> list[Prediction]:
    """The work's batch on each device, and ever more devices."""
    return [Prediction(devices, work, fraction) for devices in DEVICES]


def weak_table(work: Work, fraction: float = FRACTION) -> str:
    """The same as a Markdown table."""
    head = (
        *("GPUs", "nodes", "global batch", "steps an epoch", "compute, ms", "all-reduce, ms"),
        *("step, ms", "efficiency", "efficiency at the roof"),
    )
    rows = []
    for found in growing(work, fraction):
        devices, batch = found.devices, found.devices * work.batch_size
        rows.append(
            (
                f"{devices:,}",
                f"{math.ceil(devices / GPUS_PER_NODE):,}",
                f"{batch:,}",
                f"{EPOCH / batch:,.1f}",
                *(f"{1e3 * s:.3f}" for s in (found.compute, found.all_reduce, found.step)),
                f"{found.efficiency:.3f}",
                f"{replace(found, fraction=1.0).efficiency:.3f}",
            )
        )
    return _table(head, rows)


def divided(work: Work, fraction: float = FRACTION) -> list[Prediction]:
    """The global batch that stays, over ever more devices."""
    shares = [replace(work, batch_size=GLOBAL_BATCH // devices) for devices in DEVICES]
    return [Prediction(*each, fraction) for each in zip(DEVICES, shares, strict=True)]


def strong_table(work: Work, fraction: float = FRACTION) -> str:
    """The same as a Markdown table."""
    head = ("GPUs", "images a GPU", "compute, ms", "all-reduce, ms", "step, ms", "speed-up")
    predictions, rows = divided(work, fraction), []
    for found in predictions:
        seconds = (f"{1e3 * s:.3f}" for s in (found.compute, found.all_reduce, found.step))
        speed_up = f"{predictions[0].step / found.step:.1f}"
        rows.append((f"{found.devices:,}", f"{found.work.batch_size:,}", *seconds, speed_up))
    return _table(head, rows)


def input_table(work: Work, fraction: float = FRACTION) -> str:
    """What a node has to read of images for its GPUs not to wait, as a Markdown table."""
    head = ("images, uint8", "MB a GPU and step", "images/s a node", "GB/s a node")
    step, rows = Prediction(GPUS_PER_NODE, work, fraction).step, []
    for sides in ((28, 28, 1), (224, 224, 3)):
        size = math.prod(sides)
        images = GPUS_PER_NODE * work.batch_size / step
        cells = (
            f"{work.batch_size * size / 1e6:.2f}",
            f"{images:,.0f}",
            f"{images * size / 1e9:.2f}",
        )
        rows.append(("x".join(map(str, sides)), *cells))
    return _table(head, rows)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    rule = ("---", *["---:"] * (len(head) - 1))
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *rows))


@dataclass(frozen=True)
class ModelConfig:
    """Step time and efficiency by number of GPUs, on paper. Nothing is measured."""

    fraction: float = FRACTION
    """Share of the machine's roof that a step reaches: an assumption."""

    batch_size: int = 128
    """Images a GPU and step."""

    image_size: int = 224
    """Side of the images, in pixels."""

    precision: Precision = "float32"
    """Of the computation; float32 is TF32 on these GPUs. Gradients are float32."""

    plot: Path | None = None
    """Draw efficiency and speed-up into this PNG as well."""


def text(config: ModelConfig) -> str:
    """All tables, in Markdown."""
    parts = [assumptions()]
    for variant in VARIANTS:
        parts += _tables_of(variant, config)
    return "\n\n".join(parts)


def _work(variant: str, config: ModelConfig) -> Work:
    sizes = config.batch_size, config.image_size
    return Work("train", variant, *sizes, precision=config.precision)


def _tables_of(variant: str, config: ModelConfig) -> list[str]:
    work = _work(variant, config)
    flops = config.batch_size * paper.image_cost(work)[0]
    shortest = min(divided(work, config.fraction), key=lambda found: found.step)
    reached = f"{config.fraction:.0%} of the roof (an assumption)"
    return [
        f"`{variant}`, {config.precision}: {paper.parameters(work):,} parameters, "
        f"{flops / 1e9:,.1f} GFLOP a GPU and step; {config.batch_size} images of "
        f"{config.image_size}x{config.image_size} on each GPU, {reached}:",
        weak_table(work, config.fraction),
        f"`{variant}`, {GLOBAL_BATCH:,} images a step, divided over the GPUs; the step is "
        f"shortest with {shortest.devices} of them:",
        strong_table(work, config.fraction),
        f"`{variant}`, what a node of {GPUS_PER_NODE} GPUs reads, "
        f"{config.batch_size} images a GPU and step:",
        input_table(work, config.fraction),
    ]


def run(config: ModelConfig) -> None:
    if not 0 < config.fraction <= 1:
        raise UserError(f"--fraction must be a number in (0, 1], got {config.fraction:g}")
    for name in ("batch_size", "image_size"):
        if getattr(config, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be a whole number >= 1")
    if config.plot is not None and not config.plot.parent.is_dir():
        raise UserError(f"--plot: there is no folder {config.plot.parent}")
    print(text(config))
    if config.plot is not None:
        draw(config, config.plot)


def draw(config: ModelConfig, path: Path) -> Path:
    """Efficiency and speed-up as a picture."""
    from benchmarks.speed.figures import draw_scale_model  # matplotlib is slow to import

    works = {variant: _work(variant, config) for variant in VARIANTS}
    fractions = dict.fromkeys((config.fraction, 1.0))  # one line if they are the same
    weak = {name: [growing(work, f) for f in fractions] for name, work in works.items()}
    strong = {name: divided(work, config.fraction) for name, work in works.items()}
    return draw_scale_model(weak, strong, path)


if __name__ == "__main__":
    cli.main(ModelConfig, run)
