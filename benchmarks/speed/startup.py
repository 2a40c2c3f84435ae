"""How long a user waits for the first step of `scripts/train.py`: from the shell to its line."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TRAIN = Path(__file__).resolve().parent.parent.parent / "scripts" / "train.py"


def first_step(variant: str, batch_size: int, image_size: int) -> Iterator[dict[str, Any]]:
    """A row for a first start, with an empty compilation cache, and one for a second."""
    with tempfile.TemporaryDirectory() as scratch:
        for start in ("cold", "cached"):
            seconds = _seconds_to_first_step(Path(scratch), start, variant, batch_size, image_size)
            yield {
                "benchmark": "startup",
                "variant": variant,
                "batch_size": batch_size,
                "image_size": image_size,
                "contender": "nin_jax",
                "start": start,
                "first_step_seconds": round(seconds, 2),
            }


def _seconds_to_first_step(
    scratch: Path, name: str, variant: str, batch_size: int, image_size: int
) -> float:
    command = [sys.executable, str(TRAIN), "--variant", variant, "--dataset", "digits"]
    command += ["--image-size", str(image_size), "--batch-size", str(batch_size)]
    command += ["--limit-train", str(batch_size), "--limit-test", "1", "--epochs", "1"]
    command += ["--workdir", str(scratch / name)]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(scratch / "cache")}
    start = time.perf_counter()
    with subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        seconds = None
        for line in process.stdout:
            if seconds is None and line.startswith("first step"):
                seconds = time.perf_counter() - start
        complaint = process.stderr.read().strip()
    if seconds is None:
        raise RuntimeError(complaint.splitlines()[-1] if complaint else "no first step")
    return seconds
