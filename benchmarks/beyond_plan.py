"""By how much a process grows within a call, beyond what XLA plans: programs of one operation.

    MALLOC_MMAP_THRESHOLD_=131072 python benchmarks/beyond_plan.py
    MALLOC_MMAP_THRESHOLD_=131072 python benchmarks/beyond_plan.py predict nin 16

The first prints programs of one operation; the second a network's step, one call at a time and
three in a row, as `benchmarks.speed.probe` measures. On Linux, with a CPU.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.speed.ours import nin_jax_call
from benchmarks.speed.probe import _forget_peak, _peak_resident
from benchmarks.speed.work import Work
from nin_jax.accounting.xla import xla_memory
from nin_jax.models import ops

TIMES = 5


def conv(operations: ops.Operations, stride: int, padding: int) -> Callable[..., Any]:
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
    "5x5, 96 -> 256, 4 images, plain": (
        conv(ops.PLAIN, 1, 2),
        (4, 26, 26, 96),
        (5, 5, 96, 256),
    ),
    "5x5, 96 -> 256, 4 images, as run": (
        conv(ops.FAST, 1, 2),
        (4, 26, 26, 96),
        (5, 5, 96, 256),
    ),
    "5x5, 256 -> 96, 4 images, as run": (
        conv(ops.FAST, 1, 2),
        (4, 26, 26, 256),
        (5, 5, 256, 96),
    ),
}


def growth(call: Callable[[], Any], calls: int) -> str:
    """Of the process, in MiB, the least and the most of a few times."""
    found = []
    for _ in range(TIMES):
        time.sleep(0.5)  # XLA's threads give back the last call's blocks
        before = _forget_peak()
        if before is None:
            raise SystemExit("this system does not tell a process's peak")
        for _ in range(calls):
            call()
        found.append((_peak_resident() - before) / 2**20)
    return f"{min(found):.1f} to {max(found):.1f}"


def one_operation(name: str) -> None:
    function, *shapes = PROGRAMS[name]
    arguments = [jax.device_put(np.zeros(shape, np.float32)) for shape in shapes]
    compiled = jax.jit(function).lower(*arguments).compile()
    plan = xla_memory(compiled)
    planned = ((plan.temp_bytes or 0) + (plan.output_bytes or 0)) / 2**20

    def call() -> None:
        jax.block_until_ready(compiled(*arguments))

    call()
    print(f"| {name} | {planned:.1f} | {growth(call, 1)} |", flush=True)


def network(task: Any, variant: str, batch_size: int) -> None:
    call = nin_jax_call(Work(task, variant, batch_size))
    call()
    alone, in_a_row = growth(call, 1), growth(call, 3)
    print(f"| {variant}, {task}, {batch_size} images | {alone} | {in_a_row} |")


if __name__ == "__main__":
    if sys.argv[1:]:
        print("| step | MiB, one call | MiB, three in a row |\n| --- | ---: | ---: |")
        network(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    else:
        print("| program | MiB planned | MiB grown |\n| --- | ---: | ---: |")
        for each in PROGRAMS:
            one_operation(each)
