"""Figures of metrics and predictions, from arrays and plain data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

# The colors of Okabe and Ito, which color-blind readers can distinguish.
TRAIN, TEST = "#0072B2", "#D55E00"
PALETTE = (TRAIN, TEST, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
MOST_MAPS = 17  # in the figure of class maps: three rows with the image
MOST_NAMES = 50  # of classes on the axes of a confusion matrix: more need a larger figure
MOST_COUNTS = 30  # classes of a confusion matrix whose numbers are legible

# Names may contain dollar signs, which matplotlib would parse as a formula and may fail on.
literal_text = matplotlib.rc_context({"text.parse_math": False})


@literal_text
def plot_curves(rows: list[dict[str, Any]], title: str, scored: str, path: Path) -> None:
    """Plot loss and accuracy over epochs: a line for training, points for the scored images.

    Args:
        rows: of metrics.jsonl; "step" rows make the lines, "epoch" rows the points.
        title: of the figure.
        scored: which images score the network, for the legend.
        path: of the PNG file.
    """
    steps = [row for row in rows if row["kind"] == "step"]
    epochs = [row for row in rows if row["kind"] == "epoch"]
    figure = Figure(figsize=(9, 3.6), dpi=150, layout="constrained")
    figure.suptitle(title, fontsize=11)
    labels = {"loss": "cross-entropy, nats", "accuracy": "accuracy"}
    for axes, (quantity, label) in zip(figure.subplots(1, 2), labels.items(), strict=True):
        x = [row["epoch"] for row in steps]
        axes.plot(x, [row[f"train_{quantity}"] for row in steps], color=TRAIN, lw=1, label="train")
        x = [row["epoch"] for row in epochs]
        y = [row[f"test_{quantity}"] for row in epochs]
        axes.plot(x, y, "o-", color=TEST, ms=4, lw=1.2, label=scored)
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
        axes.set(xlabel="epoch", ylabel=label, xlim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, loc="upper right" if quantity == "loss" else "lower right")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


@literal_text
def plot_range_test(
    rates: np.ndarray,
    losses: np.ndarray,
    smoothed: np.ndarray,
    suggestion: float | None,
    title: str,
    path: Path,
) -> None:
    """Plot the loss over the learning rate, which rose from step to step.

    Args:
        rates, losses, smoothed: float [n] each.
        suggestion: the rate to mark; None for none.
        title: of the figure.
        path: of the PNG file.
    """
    figure = Figure(figsize=(6, 3.6), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses, color=TRAIN, lw=0.8, alpha=0.4, label="loss of a batch")
    axes.plot(rates, smoothed, color=TRAIN, lw=1.6, label="smoothed")
    if suggestion is not None:
        axes.axvline(suggestion, color=TEST, ls="--", label=f"suggested: {suggestion:g}")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda rate, _: f"{rate:g}")  # its own is a formula
    axes.xaxis.set_minor_formatter(NullFormatter())
    if np.isfinite(smoothed[0]):
        axes.set_ylim(0, 1.5 * smoothed[0])  # a diverging loss would hide the others
    axes.set(xlabel="learning rate", ylabel="cross-entropy, nats")
    axes.set_title(title, fontsize=11)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


@literal_text
def plot_progress(
    lines: Sequence[tuple[str, Sequence[float], Sequence[float]]], path: Path
) -> None:
    """Plot the accuracy of several runs over their training time, a point for each epoch.

    Args:
        lines: label, minutes and accuracies of each run.
        path: of the figure; its suffix says which kind.
    """
    figure = Figure(figsize=(9, 4.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    for number, (label, minutes, accuracies) in enumerate(lines):
        color = PALETTE[number % len(PALETTE)]
        style = ("-", "--", ":")[number // len(PALETTE) % 3]
        label = f"{label}: {accuracies[-1]:.4f}"
        axes.plot(minutes, accuracies, "o", ls=style, color=color, ms=4, label=label)
    axes.set(xlabel="minutes of training steps", ylabel="test accuracy", xlim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


@literal_text
def plot_confusion(
    confusion: np.ndarray, class_names: tuple[str, ...], title: str, path: Path
) -> None:
    """Plot a confusion matrix: rows are labels, columns predictions, colors shares of the row.

    More than `MOST_NAMES` classes have their numbers, from 0, in place of names.

    Args:
        confusion: int [classes, classes], counts of images.
        class_names: one for each class.
        title: of the figure.
        path: of the PNG file.
    """
    classes = len(confusion)
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    # The memory grows with the area: 1,000 classes at 0.55 inches each would take 27 GB.
    side = max(4.5, 0.55 * min(classes, MOST_NAMES) + 2)
    figure = Figure(figsize=(side + 0.6, side), dpi=150, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if classes <= MOST_NAMES:
        axes.set_xticks(range(classes), class_names, rotation=45, ha="right")
        axes.set_yticks(range(classes), class_names)
    axes.set(xlabel="predicted", ylabel="label")
    axes.set_title(title, fontsize=11)
    if classes <= MOST_COUNTS:
        for i, j in np.argwhere(confusion > 0):
            color = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, str(confusion[i, j]), ha="center", va="center", color=color, fontsize=8)
    figure.colorbar(image, label="share of the label", shrink=0.8)
    figure.savefig(path)


@literal_text
def plot_class_maps(
    image: np.ndarray,
    maps: np.ndarray,
    class_names: Sequence[str],
    title: str,
    path: Path,
) -> None:
    """Plot an image, and over it the map of each class with its logit, the largest in bold.

    Of more than `MOST_MAPS` classes, those with the largest logits are plotted, in that order.
    All maps have one color scale. The figure follows figure 4 of Lin, Chen and Yan, "Network in
    Network" (2013).

    Args:
        image: uint8 [H, W, C], C 1 or 3.
        maps: float32 [H', W', classes]; the mean of a map is the logit of its class.
        class_names: one for each class.
        title: of the figure.
        path: of the PNG file.
    """
    logits = maps.mean((0, 1))
    columns, plotted = 6, np.arange(len(logits))
    if len(logits) > MOST_MAPS:
        title = f"{title}: the {MOST_MAPS} of {len(logits):,} classes with the largest logits"
        plotted = np.argsort(-logits, kind="stable")[:MOST_MAPS]
    maps = maps[:, :, plotted]
    rows = -(-(len(plotted) + 1) // columns)
    figure = Figure(figsize=(9, 1.75 * rows + 0.5), dpi=150, layout="constrained")
    figure.suptitle(title, fontsize=10)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.set_axis_off()
    height, width, channels = image.shape
    gray = {"cmap": "gray", "vmin": 0, "vmax": 255}
    for axes in panels[: len(plotted) + 1]:
        axes.imshow(image[:, :, 0] if channels == 1 else image, **gray)
    panels[0].set_title("image", fontsize=9)
    scale = Normalize(maps.min(), max(maps.max(), maps.min() + 1e-6))
    for i, k in enumerate(plotted.tolist()):
        drawn = panels[i + 1].imshow(
            maps[:, :, i],
            cmap="viridis",
            norm=scale,
            alpha=0.65,
            extent=(-0.5, width - 0.5, height - 0.5, -0.5),
            interpolation="nearest",
        )
        weight = "bold" if k == logits.argmax() else "normal"
        text = f"{class_names[k]}\n{logits[k]:.2f}"
        panels[i + 1].set_title(text, fontsize=9, fontweight=weight)
    figure.colorbar(drawn, ax=panels, shrink=0.8, label="class map", fraction=0.03)
    figure.savefig(path)
