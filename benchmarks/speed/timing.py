"""Interleaved timing, and the peak rates of this machine.

Contenders are timed in turns, so that a change of the machine's speed affects all of them.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.speed.worker import Worker

PAUSE_SECONDS = 0.05  # lets the threads of the other framework fall asleep
LEAST_SECONDS = 0.2  # of one measurement; shorter calls are repeated
PEAK_ROUNDS = 7  # measurements of a peak rate; their median counts
CLOSE = 1.3  # contenders that take this many times as long as the best rival drop out
FAR = 3.0  # those that take this many times as long in the warm-up are not timed again


@dataclass(frozen=True)
class Timing:
    """The seconds of every measured round of one contender."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median, in seconds."""
        return statistics.median(self.seconds)

    def row(self, images: int) -> dict[str, float]:
        """Return the columns of a result row, for a call that processes that many images."""
        return {
            "median_ms": round(1e3 * self.median, 3),
            "min_ms": round(1e3 * min(self.seconds), 3),
            "max_ms": round(1e3 * max(self.seconds), 3),
            "rounds": len(self.seconds),
            "images_per_second": round(images / self.median, 2),
        }


def interleave(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    keep: str,
    say: Callable[[str], None] = lambda text: None,
    screening: int = 2,
    expected: Mapping[str, float] | None = None,
    failed: Callable[[str, Exception], None] | None = None,
) -> dict[str, Timing]:
    """Time every call once a round; each must return when its work is done.

    All calls take part in the first rounds, except those that were far slower than the best in the
    warm-up. After those rounds, ``keep`` continues, and so do the others that are close to the best
    of them: the slow ones would take most of the time and change no result.

    Args:
        calls: what to time, by name; already warmed up.
        rounds: measured rounds.
        keep: the name that always continues.
        say: receives a text about what is being measured.
        screening: rounds in which all calls take part; if these are all rounds, none is left out.
        expected: how many seconds each call took in the warm-up. A short call is repeated within a
            round to fill `LEAST_SECONDS`. Default: no call is repeated or left out.
        failed: receives the name and the error of a call that fails; the others go on. Default:
            the error is raised.

    Returns:
        Timings by name; of a call that was left out, that of the warm-up. A call that failed has
        none.
    """
    repeats = {
        name: max(1, round(LEAST_SECONDS / (expected or {}).get(name, LEAST_SECONDS)))
        for name in calls
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    far = _far(expected or {}, keep) if screening < rounds else {}
    running = [name for name in calls if name not in far]
    for number in range(rounds):
        if number == screening:
            running = _still_close({name: seconds[name] for name in running}, keep)
        for name in list(running):
            say(f"round {number + 1}/{rounds}: {name}")
            time.sleep(PAUSE_SECONDS)
            start = time.perf_counter()
            try:
                _repeat(calls[name], repeats[name])
            except Exception as error:  # a contender raises whatever its framework does
                if failed is None:
                    raise
                failed(name, error)
                running.remove(name)
                del seconds[name]
                continue
            seconds[name].append((time.perf_counter() - start) / repeats[name])
    return {name: Timing(tuple(values) or (far[name],)) for name, values in seconds.items()}


def _repeat(call: Callable[[], object], times: int) -> None:
    """Make a call that many times; one in another process does so there, without waking up."""
    if isinstance(call, Worker):
        call.repeat(times)
        return
    for _ in range(times):
        call()


def _far(expected: Mapping[str, float], keep: str) -> dict[str, float]:
    others = {name: seconds for name, seconds in expected.items() if name != keep}
    best = min(others.values(), default=0.0)
    return {name: seconds for name, seconds in others.items() if seconds > FAR * best}


def _still_close(seconds: Mapping[str, list[float]], keep: str) -> list[str]:
    others = {name: min(values) for name, values in seconds.items() if name != keep}
    best = min(others.values(), default=0.0)
    return [name for name in seconds if name == keep or others[name] <= CLOSE * best]


def matmul_gflops(precision: str) -> float:
    """Return the rate of a square matrix product in GFLOP/s (2 side^3 operations)."""
    side = 2048
    a = jnp.asarray(np.random.default_rng(0).standard_normal((side, side)), precision)
    product = jax.jit(lambda a: a @ a)
    return 2 * side**3 / _median_seconds(lambda: product(a)) / 1e9


def copy_gb_per_s() -> float:
    """Return the rate of reading plus writing an array larger than any cache, in GB/s."""
    a = jnp.zeros(2**26, jnp.float32)  # 256 MiB
    add = jax.jit(lambda a: a + 1)
    return 2 * a.nbytes / _median_seconds(lambda: add(a)) / 1e9


def _median_seconds(call: Callable[[], jax.Array]) -> float:
    jax.block_until_ready(call())
    seconds = []
    for _ in range(PEAK_ROUNDS):
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
