"""Result rows as tables, JSON, CSV and Markdown, and the figure of a sweep."""

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.work import Row
from nin_jax import tables
from nin_jax.runs.environment import cpu_model, device_name, versions

# The columns of each benchmark's table, and their short headings.
HEADINGS = {
    "variant": "variant",
    "task": "task",
    "batch_size": "batch",
    "image_size": "image",
    "precision": "our precision",
    "allocator": "allocator",
    "images": "images",
    "contender": "contender",
    "part": "part",
    "ms": "ms",
    "share": "share",
    "dataset": "dataset",
    "recipe": "recipe",
    "planned_epochs": "planned epochs",
    "target_accuracy": "target accuracy",
    "seconds": "seconds",
    "test_accuracy": "test accuracy",
    "devices": "devices",
    "parameters": "parameters",
    "collective": "collective",
    "count": "a step",
    "operand_bytes": "operand bytes",
    "parameter_bytes": "parameter bytes",
    "start": "start",
    "median_ms": "median ms",
    "min_ms": "min",
    "max_ms": "max",
    "images_per_second": "images/s",
    "peak_resident_mib": "peak MiB",
    "peak_device_mib": "device MiB",
    "first_step_seconds": "first step s",
    "order_ms_per_image": "order ms/image",
    "ms_per_image": "ms/image",
    "gflops": "GFLOP/s",
    "flop_per_byte": "FLOP/byte",
    "matmul_gflops": "matmul GFLOP/s",
    "copy_gb_per_s": "copy GB/s",
    "over_ours": "time over ours",
    "rival": "best rival",
    "best_rival_over_ours": "best rival / ours",
    "least_ratio": "least",
    "largest_ratio": "largest",
    "over_no_mesh": "time over no mesh",
    "host_cores_busy": "cores busy",
    "efficiency": "efficiency",
    "note": "note",
    "error": "error",
}

USUAL = {"image_size": 224, "precision": "float32"}


@cache
def header() -> dict[str, Any]:
    """Return what the results depend on: versions, device, threads, allocator settings."""
    return versions() | {
        "torch": version("torch"),
        "device": device_name(),
        "processor": cpu_model(),
        "torch_threads": torch.get_num_threads(),
        "torch_cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "malloc": {k: v for k, v in os.environ.items() if k.startswith(("MALLOC_", "GLIBC_TUN"))},
    }


def _columns(rows: Sequence[Row]) -> list[str]:
    """Return the columns with a value in any row, without those that have the usual one in all."""
    present = [name for name in HEADINGS if any(row.get(name) is not None for row in rows)]
    return [name for name in present if {row.get(name) for row in rows} != {USUAL.get(name)}]


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"
    return str(value)


def line(row: Row) -> str:
    """Return a row on one line, as progress."""
    return "  ".join(_text(row[name]) for name in ("benchmark", *HEADINGS) if name in row)


def _tables(rows: Iterable[Row], form: Callable[..., str]) -> Iterator[tuple[str, str]]:
    """Yield each benchmark's name and table, written by a function of `nin_jax.tables`."""
    sections: dict[str, list[Row]] = {}
    for row in rows:
        sections.setdefault(row["benchmark"], []).append(row)
    for name, section in sections.items():
        columns = _columns(section)
        numbers = [any(isinstance(r.get(c), int | float) for r in section) for c in columns]
        align: list[tables.Align] = ["right" if number else "left" for number in numbers]
        cells = [[_text(row.get(column)) for column in columns] for row in section]
        yield name, form([HEADINGS[column] for column in columns], cells, align)


def as_text(rows: Sequence[Row], head: dict[str, Any], command: str) -> str:
    """Return a table for each benchmark, after the command and the header, for a terminal."""
    parts = [f"{command}\n{_summary(head)}"]
    parts += [f"{name}\n\n{table}" for name, table in _tables(rows, tables.plain_text)]
    return "\n\n".join(parts) + "\n"


def as_markdown(rows: Sequence[Row], head: dict[str, Any], command: str) -> str:
    """Return the same in Markdown."""
    parts = [f"`{command}`", _summary(head)]
    parts += [f"## {name}\n\n{table}" for name, table in _tables(rows, tables.markdown)]
    return "\n\n".join(parts) + "\n"


def _summary(head: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in head.items() if value)


def as_json(rows: Sequence[Row], head: dict[str, Any], command: str) -> str:
    """Return rows, header and command as JSON."""
    return json.dumps({"command": command, "header": head, "rows": list(rows)}, indent=1) + "\n"


def as_csv(rows: Sequence[Row], head: dict[str, Any], command: str) -> str:
    """Return only the rows, with raw values and all columns that any row has."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


FORMATS = {"table": as_text, "json": as_json, "csv": as_csv, "markdown": as_markdown}


def write(folder: Path, rows: Sequence[Row], head: dict[str, Any], command: str) -> list[Path]:
    """Write results.json, results.csv and results.md, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"json": as_json, "csv": as_csv, "md": as_markdown}
    for ending, form in files.items():
        path = folder / f"results.{ending}"
        path.write_text(form(rows, head, command), encoding="utf-8")
    return [folder / f"results.{ending}" for ending in files]


def draw(folder: Path, rows: Sequence[Row]) -> list[Path]:
    """Write the figure of a sweep if there was one, and return its path."""
    if not any(row["benchmark"] == "sweep" for row in rows):
        return []
    from benchmarks.speed.figures import draw_sweep  # matplotlib is slow to import

    return [draw_sweep(rows, folder / "sweep.png")]
