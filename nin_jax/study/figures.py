"""The study's figures as SVG, in `LIGHT` ink; a page replaces it by `DARK` ink."""

import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator, StrMethodFormatter

from nin_jax import plotting
from nin_jax.study.statistics import Group

LIGHT, DARK = "#1b1b1b", "#e8e8e8"  # ink on light pages, on dark pages
PALETTE = [c for c in plotting.PALETTE if c not in ("#F0E442", "#000000")]  # readable on both
MARKERS = "os^Dv<>P*X"
WIDTH = 12.5  # inches: 1,200 pixels of a page
FONT = 12  # points: the 16 pixels of its text


@plotting.literal_text
def accuracy_against_time(groups: Sequence[Group], paper: str = "none") -> str:
    """Draw mean test accuracy and its interval over the time of a training step.

    Unless all were timed, over the multiply-adds of an image, so that no network is left out.

    Args:
        groups: of one recipe.
        paper: color of the background; "none" for a transparent one.
    """
    timed = all(group.network.get("step_ms") for group in groups)
    field = "step_ms" if timed else "macs"
    figure = Figure(figsize=(WIDTH, 5.6), layout="constrained")
    axes = figure.subplots()
    for number, group in enumerate(groups):
        if x := group.network.get(field):
            axes.errorbar(
                x,
                group.accuracy.mean,
                yerr=group.accuracy.half,
                fmt=MARKERS[number % len(MARKERS)],
                color=PALETTE[number % len(PALETTE)],
                ms=10,
                lw=1.5,
                capsize=5,
                label=f"{group.variant}  {group.accuracy}",
            )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 7), numticks=20))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}") if timed else EngFormatter(sep=" "))
    axes.margins(0.06, 0.1)
    unit = "ms per training step" if timed else "multiply-adds per image"
    axes.set_xlabel(f"{unit} (logarithmic)", fontsize=FONT, color=LIGHT)
    axes.set_ylabel("test accuracy", fontsize=FONT, color=LIGHT)
    _style(axes)
    figure.legend(
        loc="outside right center", fontsize=FONT, frameon=False, labelcolor=LIGHT, labelspacing=0.9
    )
    return _svg(figure, paper)


@plotting.literal_text
def learning_curves(groups: Sequence[Group]) -> str:
    """Draw test accuracy (solid) and training loss (dashed) over epochs.

    Each is the mean over seeds, with a band from the lowest to the highest value.
    """
    rows = -(-len(groups) // 5)
    columns = -(-len(groups) // rows)
    figure = Figure(figsize=(WIDTH, 2.6 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes in panels.flat[len(groups) :]:
        axes.set_axis_off()
    losses = [[row["train_loss"] for row in group.rows] for group in groups]
    known = (value for curves in losses for curve in curves for value in curve if value is not None)
    highest = max(known, default=1.0)
    for number, (axes, group) in enumerate(zip(panels.flat, groups, strict=False)):
        color = PALETTE[number % len(PALETTE)]
        loss = axes.twinx()
        loss.set_ylim(0, 1.05 * highest)
        _band(loss, losses[number], color, "--")
        _band(axes, [row["test_accuracy_by_epoch"] for row in group.rows], color, "o-")
        axes.set_title(group.variant, fontsize=FONT, color=LIGHT)
        axes.set_ylim(0, 1)
        epochs = range(1, group.rows[0]["epochs"] + 1)
        axes.set_xticks(epochs if len(epochs) <= 4 else epochs[:: -(-len(epochs) // 4)])
        _style(axes)
        _style(loss)
        loss.grid(visible=False)
        if number % columns != columns - 1 and number != len(groups) - 1:
            loss.tick_params(right=False, labelright=False)
    figure.supxlabel("epoch", fontsize=FONT, color=LIGHT)
    figure.supylabel("test accuracy (solid)", fontsize=FONT, color=LIGHT)
    return _svg(figure)


def _band(axes: Axes, curves: Sequence[Sequence[float | None]], color: str, style: str) -> None:
    values = np.array(curves, float)  # [seeds, epochs]; None becomes NaN, which is not drawn
    epochs = np.arange(1, values.shape[1] + 1)
    axes.fill_between(epochs, values.min(0), values.max(0), color=color, alpha=0.25, lw=0)
    axes.plot(epochs, values.mean(0), style, color=color, ms=4, lw=1.5)


@plotting.literal_text
def ablation(groups: Sequence[Group]) -> str:
    """Draw the test accuracy of a recipe and of each change: mean, interval, every seed."""
    figure = Figure(figsize=(WIDTH, 0.8 + 0.45 * len(groups)), layout="constrained")
    axes = figure.subplots()
    for i, group in enumerate(groups):
        found = group.accuracy
        axes.plot([*group.accuracies.values()], [i] * found.runs, "|", color=PALETTE[1], ms=12)
        axes.errorbar(
            found.mean, i, xerr=found.half, fmt="o", color=PALETTE[0], ms=8, lw=2, capsize=5
        )
    axes.axvline(groups[0].accuracy.mean, color=LIGHT, lw=0.8, ls=":")
    axes.set_yticks(range(len(groups)), [group.change or "none" for group in groups])
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set_xlabel("test accuracy, with a stroke for each seed", fontsize=FONT, color=LIGHT)
    _style(axes)
    return _svg(figure)


def _style(axes: Axes) -> None:
    axes.set_facecolor("none")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LIGHT)
    axes.tick_params(labelsize=FONT, colors=LIGHT)


def _svg(figure: Figure, paper: str = "none") -> str:
    """Return the figure as SVG, always the same text."""
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "nin_jax.study"}):
        figure.savefig(text, format="svg", facecolor=paper, metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
