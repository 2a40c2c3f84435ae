"""Results over seeds: means with their intervals, never the best run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nin_jax.study.grid import Row
from nin_jax.study.networks import Network, Networks, key
from nin_jax.study.statistics import Estimate, estimate


@dataclass(frozen=True)
class Group:
    """All seeds of one variant and recipe, with or without a change.

    Attributes:
        variant, recipe, change: what was run.
        rows: of the results, one a seed.
        network: what it costs, as `networks.measure` has it; empty where that was not measured.
    """

    variant: str
    recipe: str
    change: str
    rows: Sequence[Row]
    network: Network

    @property
    def label(self) -> str:
        """The recipe, and what is changed in it."""
        return f"{self.recipe}: {self.change}" if self.change else self.recipe

    @property
    def accuracies(self) -> Mapping[int, float]:
        """Test accuracy at the end, by seed."""
        return {row["seed"]: row["test_accuracy"] for row in self.rows}

    @property
    def accuracy(self) -> Estimate:
        """Test accuracy at the end, over all runs, the collapsed ones too."""
        return estimate([*self.accuracies.values()])

    @property
    def collapsed(self) -> int:
        """How many runs stayed at chance."""
        return sum(row["collapsed"] for row in self.rows)

    @property
    def dead(self) -> list[int]:
        """How many classes are dead, in each run."""
        return [len(row["dead_classes"]) for row in self.rows]

    @property
    def reached_80(self) -> list[int]:
        """The epochs after which runs reached 0.80, of those that did."""
        return [row["epochs_to_80"] for row in self.rows if row["epochs_to_80"] is not None]

    @property
    def per_class(self) -> list[Estimate | None]:
        """Mean test accuracy of each class; None for a class without test images."""
        columns = zip(*(row["test_accuracy_per_class"] for row in self.rows), strict=True)
        known = [[share for share in column if share is not None] for column in columns]
        return [Estimate(sum(s) / len(s), None, len(s)) if s else None for s in known]

    @property
    def by_size(self) -> Mapping[int, Estimate]:
        """Test accuracy by the side of the test images, in pixels; the training size is one."""
        found: dict[int, list[float]] = {}
        for row in self.rows:
            for side, share in row["test_accuracy_by_size"].items():
                found.setdefault(int(side), []).append(share)
        return {side: estimate(found[side]) for side in sorted(found)}

    @property
    def training_minutes(self) -> float | None:
        """Time of all training steps, by the time of one; None where that was not measured."""
        step, batch = self.network.get("step_ms"), self.network.get("batch_size")
        if not step or not batch:
            return None
        steps = -(-self.rows[0]["train_images"] // batch) * self.rows[0]["epochs"]
        return steps * step / 60_000


def summarise(rows: Sequence[Row], networks: Networks) -> list[Group]:
    """Return a group for each variant, recipe and change, in the order of the rows."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        names = (Path(row["variant"]).stem, row["recipe"], row["change"])
        groups.setdefault(names, []).append(row)
    return [
        Group(*names, found, {} if names[2] else networks.get(key(*names[:2]), {}))
        for names, found in groups.items()
    ]
