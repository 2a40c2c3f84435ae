"""Pictures: the sweep, as cost over batch size and image size and the roofline; the scale model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.speed.scale_model import Prediction

Row = dict[str, Any]


def draw_sweep(rows: Sequence[Row], path: Path) -> Path:
    """Three panels: ms an image over batch size, over image size, and GFLOP/s under the roof."""
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
        at = max((row for row in mine if row["swept"] == "batch_size"), key=_batch)
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


def _batch(row: Row) -> int:
    return row["batch_size"]


def _label(axes: Axes, x: str, y: str, log_x: bool) -> None:
    axes.set(xlabel=x, ylabel=y, ylim=(0, None))
    if log_x:
        axes.set_xscale("log", base=2)
    axes.grid(alpha=0.3)


def _draw_roof(axes: Axes, roof: Row, intensities: Sequence[float]) -> None:
    """Attainable rate = min(peak, intensity x bandwidth) (Williams et al. 2009)."""
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
    axes.set(xlabel="FLOP a byte moved, on paper", ylabel="GFLOP/s of direct convolution")
    axes.grid(alpha=0.3, which="both")


def draw_scale_model(
    weak: Mapping[str, Sequence[Sequence[Prediction]]],
    strong: Mapping[str, Sequence[Prediction]],
    path: Path,
) -> Path:
    """Two panels over the number of GPUs: efficiency as the batch grows, speed-up as it stays.

    Args:
        weak: of each variant, predictions as assumed and at the machine's roof.
        strong: of each variant, predictions for the same batch divided over ever more GPUs.
        path: of the PNG.
    """
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    figure.suptitle("H200 GPUs on paper: nothing is measured", fontsize=11)
    efficiency, speed_up = figure.subplots(1, 2)
    for number, variant in enumerate(weak):
        style = {"color": f"C{number}", "marker": "o", "markersize": 4}
        for found, line in zip(weak[variant], ("-", "--"), strict=False):
            label = f"{variant}, at {found[0].fraction:.0%} of the roof"
            x = [each.devices for each in found]
            efficiency.plot(x, [each.efficiency for each in found], line, **style, label=label)
        found = strong[variant]
        x = [each.devices for each in found]
        speed_up.plot(x, [found[0].step / each.step for each in found], **style, label=variant)
    ideal = [each.devices for each in next(iter(strong.values()))]
    speed_up.plot(ideal, ideal, color="0.6", linewidth=1, label="one GPU's time / GPUs")
    batch = next(iter(weak.values()))[0][0].work.batch_size
    _label(efficiency, f"GPUs, {batch:,} images on each", "compute / step", log_x=True)
    total = next(iter(strong.values()))[0].work.batch_size
    _label(speed_up, f"GPUs, {total:,} images in all", "times as fast as one", log_x=True)
    speed_up.set_yscale("log", base=2)
    for axes in (efficiency, speed_up):
        axes.set_xticks(ideal, [f"{n:,}" for n in ideal])
        axes.legend(fontsize=8)
    speed_up.set(ylim=(1, None))
    speed_up.set_yticks(ideal, [f"{n:,}" for n in ideal])
    figure.savefig(path, dpi=120)
    return path
