"""scripts/train.py in several real processes, and the same run on one device for comparison."""

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from benchmarks.soak.small_run import rows_of
from nin_jax.models import convert
from nin_jax.runs import workdir
from nin_jax.runs.fit import fit
from nin_jax.training.config import TrainConfig
from parity_tests.tolerances import LAYOUT

# Few layers, as every process compiles the step again; channels that eight devices can divide.
NETWORK = """
dropout = 0.5
[[stages]]
channels = 8
kernel = 3
padding = 1
mlp = []
"""
ROOT = Path(__file__).resolve().parent.parent.parent
STEPS = 22  # two epochs of 11; the last batch has 10 images
BOUND = LAYOUT["float32"]
LOST_WITHIN = 60.0  # seconds


class Ended(NamedTuple):
    """A process that has ended, so many seconds after the first one."""

    code: int
    out: str
    err: str
    seconds: float


def options(folder: Path) -> dict[str, object]:
    path = folder / "tiny.toml"
    if not path.exists():
        path.write_text(NETWORK)
    return {
        "variant": str(path),
        "recipe": "modern",
        "dataset": "digits",
        "image_size": 16,
        "batch_size": 50,
        "epochs": 2,
        "limit_train": 510,
        "limit_test": 101,  # prime, so no number of devices divides it
        "augment": "flip_shift",
        "checkpoint_every": "7",
        # With Muon the float32 runs of two layouts diverge from the first rounding: docs/scale.md.
        "optimizer": "sgd",
        "lr": 0.03,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "init": "he",
    }


@pytest.fixture(scope="session")
def alone(made_once) -> Path:
    """The folder of the run on one device."""

    def train(folder: Path) -> None:
        fit(TrainConfig(**options(folder), workdir=folder / "run"))  # type: ignore[arg-type]

    return made_once("alone", train) / "run"


def run(
    folder: Path,
    count: int = 1,
    *more: str,
    devices: int = 1,
    signals: dict[int, tuple[int | str, int]] | None = None,
    resume: bool = True,
    only: dict[int, list[str]] | None = None,
) -> list[Ended]:
    """Run the training in several processes to its end.

    Args:
        folder: its subfolder ``run`` is the workdir.
        count: number of processes.
        more: further options.
        devices: number of devices of each process.
        signals: by process, WHERE and WHAT of `tests.support.one_process`.
        resume: resume the run if there is one.
        only: by process, options that the others do not have.
    """
    command = ["--workdir", str(folder / "run")]
    for name, value in options(folder).items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    command += more
    if resume and (folder / "run").exists():
        command.append("--resume")
    if count > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command += ["--distributed", "--coordinator", f"127.0.0.1:{port}"]
        command += ["--processes", str(count)]
    shared = os.environ.get("XLA_FLAGS", "")
    flags = {"XLA_FLAGS": f"{shared} --xla_force_host_platform_device_count={devices}"}

    def end_of(index: int) -> Ended:
        where, what = (signals or {}).get(index, (0, 0))
        its = ["--process-index", str(index)] if count > 1 else []
        its += (only or {}).get(index, [])
        start = [sys.executable, "-m", "tests.support.one_process", str(where), str(int(what))]
        done = subprocess.run(
            [*start, *command, *its],
            cwd=ROOT,
            env=os.environ | flags,
            capture_output=True,
            text=True,
            timeout=300,
        )
        return Ended(done.returncode, done.stdout, done.stderr, time.monotonic())

    with ThreadPoolExecutor(count) as threads:
        ended = list(threads.map(end_of, range(count)))
    first = min(each.seconds for each in ended)
    return [each._replace(seconds=each.seconds - first) for each in ended]


def assert_like(folder: Path, alone: Path) -> None:
    """Check that the run has the results of the one on one device, up to rounding."""
    rows, wanted = (rows_of(each) for each in (folder / "run", alone))
    assert [(row["kind"], row["step"]) for row in rows] == [
        (row["kind"], row["step"]) for row in wanted
    ]
    for row, expected in zip(rows, wanted, strict=True):
        for name, value in expected.items():
            if isinstance(value, float):
                assert abs(row[name] - value) < BOUND, (row["step"], name)
    weights, others = (
        convert.load_safetensors(each / workdir.WEIGHTS) for each in (folder / "run", alone)
    )
    for name in others:
        assert np.abs(weights[name] - others[name]).max() < BOUND, name


def lost(left: Ended) -> bool:
    """Return whether a process ended soon, with one line, because another one was gone.

    If JAX's service notices first, it aborts the process with a message of its own.
    """
    assert "Traceback" not in left.err
    if left.code == -signal.SIGABRT:
        return "another task died" in left.err and left.seconds < LOST_WITHIN
    # JAX's log, written by another thread, may come before or after our line.
    line = next(line for line in left.err.splitlines() if line.startswith("error: "))
    assert "another process of the run is gone" in line
    assert "--resume" in line
    return left.code == 1 and left.seconds < LOST_WITHIN
