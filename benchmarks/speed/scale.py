"""A step by one device and by many, each part in a process of its own.

A CPU is one device unless JAX is told otherwise before it is imported; then it is several virtual
ones, on the same cores. Where there are GPUs, they are the devices, and the same rows are the real
thing.
"""

import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Literal

from benchmarks.speed.probe import answer
from benchmarks.speed.work import Work

Part = Literal["mesh overhead", "weak scaling"]
PARTS: tuple[Part, ...] = ("mesh overhead", "weak scaling")
VIRTUAL_DEVICES = 8


def measure(part: Part, work: Work, rounds: int) -> Iterator[dict[str, Any]]:
    """The rows of a part; of weak scaling also those of communication.

    Args:
        part: "mesh overhead": one device with and without a mesh. "weak scaling": 1, 2, 4, ...
            devices, with the work's batch on each.
        work: a training step.
        rounds: interleaved rounds.
    """
    environment = _virtual(VIRTUAL_DEVICES) if part == "weak scaling" else {}
    request = {"part": part, "work": asdict(work), "rounds": rounds}
    rows = answer("benchmarks.speed.scale_probe", request, environment)
    if isinstance(rows, dict):  # of an error
        rows = [work.row() | {"benchmark": part} | rows]
    yield from rows


def _virtual(count: int) -> dict[str, str]:
    """The environment in which a CPU is so many devices; a GPU stays what it is."""
    flags = os.environ.get("XLA_FLAGS", "")
    return {"XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={count}".strip()}
