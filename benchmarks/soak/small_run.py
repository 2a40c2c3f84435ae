"""A small run on the digits, in a process of its own, that the trials disturb."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nin_jax.models.convert import load_safetensors
from nin_jax.runs import workdir, writers

TRAIN = Path(__file__).resolve().parent.parent.parent / "scripts" / "train.py"
NETWORK = "dropout = 0.5\n[[stages]]\nchannels = 8\nkernel = 3\npadding = 1\n"
TIMES = ("seconds", "images_per_second", "time")  # these may differ between equal runs


@dataclass(frozen=True)
class SmallRun:
    """How to start the run.

    Attributes:
        scratch: folder for the variant's file and the compilation cache.
        options: further options of scripts/train.py.
    """

    scratch: Path
    options: tuple[str, ...]

    def start(self, folder: Path) -> subprocess.Popen[str]:
        """Start the run in a folder, or resume it if the folder has one."""
        network = self.scratch / "small.toml"
        if not network.exists():
            network.write_text(NETWORK, encoding="utf-8")
        resume = ["--resume"] if (folder / workdir.CONFIG).exists() else []
        fixed = ["--variant", str(network), "--dataset", "digits", "--image-size", "16"]
        command = [sys.executable, str(TRAIN), *fixed, *self.options, *resume]
        cache = {"JAX_COMPILATION_CACHE_DIR": str(self.scratch / "programs")}
        return subprocess.Popen(
            [*command, "--workdir", str(folder)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=cache | os.environ,
        )


def differences(folder: Path, other: Path) -> list[str]:
    """Return the differences of two finished runs, bit for bit, apart from times."""
    found = []
    weights, others = (load_safetensors(f / workdir.WEIGHTS) for f in (folder, other))
    if weights.keys() != others.keys():
        return ["the names of the weights"]
    found += [name for name in weights if not np.array_equal(weights[name], others[name])]
    rows = rows_of(folder), rows_of(other)
    if len(rows[0]) != len(rows[1]):
        found.append(f"{len(rows[0])} and {len(rows[1])} rows of metrics")
    found += [f"row {i}" for i, (a, b) in enumerate(zip(*rows, strict=False), start=1) if a != b]
    summaries = [json.loads((f / workdir.SUMMARY).read_text()) for f in (folder, other)]
    kept = ("test_accuracy", "test_loss", "train_loss", "best_epoch", "steps", "skipped_steps")
    return found + [name for name in kept if summaries[0][name] != summaries[1][name]]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Return a run's rows of metrics, without times."""
    rows = writers.read_metrics(folder / workdir.METRICS)
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]
