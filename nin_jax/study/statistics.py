"""Results over seeds: means, paired differences and their 95 % confidence intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import ClassVar, Self

from scipy import stats

from nin_jax.study.grid import Row
from nin_jax.study.networks import Network, Networks, key

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over runs and its 95 % confidence interval (Student's t); a cell of a table.

    Attributes:
        mean: over the runs.
        half: half of the interval's width; None for a single run, which gives no interval.
        runs: how many.
    """

    mean: float
    half: float | None
    runs: int
    form: ClassVar[str] = ".4f"

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Return the mean of one value a run, at least one, and its interval."""
        runs, half = len(values), None
        if runs > 1:
            half = float(stats.t.ppf((1 + LEVEL) / 2, runs - 1) * stats.sem(values))
        return cls(math.fsum(values) / runs, half, runs)

    def __str__(self) -> str:
        spread = "" if self.half is None else f" ± {self.half:.4f}"
        return f"{self.mean:{self.form}}{spread}"

    @property
    def raw(self) -> float:
        """The mean, for sorting and for CSV."""
        return round(self.mean, 6)


class Difference(Estimate):
    """The mean of paired differences."""

    form = "+.4f"

    @property
    def finding(self) -> str:
        """Whether the difference is significant; if not, how large it can be at most."""
        if self.half is None:
            return "one seed, no interval"
        if abs(self.mean) <= self.half:
            return f"no difference found, at most {self.bound:.4f}"
        return "more" if self.mean > 0 else "less"

    @property
    def p(self) -> float:
        """The p value of Student's t test (two-sided) against no difference; 1 for a single run."""
        if not self.half:
            return 1.0 if self.half is None or not self.mean else 0.0
        t = self.mean / self.half * stats.t.ppf((1 + LEVEL) / 2, self.runs - 1)
        return float(2 * stats.t.sf(abs(t), self.runs - 1))

    @property
    def bound(self) -> float:
        """The largest absolute difference within the interval."""
        return abs(self.mean) + (self.half or 0)


def difference(a: Mapping[int, float], b: Mapping[int, float]) -> Difference | None:
    """Return the mean of a - b over the seeds that both have; None if there is none.

    Two runs with the same seed see the images in the same order, so that a part of the seed's
    effect cancels.

    Args:
        a, b: accuracies by seed.
    """
    pairs = [a[seed] - b[seed] for seed in a if seed in b]
    return Difference.of(pairs) if pairs else None


def holm(p_values: Mapping[str, float]) -> list[str]:
    """Return the names whose p values are significant at 5 % with Holm's correction.

    Source: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.
    """
    ordered = sorted(p_values.items(), key=lambda item: item[1])
    limits = ((1 - LEVEL) / (len(ordered) - rank) for rank in range(len(ordered)))
    passed = takewhile(lambda pair: pair[0][1] <= pair[1], zip(ordered, limits, strict=True))
    return [name for (name, _), _ in passed]


def standard_error(accuracy: float, images: int) -> float:
    """Return the binomial standard error of an accuracy on that many images."""
    return math.sqrt(accuracy * (1 - accuracy) / images)


@dataclass(frozen=True)
class Group:
    """The runs of one variant and recipe with all seeds, with or without a change.

    Attributes:
        variant, recipe, change: what was run.
        rows: of the results, one a seed.
        network: its costs, as `networks.measure` returns them; empty if they are not known.
    """

    variant: str
    recipe: str
    change: str
    rows: Sequence[Row]
    network: Network

    @property
    def label(self) -> str:
        """The recipe and its change."""
        return f"{self.recipe}: {self.change}" if self.change else self.recipe

    @property
    def accuracies(self) -> Mapping[int, float]:
        """Final test accuracy by seed."""
        return {row["seed"]: row["test_accuracy"] for row in self.rows}

    @property
    def accuracy(self) -> Estimate:
        """Final test accuracy over all runs, collapsed runs included."""
        return Estimate.of([*self.accuracies.values()])

    @property
    def collapsed(self) -> int:
        """The number of runs that stayed at chance."""
        return sum(row["collapsed"] for row in self.rows)

    @property
    def dead(self) -> list[int]:
        """The number of dead classes in each run."""
        return [len(row["dead_classes"]) for row in self.rows]

    @property
    def reached_80(self) -> list[int]:
        """For each run that reached an accuracy of 0.80, the number of epochs it took."""
        return [row["epochs_to_80"] for row in self.rows if row["epochs_to_80"] is not None]

    @property
    def per_class(self) -> list[Estimate | None]:
        """Mean test accuracy of each class; None for a class without test images."""
        columns = zip(*(row["test_accuracy_per_class"] for row in self.rows), strict=True)
        known = [[share for share in column if share is not None] for column in columns]
        return [Estimate(sum(s) / len(s), None, len(s)) if s else None for s in known]

    @property
    def by_size(self) -> Mapping[int, Estimate]:
        """Test accuracy by the side of the test images in pixels, the training size included."""
        found: dict[int, list[float]] = {}
        for row in self.rows:
            for side, share in row["test_accuracy_by_size"].items():
                found.setdefault(int(side), []).append(share)
        return {side: Estimate.of(found[side]) for side in sorted(found)}

    @property
    def training_minutes(self) -> float | None:
        """The number of training steps times the time of one; None if that is not known."""
        step, batch = self.network.get("step_ms"), self.network.get("batch_size")
        if not step or not batch:
            return None
        steps = -(-self.rows[0]["train_images"] // batch) * self.rows[0]["epochs"]
        return steps * step / 60_000


def group_rows(rows: Sequence[Row], networks: Networks) -> list[Group]:
    """Return a group for each variant, recipe and change, in the order of the rows."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        names = (Path(row["variant"]).stem, row["recipe"], row["change"])
        groups.setdefault(names, []).append(row)
    return [
        Group(*names, found, {} if names[2] else networks.get(key(*names[:2]), {}))
        for names, found in groups.items()
    ]
