"""Print the tables of "On paper" in docs/scale.md: python -m benchmarks.scale_model.

A model of data-parallel training on NVIDIA H200 GPUs. A step takes the time of its computation
plus the time of the all-reduce of its gradients; the two do not overlap. Nothing is measured.
"""

from dataclasses import dataclass, replace

from benchmarks.speed.work import Work, training_cost
from nin_jax import cli
from nin_jax.errors import UserError
from nin_jax.tables import Cell, Table, markdown_section
from nin_jax.training.config import Precision

# NVIDIA's data sheets of the H200 SXM and the DGX H200, in FLOP/s and bytes/s. The rates of the
# tensor cores are half of what the sheet lists with sparsity; bandwidths are in one direction.
PEAK = {"float32": 494e12, "bfloat16": 989e12}  # float32 runs as TF32, JAX's default there
MEMORY, NVLINK, INFINIBAND = 4.8e12, 450e9, 50e9
GPUS_PER_NODE = 8
NVLINK_LATENCY, INFINIBAND_LATENCY = 2e-6, 5e-6  # assumptions: seconds a turn of a ring

VARIANTS, GPUS = ("nin", "nin15"), (1, 8, 16, 64, 256, 1024)
TRAIN_IMAGES = 60_000  # Fashion-MNIST
GLOBAL_BATCH = 1024  # of the second table
PICTURE_BYTES = 224 * 224 * 3  # uint8
TIMES = ("compute, ms", "all-reduce, ms", "step, ms")


@dataclass(frozen=True)
class ScaleModelConfig:
    """Predict the time of a training step on many GPUs. Nothing is measured."""

    fraction: float = 0.5
    """Share of the peak rates that the computation reaches: an assumption."""

    batch_size: int = 128
    """Images per GPU and step, in the first table."""

    image_size: int = 224
    """Side of the images, in pixels."""

    precision: Precision = "float32"
    """Of the computation; float32 is TF32 on these GPUs. Gradients are float32."""


def ring_seconds(devices: int, size: float, bandwidth: float, latency: float) -> float:
    """Return the time of a ring all-reduce: 2 (n - 1) turns, each of size / n bytes."""
    return 2 * (devices - 1) * (size / devices / bandwidth + latency)


def all_reduce_seconds(devices: int, size: float) -> float:
    """Return the time of a hierarchical all-reduce: within each node, then across nodes."""
    within = min(devices, GPUS_PER_NODE)
    across = ring_seconds(devices // within, size / within, INFINIBAND, INFINIBAND_LATENCY)
    return ring_seconds(within, size, NVLINK, NVLINK_LATENCY) + across


def compute_seconds(work: Work, fraction: float) -> float:
    """Return the time of a step's computation on one GPU, at a share of the roofline."""
    flops, moved = training_cost(work)
    return work.batch_size * max(flops / PEAK[work.precision], moved / MEMORY) / fraction


def growing_batch(config: ScaleModelConfig) -> Table:
    """Return the table for a fixed batch on each GPU."""
    rows: list[list[Cell]] = []
    for work in _works(config):
        compute = compute_seconds(work, config.fraction)
        for gpus in GPUS:
            exchange = all_reduce_seconds(gpus, 4 * work.params)
            step, batch = compute + exchange, gpus * work.batch_size
            at_peak = compute * config.fraction
            images = min(gpus, GPUS_PER_NODE) * work.batch_size / step
            rows.append([work.variant, gpus, batch, TRAIN_IMAGES / batch])
            rows[-1] += [1e3 * compute, 1e3 * exchange, 1e3 * step, compute / step]
            rows[-1] += [at_peak / (at_peak + exchange), images * PICTURE_BYTES / 1e9]
    headings = ("network", "GPUs", "global batch", "steps per epoch", *TIMES, "efficiency")
    headings += ("efficiency at peak", "input, GB/s per node")
    return Table(f"{config.batch_size} images on each GPU", headings, rows)


def fixed_batch(config: ScaleModelConfig) -> Table:
    """Return the table for a fixed global batch, divided over the GPUs."""
    rows: list[list[Cell]] = []
    for work in _works(config):
        alone = compute_seconds(replace(work, batch_size=GLOBAL_BATCH), config.fraction)
        for gpus in GPUS:
            compute, exchange = alone / gpus, all_reduce_seconds(gpus, 4 * work.params)
            step = compute + exchange
            rows.append([work.variant, gpus, GLOBAL_BATCH // gpus])
            rows[-1] += [1e3 * compute, 1e3 * exchange, 1e3 * step, alone / step]
    headings = ("network", "GPUs", "images per GPU", *TIMES, "speed-up")
    return Table(f"{GLOBAL_BATCH:,} images per step, divided over the GPUs", headings, rows)


def _works(config: ScaleModelConfig) -> list[Work]:
    sizes = config.batch_size, config.image_size
    return [Work("train", name, *sizes, precision=config.precision) for name in VARIANTS]


def run(config: ScaleModelConfig) -> None:
    """Print both tables in Markdown."""
    if not 0 < config.fraction <= 1:
        raise UserError(f"--fraction must be a number in (0, 1], got {config.fraction:g}")
    if min(config.batch_size, config.image_size) < 1:
        raise UserError("--batch-size and --image-size must be whole numbers >= 1")
    print(markdown_section(growing_batch(config)))
    print(markdown_section(fixed_batch(config)), end="")


if __name__ == "__main__":
    cli.main(ScaleModelConfig, run)
