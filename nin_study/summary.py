"""Results over seeds: mean and standard deviation, never the best."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nin_study.grid import Row
from nin_study.networks import Network, Networks, key


@dataclass(frozen=True)
class Group:
    """All seeds of one variant and recipe.

    Attributes:
        variant, recipe, change: what was run.
        seeds: how many runs.
        collapsed: how many of them stayed at chance.
        accuracy, accuracy_std: test accuracy at the end, mean and sample standard deviation over
            all runs, the collapsed ones too; the deviation is None for a single run.
        per_class: mean test accuracy of each class; None for a class without test images.
        curves: test accuracy by epoch, [seeds][epochs].
        losses: training loss by epoch, [seeds][epochs]; None where every step was skipped.
        epochs_to_80, reached_80: mean over the runs that got there, and how many did.
        network: what it costs, as `networks.measure` has it; empty where that was not measured.
    """

    variant: str
    recipe: str
    change: str
    seeds: int
    collapsed: int
    accuracy: float
    accuracy_std: float | None
    per_class: list[float | None]
    curves: list[list[float]]
    losses: list[list[float | None]]
    epochs_to_80: float | None
    reached_80: int
    network: Network

    @property
    def label(self) -> str:
        """The recipe, and what is changed in it."""
        return f"{self.recipe}: {self.change}" if self.change else self.recipe

    @property
    def accuracy_text(self) -> str:
        spread = "" if self.accuracy_std is None else f" ± {self.accuracy_std:.4f}"
        return f"{self.accuracy:.4f}{spread}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def summarise(rows: Sequence[Row], networks: Networks) -> list[Group]:
    """A group for each variant, recipe and change, in the order of the rows."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        names = (Path(row["variant"]).stem, row["recipe"], row["change"])
        groups.setdefault(names, []).append(row)
    return [
        _group(*names, found, {} if names[2] else networks.get(key(*names[:2]), {}))
        for names, found in groups.items()
    ]


def _group(variant: str, recipe: str, change: str, rows: Sequence[Row], network: Network) -> Group:
    accuracies = [row["test_accuracy"] for row in rows]
    reached = [row["epochs_to_80"] for row in rows if row["epochs_to_80"] is not None]
    classes = list(zip(*(row["test_accuracy_per_class"] for row in rows), strict=True))
    return Group(
        variant=variant,
        recipe=recipe,
        change=change,
        seeds=len(rows),
        collapsed=sum(row["collapsed"] for row in rows),
        accuracy=float(np.mean(accuracies)),
        accuracy_std=float(np.std(accuracies, ddof=1)) if len(rows) > 1 else None,
        per_class=[_mean([a for a in each if a is not None]) for each in classes],
        curves=[row["test_accuracy_by_epoch"] for row in rows],
        losses=[row["train_loss"] for row in rows],
        epochs_to_80=_mean(reached),
        reached_80=len(reached),
        network=network,
    )


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
