"""What this machine can do at most: the roof under which every network runs."""

import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


def matmul_gflops(precision: str = "float32", side: int = 2048, rounds: int = 7) -> float:
    """Rate of a square matrix product, in GFLOP/s (2 side^3 operations); median of rounds."""
    a = jnp.asarray(np.random.default_rng(0).standard_normal((side, side)), precision)
    product = jax.jit(lambda a: a @ a)
    return 2 * side**3 / _median_seconds(lambda: product(a), rounds) / 1e9


def copy_gb_per_s(mib: int = 256, rounds: int = 7) -> float:
    """Rate of reading and writing an array larger than any cache, in GB/s of both together."""
    a = jnp.zeros(mib * 2**18, jnp.float32)
    add = jax.jit(lambda a: a + 1)
    return 2 * a.nbytes / _median_seconds(lambda: add(a), rounds) / 1e9


def _median_seconds(call: Callable[[], jax.Array], rounds: int) -> float:
    jax.block_until_ready(call())
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
