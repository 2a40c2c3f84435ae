"""Interleaved timing: what is compared is measured in turns, so that it meets the same machine."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

PAUSE_SECONDS = 0.05  # lets the other side's threads fall asleep
LEAST_SECONDS = 0.2  # of one measurement; shorter calls are repeated
CLOSE = 1.3  # contenders this much slower than the best rival are not measured further


@dataclass(frozen=True)
class Timing:
    """Seconds of every measured round of one contender."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def row(self, images: int) -> dict[str, float]:
        """The columns of a result row, for a call that works on that many images."""
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
) -> dict[str, Timing]:
    """Times every call once a round; each must return when its work is done.

    All take part in the first rounds. Then only ``keep`` goes on, and of the others those that
    are close to the best of them: the slow ones would take most of the time and decide nothing.

    Args:
        calls: what to time, by name; warmed up already.
        rounds: measured rounds of those that go on.
        keep: the name that always goes on.
        say: is told what is being measured.
        screening: rounds that all take part in.
        expected: about how many seconds a call takes; from it follows how often it is repeated
            in a round. Without it, once.
    """
    repeats = {
        name: max(1, round(LEAST_SECONDS / (expected or {}).get(name, LEAST_SECONDS)))
        for name in calls
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    running = list(calls)
    for number in range(rounds):
        if number == screening:
            running = _still_close(seconds, keep)
        for name in running:
            say(f"round {number + 1}/{rounds}: {name}")
            time.sleep(PAUSE_SECONDS)
            start = time.perf_counter()
            for _ in range(repeats[name]):
                calls[name]()
            seconds[name].append((time.perf_counter() - start) / repeats[name])
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def _still_close(seconds: Mapping[str, list[float]], keep: str) -> list[str]:
    others = {name: min(values) for name, values in seconds.items() if name != keep}
    best = min(others.values(), default=0.0)
    return [name for name in seconds if name == keep or others[name] <= CLOSE * best]
