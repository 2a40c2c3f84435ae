"""The figure of a sweep: cost over batch size, cost over image size, and the roofline."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.speed.work import Row


def draw_sweep(rows: Sequence[Row], path: Path) -> Path:
    """Draw three panels: ms an image over batch size and over image size, and the roofline."""
    swept = [row for row in rows if row["benchmark"] == "sweep" and "gflops" in row]
    (roof,) = [row for row in rows if row["benchmark"] == "roof"]
    variants = list(dict.fromkeys(row["variant"] for row in swept))
    figure = Figure(figsize=(15, 4.6), layout="constrained")
    by_batch, by_image, under_roof = figure.subplots(1, 3)
    for number, variant in enumerate(variants):
        style = {"color": f"C{number}", "marker": "o", "markersize": 4, "label": variant}
        mine = [row for row in swept if row["variant"] == variant]
        for axes, column in ((by_batch, "batch_size"), (by_image, "image_size")):
            line = sorted(
                (row[column], row["ms_per_image"]) for row in mine if row["swept"] == column
            )
            axes.plot(*zip(*line, strict=True), **style)
        by_size = [row for row in mine if row["swept"] == "batch_size"]
        at = max(by_size, key=lambda row: row["batch_size"])
        under_roof.scatter(at["flop_per_byte"], at["gflops"], color=f"C{number}", zorder=3)
        under_roof.annotate(
            variant,
            (at["flop_per_byte"], at["gflops"]),
            (4, 4 - 9 * (number % 3)),
            textcoords="offset points",
            fontsize=8,
        )
    _label(by_batch, "batch size", "training step: ms an image", log_x=True)
    _label(by_image, "image side in pixels", "training step: ms an image", log_x=False)
    _draw_roof(under_roof, roof, [row["flop_per_byte"] for row in swept])
    by_batch.legend(fontsize=8)
    figure.savefig(path, dpi=120)
    return path


def _label(axes: Axes, x: str, y: str, log_x: bool) -> None:
    axes.set(xlabel=x, ylabel=y, ylim=(0, None))
    if log_x:
        axes.set_xscale("log", base=2)
    axes.grid(alpha=0.3)


def _draw_roof(axes: Axes, roof: Row, intensities: Sequence[float]) -> None:
    """Draw the attainable rate, min(peak, intensity x bandwidth) (Williams et al. 2009)."""
    peak, bandwidth = roof["matmul_gflops"], roof["copy_gb_per_s"]
    ridge = peak / bandwidth
    x = np.geomspace(min(ridge, *intensities) / 4, 4 * max(ridge, *intensities), 200)
    axes.loglog(x, np.minimum(peak, x * bandwidth), color="0.3")
    axes.text(
        x[-1], peak, f"matrix product {peak:.0f} GFLOP/s ", ha="right", va="bottom", fontsize=8
    )
    axes.text(
        x[8], x[8] * bandwidth, f"  copy {bandwidth:.0f} GB/s", ha="left", va="top", fontsize=8
    )
    axes.set(xlabel="FLOP a byte moved, on paper", ylabel="GFLOP/s, counted as direct convolution")
    axes.grid(alpha=0.3, which="both")
