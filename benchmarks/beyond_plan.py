"""Measure by how much a process grows within a call, beyond what XLA plans.

    MALLOC_MMAP_THRESHOLD_=131072 python -m benchmarks.beyond_plan
    MALLOC_MMAP_THRESHOLD_=131072 python -m benchmarks.beyond_plan predict nin 16

The first command measures programs of one operation; the second a network's step, one call at a
time and three in a row, as `benchmarks.speed.probe` does. On Linux, with a CPU.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.speed.ours import nin_jax_call
from benchmarks.speed.probe import peak_resident, reset_peak
from benchmarks.speed.work import Task, Work
from nin_jax import cli
from nin_jax.accounting.xla import xla_memory
from nin_jax.models import ops
from nin_jax.tables import markdown

TIMES = 5


def conv(operations: ops.Operations, stride: int, padding: int) -> Callable[..., Any]:
    """Return a program of one convolution."""
    return lambda x, kernel: operations.conv(x, kernel, stride, padding)


PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[int, ...], tuple[int, ...]]] = {
    "no convolution": (lambda x, k: jnp.tanh(x) + k, (4, 54, 54, 96), (96,)),
    "11x11, stride 4, 1 -> 96, 4 images": (
        conv(ops.PLAIN, 4, 0),
        (4, 224, 224, 1),
        (11, 11, 1, 96),
    ),
    "11x11, stride 4, 3 -> 96, 4 images": (
        conv(ops.PLAIN, 4, 0),
        (4, 224, 224, 3),
        (11, 11, 3, 96),
    ),
    "1x1, 96 -> 96, 4 images": (conv(ops.FAST, 1, 0), (4, 54, 54, 96), (1, 1, 96, 96)),
    "1x1, 256 -> 256, 4 images": (conv(ops.FAST, 1, 0), (4, 26, 26, 256), (1, 1, 256, 256)),
    "5x5, 96 -> 256, 4 images, plain": (conv(ops.PLAIN, 1, 2), (4, 26, 26, 96), (5, 5, 96, 256)),
    "5x5, 96 -> 256, 4 images, as run": (conv(ops.FAST, 1, 2), (4, 26, 26, 96), (5, 5, 96, 256)),
}


def growth(call: Callable[[], Any], calls: int) -> str:
    """Return the growth of the process in MiB, the least and the most of a few measurements."""
    found = []
    for _ in range(TIMES):
        time.sleep(0.5)  # XLA's threads free the blocks of the last call
        before = reset_peak()
        if before is None:
            raise SystemExit("this system does not report the peak memory of a process")
        for _ in range(calls):
            call()
        found.append((peak_resident() - before) / 2**20)
    return f"{min(found):.1f} to {max(found):.1f}"


def one_operation(name: str) -> tuple[str, str, str]:
    """Return a program's name, and the MiB that XLA plans and that the process grows."""
    function, *shapes = PROGRAMS[name]
    arguments = [jax.device_put(np.zeros(shape, np.float32)) for shape in shapes]
    compiled = jax.jit(function).lower(*arguments).compile()
    plan = xla_memory(compiled)
    planned = ((plan.temp_bytes or 0) + (plan.output_bytes or 0)) / 2**20

    def call() -> None:
        jax.block_until_ready(compiled(*arguments))

    call()
    return name, f"{planned:.1f}", growth(call, 1)


def network(task: Task, variant: str, batch_size: int) -> tuple[str, str, str]:
    """Return a step's name, and the MiB that the process grows in one call and in three."""
    call = nin_jax_call(Work(task, variant, batch_size))
    call()
    return f"{variant}, {task}, {batch_size} images", growth(call, 1), growth(call, 3)


@dataclass(frozen=True)
class BeyondPlanConfig:
    """Measure by how much a process grows within a call, beyond what XLA plans."""

    task: Annotated[Task | None, tyro.conf.Positional] = None
    """train or predict: a network's step, in one call and in three. Default: the programs of one
    operation."""

    variant: Annotated[str, tyro.conf.Positional] = "nin"
    """Name or file of the network."""

    batch_size: Annotated[int, tyro.conf.Positional] = 16
    """Images per step."""


def run(config: BeyondPlanConfig) -> None:
    """Measure, and print a table in Markdown."""
    if config.task is not None:
        headings = ("step", "MiB, one call", "MiB, three in a row")
        rows = [network(config.task, config.variant, config.batch_size)]
    else:
        headings = ("program", "MiB planned", "MiB grown")
        rows = [one_operation(name) for name in PROGRAMS]
    print(markdown(headings, rows, ("left", "right", "right")))


if __name__ == "__main__":
    cli.main(BeyondPlanConfig, run)
