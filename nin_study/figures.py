"""The study's figures, as SVG that can stand in a page, each for a light and a dark one."""

import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from nin_jax import plotting
from nin_study.summary import Group

LIGHT, DARK = "#1b1b1b", "#e8e8e8"  # ink on a light page, and on a dark one
PALETTE = [c for c in plotting.PALETTE if c not in ("#F0E442", "#000000")]  # readable on both
MARKERS = "os^Dv<>P*X"


@plotting.literal_text
def learning_curves(groups: Sequence[Group], ink: str, paper: str | None = None) -> str:
    """Test accuracy (solid) and training loss (dashed) over epochs: the mean over seeds, and a band
    from the lowest to the highest."""
    columns = min(4, len(groups))
    rows = -(-len(groups) // columns)
    figure = Figure(figsize=(2.6 * columns + 0.6, 2.1 * rows + 0.3), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes in panels.flat[len(groups) :]:
        axes.set_axis_off()
    highest = max(max(map(max, _known(group.losses))) for group in groups)
    for number, (axes, group) in enumerate(zip(panels.flat, groups, strict=False)):
        colour = PALETTE[number % len(PALETTE)]
        loss = axes.twinx()
        loss.set_ylim(0, 1.05 * highest)
        _band(loss, _known(group.losses), colour, "--")
        _band(axes, group.curves, colour, "o-")
        axes.set_title(group.variant, fontsize=10, color=ink)
        axes.set_ylim(0, 1)
        epochs = range(1, len(group.curves[0]) + 1)
        axes.set_xticks(epochs if len(epochs) <= 6 else epochs[:: -(-len(epochs) // 6)])
        _style(axes, ink)
        _style(loss, ink)
        loss.grid(visible=False)
        if number % columns != columns - 1 and number != len(groups) - 1:
            loss.tick_params(right=False, labelright=False)
    figure.supxlabel("epoch", fontsize=10, color=ink)
    figure.supylabel("test accuracy (solid)", fontsize=10, color=ink)
    return _svg(figure, paper)


def _known(curves: Sequence[Sequence[float | None]]) -> list[list[float]]:
    """Losses as numbers; NaN, which is not drawn, where there is none."""
    return [[float("nan") if value is None else value for value in curve] for curve in curves]


def _band(axes: Axes, curves: Sequence[Sequence[float]], colour: str, style: str) -> None:
    values = np.array(curves)  # [seeds, epochs]
    epochs = np.arange(1, values.shape[1] + 1)
    axes.fill_between(epochs, values.min(0), values.max(0), color=colour, alpha=0.25, lw=0)
    axes.plot(epochs, values.mean(0), style, color=colour, ms=3, lw=1.5)


@plotting.literal_text
def accuracy_against_costs(groups: Sequence[Group], ink: str, paper: str | None = None) -> str:
    """Mean test accuracy over parameters, MACs and training memory, with bars of one deviation."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    quantities = (
        ("params", "parameters"),
        ("macs", "multiply-adds of an image"),
        ("train_bytes", "bytes, training step (XLA's plan)"),
    )
    for axes, (field, label) in zip(panels, quantities, strict=True):
        for number, group in enumerate(groups):
            x = group.network.get(field)
            if x is None:
                continue
            axes.errorbar(
                x,
                group.accuracy,
                yerr=group.accuracy_std,
                fmt=MARKERS[number % len(MARKERS)],
                color=PALETTE[number % len(PALETTE)],
                ms=6,
                capsize=3,
                label=group.variant,
            )
        axes.set_xlabel(label, fontsize=10, color=ink)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
        _style(axes, ink)
    panels[0].set_ylabel("test accuracy", fontsize=10, color=ink)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=5,
        fontsize=10,
        frameon=False,
        labelcolor=ink,
    )
    return _svg(figure, paper)


@plotting.literal_text
def ablation(groups: Sequence[Group], ink: str, paper: str | None = None) -> str:
    """Mean test accuracy of a recipe and of each change to it, with every seed."""
    figure = Figure(figsize=(8, 0.5 + 0.42 * len(groups)), layout="constrained")
    axes = figure.subplots()
    names = [group.change or "as it is" for group in groups]
    axes.barh(names, [g.accuracy for g in groups], color=PALETTE[0], alpha=0.6, height=0.6)
    for i, group in enumerate(groups):
        finals = [curve[-1] for curve in group.curves]
        axes.plot(finals, [i] * len(finals), "|", color=PALETTE[1], ms=12, mew=2)
        axes.text(1.01, i, group.accuracy_text, va="center", fontsize=10, color=ink)
    axes.set_xlim(0, 1)
    axes.invert_yaxis()
    axes.set_xlabel("test accuracy; a stroke for each seed", fontsize=10, color=ink)
    _style(axes, ink)
    return _svg(figure, paper)


def _style(axes: Axes, ink: str) -> None:
    axes.set_facecolor("none")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(ink)
    axes.tick_params(labelsize=9, colors=ink)


def _svg(figure: Figure, paper: str | None) -> str:
    """The figure; without paper of its own, a page's shows. The same text every time."""
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "nin_study"}):
        figure.savefig(text, format="svg", facecolor=paper or "none", metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
