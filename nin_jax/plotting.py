"""Metrics as figures; the only file that imports matplotlib."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers tell apart.
TRAIN, TEST = "#0072B2", "#D55E00"


def plot_curves(rows: list[dict[str, Any]], title: str, path: Path) -> None:
    """Loss and accuracy over epochs, of training steps (a line) and tests (points).

    Args:
        rows: of metrics.jsonl; "step" rows make the lines, "epoch" rows the points.
        title: says what was run.
        path: of the PNG.
    """
    steps = [row for row in rows if row["kind"] == "step"]
    epochs = [row for row in rows if row["kind"] == "epoch"]
    figure = Figure(figsize=(9, 3.6), dpi=150, layout="constrained")
    figure.suptitle(title, fontsize=11)
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        x = [row["epoch"] for row in steps]
        axes.plot(x, [row[f"train_{quantity}"] for row in steps], color=TRAIN, lw=1, label="train")
        x = [row["epoch"] for row in epochs]
        y = [row[f"test_{quantity}"] for row in epochs]
        axes.plot(x, y, "o-", color=TEST, ms=4, lw=1.2, label="test")
        if quantity == "accuracy" and y:
            axes.annotate(
                f"{y[-1]:.4f}",
                (x[-1], y[-1]),
                xytext=(0, -14),
                textcoords="offset points",
                ha="right",
                color=TEST,
            )
            axes.set_ylim(0, 1)
        axes.set_xlabel("epoch")
        axes.set_ylabel("cross-entropy, nats" if quantity == "loss" else "accuracy")
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, loc="upper right" if quantity == "loss" else "lower right")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def plot_confusion(
    confusion: np.ndarray, class_names: tuple[str, ...], title: str, path: Path
) -> None:
    """A confusion matrix: rows are labels, columns predictions, cells shares of the row.

    Args:
        confusion: int [classes, classes].
        class_names: one a class.
        title: says what was evaluated.
        path: of the PNG.
    """
    classes = len(confusion)
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    side = max(4.5, 0.55 * classes + 2)
    figure = Figure(figsize=(side + 0.6, side), dpi=150, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(classes), class_names, rotation=45, ha="right")
    axes.set_yticks(range(classes), class_names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    axes.set_title(title, fontsize=11)
    if classes <= 30:  # more would not be legible
        for i, j in np.argwhere(confusion > 0):
            colour = "white" if shares[i, j] > 0.5 else "black"
            axes.text(
                j, i, str(confusion[i, j]), ha="center", va="center", color=colour, fontsize=8
            )
    figure.colorbar(image, label="share of the label", shrink=0.8)
    figure.savefig(path)
