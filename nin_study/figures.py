"""The study's figures, as SVG that can stand in a page; matplotlib's own fonts as paths."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from nin_jax import plotting
from nin_study.summary import Group

INK = "#7f7f7f"  # readable on white and on black
PALETTE = [c for c in plotting.PALETTE if c not in ("#F0E442", "#000000")]  # so are these


def learning_curves(groups: Sequence[Group], title: str) -> str:
    """Test accuracy over epochs: the mean, and a band from the worst seed to the best."""
    columns = min(4, len(groups))
    rows = -(-len(groups) // columns)
    figure = Figure(figsize=(2.5 * columns, 1.9 * rows + 0.3), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes in panels.flat[len(groups) :]:
        axes.set_axis_off()
    for number, (axes, group) in enumerate(zip(panels.flat, groups, strict=False)):
        curves = np.array(group.curves)  # [seeds, epochs]
        epochs = np.arange(1, curves.shape[1] + 1)
        colour = PALETTE[number % len(PALETTE)]
        axes.fill_between(epochs, curves.min(0), curves.max(0), color=colour, alpha=0.25, lw=0)
        axes.plot(epochs, curves.mean(0), "o-", color=colour, ms=3, lw=1.5)
        axes.set_title(group.variant, fontsize=9, color=INK)
        axes.set_ylim(0, 1)
        axes.set_xticks(epochs if len(epochs) <= 6 else epochs[:: -(-len(epochs) // 6)])
        _style(axes)
    figure.supxlabel("epoch", fontsize=9, color=INK)
    figure.supylabel("test accuracy", fontsize=9, color=INK)
    figure.suptitle(title, fontsize=10, color=INK)
    return _svg(figure)


def accuracy_against_costs(groups: Sequence[Group]) -> str:
    """Mean test accuracy over parameters, MACs and training memory, with bars of one deviation."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    quantities = (
        ("params", "parameters"),
        ("macs", "multiply-adds of an image"),
        ("train_bytes", "bytes, training step (XLA's plan)"),
    )
    for axes, (field, label) in zip(panels, quantities, strict=True):
        for number, group in enumerate(groups):
            x = getattr(group, field)
            if x is None:
                continue
            axes.errorbar(
                x,
                group.accuracy,
                yerr=group.accuracy_std,
                fmt="os^Dv<>P*X"[number % 10],
                color=PALETTE[number % len(PALETTE)],
                ms=6,
                capsize=3,
                label=group.variant,
            )
        axes.set_xlabel(label, fontsize=9, color=INK)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
        _style(axes)
    panels[0].set_ylabel("test accuracy", fontsize=9, color=INK)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=5,
        fontsize=8,
        frameon=False,
        labelcolor=INK,
    )
    return _svg(figure)


def ablation(groups: Sequence[Group]) -> str:
    """Mean test accuracy of the modern recipe and of each change to it, with every seed."""
    figure = Figure(figsize=(8, 0.5 + 0.42 * len(groups)), layout="constrained")
    axes = figure.subplots()
    names = [group.change or "as it is" for group in groups]
    axes.barh(names, [g.accuracy for g in groups], color=PALETTE[0], alpha=0.6, height=0.6)
    for i, group in enumerate(groups):
        finals = [curve[-1] for curve in group.curves]
        axes.plot(finals, [i] * len(finals), "|", color=PALETTE[1], ms=12, mew=2)
        axes.text(1.01, i, group.accuracy_text, va="center", fontsize=8, color=INK)
    axes.set_xlim(0, 1)
    axes.invert_yaxis()
    axes.set_xlabel("test accuracy; a stroke for each seed", fontsize=9, color=INK)
    _style(axes)
    return _svg(figure)


def _style(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(labelsize=8, colors=INK)


def _svg(figure: Figure) -> str:
    """The figure without a background, so that a page's own shows."""
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
