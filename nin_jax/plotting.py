"""Metrics and accounts as figures; the only file that imports matplotlib."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from nin_jax.accounting.account import Account
from nin_jax.explanation import Explanation

# Okabe and Ito's colours, which colour-blind readers tell apart.
TRAIN, TEST = "#0072B2", "#D55E00"
PALETTE = (TRAIN, TEST, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")


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


def plot_layers(account: Account, path: Path) -> None:
    """Parameters and MACs of each layer that has any, as bars.

    Args:
        account: of one network.
        path: of the PNG.
    """
    costs = [cost for cost in account.layers if cost.params]
    figure = Figure(figsize=(9, 0.9 + 0.3 * len(costs)), dpi=150, layout="constrained")
    height, width = account.image_size
    figure.suptitle(
        f"{account.variant}, {height}x{width}x{account.in_channels}: "
        f"{account.params:,} parameters, {account.macs:,} MACs",
        fontsize=11,
    )
    left, right = figure.subplots(1, 2, sharey=True)
    names = [f"{cost.name}  {cost.detail.split(',')[0]}" for cost in costs]
    quantities = (("params", "parameters", TRAIN), ("macs", "MACs of one image", TEST))
    for axes, (field, label, colour) in zip((left, right), quantities, strict=True):
        values = [getattr(cost, field) for cost in costs]
        bars = axes.barh(names, values, color=colour)
        shares = [f" {value / sum(values):.1%}" for value in values]
        axes.bar_label(bars, shares, fontsize=8)
        axes.set_xlabel(label)
        axes.set_xlim(0, 1.18 * max(values))
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="y", labelsize=8)
    left.invert_yaxis()
    figure.savefig(path)


def plot_variants(accounts: Sequence[Account], path: Path) -> None:
    """Parameters against MACs, a circle for each network, its area the memory of training.

    Args:
        accounts: of the networks, for the same images and batch.
        path: of the PNG.
    """
    figure = Figure(figsize=(9, 4.8), dpi=150, layout="constrained")
    axes = figure.subplots()
    memory = [account.memory["train"].paper.total_bytes for account in accounts]
    order = sorted(range(len(accounts)), key=lambda i: -memory[i])  # small circles on top
    offsets = _apart([(a.params, a.macs) for a in accounts])
    for i in order:
        account = accounts[i]
        area = 2600 * memory[i] / max(memory)
        axes.scatter(
            account.params, account.macs, s=area, color=PALETTE[i % len(PALETTE)], alpha=0.55
        )
        axes.plot(account.params, account.macs, ".", color="black", ms=3)
        axes.annotate(
            f"{account.variant}, {memory[i] / 2**20:,.0f} MiB",
            (account.params, account.macs),
            xytext=offsets[i],
            textcoords="offset points",
            fontsize=9,
            arrowprops={"arrowstyle": "-", "lw": 0.5, "color": "0.4", "relpos": (0, 0.5)},
            va="center",
        )
    first = accounts[0]
    axes.set_title(
        f"area: memory of a training step of {first.batch_size} images, on paper", fontsize=10
    )
    axes.set_xlabel("parameters")
    axes.set_ylabel("MACs of one image")
    axes.set_xlim(0, 1.3 * max(a.params for a in accounts))
    axes.set_ylim(0, 1.25 * max(a.macs for a in accounts))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(EngFormatter(sep=" "))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def _apart(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Where each point's label goes, in points from it: right of its neighbours, all apart."""
    widest, highest = (max(values) for values in zip(*points, strict=True))
    places = [(430 * x / widest, 230 * y / highest) for x, y in points]
    offsets: list[tuple[float, float]] = [(0, 0)] * len(points)
    taken: list[tuple[float, float]] = []
    for i in sorted(range(len(points)), key=lambda i: places[i][1]):
        x, y = places[i]
        label = y
        while any(abs(label - other) < 14 and abs(x - at) < 150 for at, other in taken):
            label += 2
        taken.append((x, label))
        right = max(at for at, height in places if abs(at - x) < 60 and abs(height - y) < 60)
        offsets[i] = (right - x + 46, label - y)
    return offsets


def plot_class_maps(
    explanation: Explanation, class_names: Sequence[str], title: str, path: Path
) -> None:
    """A picture, and over it the map of each class, all in one scale; the largest logit in bold.

    Args:
        explanation: as `nin_jax.explanation` makes it.
        class_names: one a class.
        title: says which picture it is.
        path: of the PNG.
    """
    maps, logits = explanation.maps, explanation.logits
    columns = 6
    rows = -(-(len(logits) + 1) // columns)
    figure = Figure(figsize=(9, 1.75 * rows + 0.5), dpi=150, layout="constrained")
    figure.suptitle(title, fontsize=10)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.set_axis_off()
    height, width, channels = explanation.image.shape
    picture = explanation.image[:, :, 0] if channels == 1 else explanation.image
    panels[0].imshow(picture, cmap="gray", vmin=0, vmax=255)
    panels[0].set_title("picture", fontsize=8)
    best = int(np.argmax(logits))
    drawn = None
    shown = panels[1 : 1 + len(logits)]
    for i, (axes, name) in enumerate(zip(shown, class_names, strict=True)):
        axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
        drawn = axes.imshow(
            maps[:, :, i],
            cmap="viridis",
            vmin=maps.min(),
            vmax=max(maps.max(), maps.min() + 1e-6),
            alpha=0.65,
            extent=(-0.5, width - 0.5, height - 0.5, -0.5),
            interpolation="nearest",
        )
        weight = "bold" if i == best else "normal"
        axes.set_title(f"{name}\n{logits[i]:.2f}", fontsize=8, fontweight=weight)
    if drawn is not None:
        figure.colorbar(drawn, ax=panels, shrink=0.8, label="class map", fraction=0.03)
    figure.savefig(path)
