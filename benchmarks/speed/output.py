"""Rows as tables, JSON, CSV and Markdown, and the pictures of a sweep."""

import csv
import io
import json
import os
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from nin_jax.runs.manifest import device_name, versions

Row = dict[str, Any]

# The columns of each benchmark's table, and their short headings.
HEADINGS = {
    "variant": "variant",
    "task": "task",
    "batch_size": "batch",
    "image_size": "image",
    "images": "images",
    "contender": "contender",
    "dataset": "data set",
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
    "best_rival_over_ours": "best rival / ours",
    "over_no_mesh": "time over no mesh",
    "host_cores_busy": "cores busy",
    "efficiency": "efficiency",
    "note": "note",
    "error": "error",
}


def header() -> dict[str, Any]:
    """What the figures depend on: versions, device, threads."""
    return versions() | {
        "torch": version("torch"),
        "device": device_name(),
        "processor": _processor(),
        "torch_threads": torch.get_num_threads(),
        "torch_cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "malloc": {k: v for k, v in os.environ.items() if k.startswith(("MALLOC_", "GLIBC_TUN"))},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _sections(rows: Iterable[Row]) -> dict[str, list[Row]]:
    sections: dict[str, list[Row]] = {}
    for row in rows:
        sections.setdefault(row["benchmark"], []).append(row)
    return sections


def _columns(rows: Sequence[Row]) -> list[str]:
    """Those that say something: present, and not the published image size all over."""
    present = [name for name in HEADINGS if any(row.get(name) is not None for row in rows)]
    published = {row.get("image_size") for row in rows} == {224}
    return [name for name in present if not (name == "image_size" and published)]


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"
    return str(value)


def _is_number(rows: Sequence[Row], column: str) -> bool:
    return any(isinstance(row.get(column), int | float) for row in rows)


def line(row: Row) -> str:
    """A row on one line, for those who watch."""
    return "  ".join(_text(row[name]) for name in ("benchmark", *HEADINGS) if name in row)


def print_tables(rows: Sequence[Row]) -> None:
    """A table a benchmark, on standard output."""
    console = Console(soft_wrap=True)
    if not console.is_terminal:
        console.width = 160
    for name, section in _sections(rows).items():
        table = Table(title=name, title_justify="left")
        columns = _columns(section)
        for column in columns:
            justify = "right" if _is_number(section, column) else "left"
            table.add_column(HEADINGS[column], justify=justify)
        for row in section:
            table.add_row(*(_text(row.get(column)) for column in columns))
        console.print(table)


def markdown(rows: Sequence[Row], head: dict[str, Any], command: str) -> str:
    """The tables in Markdown, with the command and what the figures depend on."""
    parts = [f"`{command}`", ", ".join(f"{k} {v}" for k, v in head.items() if v)]
    for name, section in _sections(rows).items():
        columns = _columns(section)
        rule = ["---:" if _is_number(section, c) else "---" for c in columns]
        cells = [[HEADINGS[c] for c in columns], rule]
        cells += [[_text(row.get(c)) for c in columns] for row in section]
        lines = [f"| {' | '.join(line)} |" for line in cells]
        parts.append(f"## {name}\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def as_json(rows: Sequence[Row], head: dict[str, Any], command: str) -> str:
    return json.dumps({"command": command, "header": head, "rows": list(rows)}, indent=1) + "\n"


def as_csv(rows: Sequence[Row]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write(folder: Path, rows: Sequence[Row], head: dict[str, Any], command: str) -> list[Path]:
    """results.json, .csv and .md, and the sweep's pictures if there was one."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "results.json": as_json(rows, head, command),
        "results.csv": as_csv(rows),
        "results.md": markdown(rows, head, command),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    written = [folder / name for name in texts]
    if any(row["benchmark"] == "sweep" for row in rows):
        from benchmarks.speed.figures import draw_sweep  # matplotlib is slow to import

        written.append(draw_sweep(rows, folder / "sweep.png"))
    return written
