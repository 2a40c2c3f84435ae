"""Figures of what networks cost."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from nin_jax.accounting.account import Account
from nin_jax.plotting import PALETTE, TEST, TRAIN, literal_text

COLORS = [color for color in PALETTE if color != "#F0E442"]  # yellow outlines are faint
MARKERS = "os^Dv<>p*h"


@literal_text
def plot_layers(account: Account, path: Path) -> None:
    """Plot the parameters and MACs of each layer with parameters, as bars.

    Args:
        account: of one network.
        path: of the PNG file.
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
    for axes, (field, label, color) in zip((left, right), quantities, strict=True):
        values = [getattr(cost, field) for cost in costs]
        bars = axes.barh(names, values, color=color)
        shares = [f" {value / sum(values):.1%}" for value in values]
        axes.bar_label(bars, shares, fontsize=8)
        axes.set_xlabel(label)
        axes.set_xlim(0, 1.18 * max(values))
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="y", labelsize=8)
    left.invert_yaxis()
    figure.savefig(path)


@literal_text
def plot_variants(accounts: Sequence[Account], path: Path) -> None:
    """Plot parameters against MACs; the area of a circle is the memory of a training step.

    Args:
        accounts: of the networks, for the same batch size.
        path: of the PNG file, whose description also names the networks.
    """
    figure = Figure(figsize=(9, 5.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    memory = [account.memory["train"].paper.total_bytes for account in accounts]
    for number, (account, each) in enumerate(zip(accounts, memory, strict=True)):
        at, color = (account.params, account.macs), COLORS[number % len(COLORS)]
        area = 2600 * each / max(memory)  # points squared
        axes.scatter(*at, s=area, facecolor=f"{color}22", edgecolor="0.6", lw=0.6)
        # Outlines, so that networks with nearly the same costs are all visible.
        axes.plot(
            *at,
            MARKERS[number % len(MARKERS)],
            color=color,
            fillstyle="none",
            ms=8,
            label=f"{account.variant}, {each / 2**20:,.0f} MiB",
        )
    axes.set_xlabel("parameters (logarithmic)")
    axes.set_ylabel("MACs of one image (logarithmic)")
    # Logarithmic, because most networks cost nearly the same and a few cost far more.
    axes.set(xscale="log", yscale="log")
    axes.margins(0.15)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        axis.set_major_formatter(EngFormatter(sep=" "))
        axis.set_minor_locator(NullLocator())
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    title = f"area: memory of a training step,\n{accounts[0].batch_size} images, on paper"
    figure.legend(title=title, loc="outside right center", frameon=False)
    names = ", ".join(account.variant for account in accounts)
    figure.savefig(path, metadata={"Description": names})
