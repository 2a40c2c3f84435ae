"""Metrics and accounts as figures; the only file that imports matplotlib."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import EngFormatter

from nin_jax.accounting.account import Account
from nin_jax.inference.class_maps import Explanation

# Okabe and Ito's colours, which colour-blind readers tell apart.
TRAIN, TEST = "#0072B2", "#D55E00"
PALETTE = (TRAIN, TEST, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")

# A name with dollar signs is no formula: matplotlib would fail on one that it cannot read.
literal_text = matplotlib.rc_context({"text.parse_math": False})


@literal_text
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


@literal_text
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


@literal_text
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
        path: of the PNG, which names the networks in its description too.
    """
    names = ", ".join(account.variant for account in accounts)
    variants_figure(accounts).savefig(path, metadata={"Description": names})


def variants_figure(accounts: Sequence[Account]) -> Figure:
    """The figure of `plot_variants`. Labels tell the networks apart; colour says nothing.

    Args:
        accounts: of the networks, for the same images and batch.
    """
    figure = Figure(figsize=(9, 5.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    params, macs = [a.params for a in accounts], [a.macs for a in accounts]
    memory = [a.memory["train"].paper.total_bytes for a in accounts]
    areas = [2600 * each / max(memory) for each in memory]  # points squared
    axes.scatter(params, macs, s=areas, facecolor="#56B4E955", edgecolor=TRAIN, lw=0.8)
    axes.plot(params, macs, ".", color="black", ms=4)
    batch = accounts[0].batch_size
    axes.set_title(f"area: memory of a training step of {batch} images, on paper", fontsize=10)
    # Logarithmic, as most networks are near each other and a few are far away.
    for axis, label, values in (
        (axes.xaxis, "parameters (logarithmic)", params),
        (axes.yaxis, "MACs of one image (logarithmic)", macs),
    ):
        axis.set_label_text(label)
        _logarithmic(axis, values)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    texts = [
        f"{account.variant}, {each / 2**20:,.0f} MiB"
        for account, each in zip(accounts, memory, strict=True)
    ]
    _label(axes, list(zip(params, macs, strict=True)), areas, texts)
    return figure


def _logarithmic(axis: Any, values: Sequence[float]) -> None:
    """A logarithmic axis with room around the values, marked at round numbers."""
    low, high = min(values) / 1.35, 1.5 * max(values)
    marks = [m * 10.0**e for e in range(15) for m in (1, 1.5, 2, 3, 4, 5, 7)]
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_ticks([mark for mark in marks if low <= mark <= high])
    axis.set_ticks([], minor=True)
    axis.set_major_formatter(EngFormatter(sep=" "))
    axis.axes.set(**{f"{axis.axis_name}lim": (low, high)})


Box = tuple[float, float, float, float]  # left, bottom, right, top


def _label(
    axes: Any, points: Sequence[tuple[float, float]], areas: Sequence[float], texts: Sequence[str]
) -> None:
    """Writes each text near its circle, where it meets no text, no circle and no leader."""
    figure = axes.figure
    figure.draw_without_rendering()  # from here on the axes stay where they are
    pixels = figure.dpi / 72
    centres = axes.transData.transform(points)
    radii = pixels * np.sqrt(areas) / 2
    circles = [(x - r, y - r, x + r, y + r) for (x, y), r in zip(centres, radii, strict=True)]
    placed: list[tuple[Box, np.ndarray]] = []
    for i in sorted(range(len(texts)), key=lambda i: -centres[i][1]):
        note = axes.annotate(
            texts[i],
            points[i],
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=9,
            ha="center",
            va="center",
            arrowprops={"arrowstyle": "-", "lw": 0.6, "color": "0.35", "shrinkA": 1},
        )
        extent = Text.get_window_extent(note)  # without its leader
        size = extent.width + 6 * pixels, extent.height + 3 * pixels
        places = _places(centres[i], size, axes.get_window_extent().extents)
        place = next((p for p in places if _is_free(p, circles, placed)), None)
        if place is not None:  # else the text stays on its point
            placed.append(place)
            note.set_position((place[1][-1] - centres[i]) / pixels)


def _places(
    centre: np.ndarray, size: tuple[float, float], space: Box
) -> Iterator[tuple[Box, np.ndarray]]:
    """Boxes of that size about a point, the nearest first, each with its leader's points."""
    half = np.array(size) / 2
    for distance in range(8, 400, 6):
        for angle in np.linspace(0, 2 * np.pi, 24, endpoint=False):
            # A text is wide and low: its middle lies on an ellipse about the point.
            offset = np.array([(distance + half[0]) * np.cos(angle), distance * np.sin(angle)])
            left, bottom, right, top = *(centre + offset - half), *(centre + offset + half)
            if space[0] <= left and space[1] <= bottom and right <= space[2] and top <= space[3]:
                yield (left, bottom, right, top), centre + np.linspace(0, 1, 60)[:, None] * offset


def _is_free(
    place: tuple[Box, np.ndarray], circles: Sequence[Box], placed: Sequence[tuple[Box, np.ndarray]]
) -> bool:
    """Whether a box meets no circle, no other box and no leader, and its leader none of others."""
    box, leader = place
    others = [circle for circle in circles if not _enters(leader[:1], circle)]
    return not (
        any(_meet(box, circle) for circle in circles)
        or any(_enters(leader, circle) for circle in others)
        or any(_meet(box, other) or _enters(leader, other) for other, _ in placed)
        or any(_enters(other, box) for _, other in placed)
    )


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _enters(leader: np.ndarray, box: Box) -> bool:
    return bool(((leader > box[:2]) & (leader < box[2:])).all(1).any())


@literal_text
def plot_class_maps(
    explanation: Explanation, class_names: Sequence[str], title: str, path: Path
) -> None:
    """A picture, and over it the map of each class, all in one scale; the largest logit in bold.

    Args:
        explanation: as `nin_jax.inference.class_maps` makes it.
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
    panels[0].set_title("picture", fontsize=9)
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
        axes.set_title(f"{name}\n{logits[i]:.2f}", fontsize=9, fontweight=weight)
    if drawn is not None:
        figure.colorbar(drawn, ax=panels, shrink=0.8, label="class map", fraction=0.03)
    figure.savefig(path)
