"""What a few runs can tell: means, and differences paired by seed, with 95 % intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over runs and its 95 % confidence interval, by Student's t.

    Attributes:
        mean: over the runs.
        half: half of the interval's width; None for a single run, which gives no interval.
        runs: how many.
    """

    mean: float
    half: float | None
    runs: int

    def __str__(self) -> str:
        return self._text(".4f")

    def _text(self, form: str) -> str:
        spread = "" if self.half is None else f" ± {self.half:.4f}"
        return f"{self.mean:{form}}{spread}"


class Difference(Estimate):
    """The mean of differences, and what it shows."""

    def __str__(self) -> str:
        return self._text("+.4f")

    @property
    def verdict(self) -> str:
        """More or less, if the interval does not hold 0; else the end that is farther from it."""
        if self.half is None:
            return "one seed, no interval"
        if abs(self.mean) <= self.half:
            return f"no difference found, at most {abs(self.mean) + self.half:.4f}"
        return "more" if self.mean > 0 else "less"


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean of at least one value, one a run, and its interval."""
    return Estimate(*_interval(values))


def difference(a: Mapping[int, float], b: Mapping[int, float]) -> Difference | None:
    """Return how much larger a is than b, over the seeds that both have; None if there is none.

    Two runs of one seed see the images in the same order, so that what the seed does to both of
    them drops out of their difference.

    Args:
        a, b: accuracies by seed.
    """
    pairs = [a[seed] - b[seed] for seed in a if seed in b]
    return Difference(*_interval(pairs)) if pairs else None


def _interval(values: Sequence[float]) -> tuple[float, float | None, int]:
    """Return mean, half of the interval's width, and count."""
    runs = len(values)
    half = None
    if runs > 1:
        half = float(stats.t.ppf((1 + LEVEL) / 2, runs - 1) * stats.sem(values))
    return math.fsum(values) / runs, half, runs


def standard_error(accuracy: float, images: int) -> float:
    """Return the binomial standard error of an accuracy measured on that many images."""
    return math.sqrt(accuracy * (1 - accuracy) / images)
