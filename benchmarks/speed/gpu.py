"""Check on a GPU whether our defaults are the fastest settings, and whether we beat PyTorch.

The defaults are ten steps per dispatch, whole batches and resident images. Products in TF32 are
also compared with float32 products, which are more exact: TF32 is the default only because it is
faster.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

import jax
import numpy as np
import torch

from benchmarks.speed.contenders import against_rivals, compared
from benchmarks.speed.pipelines import nin_jax_epoch
from benchmarks.speed.plan import MAIN, Plan
from benchmarks.speed.work import OURS, Call, Row, Work, random_pixels
from nin_jax.errors import UserError
from nin_jax.runs import preparation
from nin_jax.training.device import default_device, use_compilation_cache

LAST_START_SECONDS = 420  # no part starts later: all of it should end within ten minutes
EPOCH_IMAGES = 10_240
MARGIN = 0.97  # a setting that takes less than this part of our time is faster than the default

# The options of scripts/train.py whose other values are tried.
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "1 step per dispatch": {"steps_per_dispatch": 1},
    "40 steps per dispatch": {"steps_per_dispatch": 40},
    "micro-batches of 64": {"micro_batch_size": 64},
    "micro-batches of 16": {"micro_batch_size": 16},
}
STREAMED = "streamed images, 10 steps at a time"
EXACT = "float32 products without TF32"


def check() -> None:
    """Check that JAX and PyTorch compute on a GPU, and make the benchmark's processes use it.

    Raises:
        UserError: one of them does not.
    """
    platform = default_device().platform
    if platform != "gpu":
        raise UserError(f"the benchmark gpu needs a GPU, and JAX computes on the {platform}")
    if not torch.cuda.is_available():
        raise UserError("the benchmark gpu needs a build of PyTorch for the GPU; this one has none")
    os.environ.setdefault("JAX_PLATFORMS", "cuda,cpu")  # an error rather than the CPU
    # XLA tries out the forms of an operation once, not in each process.
    use_compilation_cache(True)
    if folder := jax.config.values["jax_compilation_cache_dir"]:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder


def measure(plan: Plan) -> Iterator[Row]:
    """On a GPU, time a step and a batch against PyTorch, then an epoch with other settings.

    A part for which no time is left has a row with an error.
    """
    start = time.monotonic()
    precisions = ("float32", "bfloat16")
    works = [w for p in precisions for w in replace(plan, precision=p).works("train", MAIN, 128)]
    steps = [replace(work, task=task) for work in works for task in ("train", "predict")]
    epochs = [replace(work, in_channels=1) for work in works]
    parts = [(against_rivals, work) for work in steps] + [(_epochs, work) for work in epochs]
    for part, work in parts:
        if time.monotonic() - start < LAST_START_SECONDS:
            yield from part(plan, work)
        else:
            name = "gpu" if part is _epochs else work.task
            late = {"benchmark": name, "contender": OURS, "error": "not measured: no time was left"}
            yield work.row() | late


def _epochs(plan: Plan, work: Work) -> Iterator[Row]:
    few = replace(plan, rounds=min(plan.rounds, 3))
    found = contenders(work, *random_pixels(EPOCH_IMAGES))
    return compared(few, work, "gpu", found, EPOCH_IMAGES)


def contenders(work: Work, images: np.ndarray, labels: np.ndarray) -> dict[str, Callable[[], Call]]:
    """Return functions that build an epoch with the default settings and with each other one."""
    build = partial(nin_jax_epoch, work, images, labels)
    found: dict[str, Callable[[], Call]] = {OURS: build}
    for name, options in SETTINGS.items():
        if options.get("micro_batch_size", 0) < work.batch_size:  # else it is the default
            found[name] = partial(build, **options)
    # With so few images, one chunk would hold the whole epoch.
    chunks = partial(patch.object, preparation, "CHUNK_BYTES", 0)
    found[STREAMED] = lambda: _inside(chunks, build(feed="stream"))
    if work.precision == "float32":
        exact = partial(jax.default_matmul_precision, "highest")
        found[EXACT] = lambda: _inside(exact, build())
    return found


def _inside(context: Callable[[], AbstractContextManager[Any]], epoch: Call) -> Call:
    def call() -> None:
        with context():
            epoch()

    return call


def defeats(rows: Iterable[Row]) -> Iterator[str]:
    """Yield a text for each row in which PyTorch or another setting wins, or a contender fails.

    Another setting wins if it is faster in every round: the epochs are short and few.
    """
    for row in rows:
        what = "{benchmark} {variant} {batch_size} {precision}".format_map(row)
        if "error" in row:
            yield f"{what}, {row['contender']}: {row['error']}"
        if row.get("best_rival_over_ours", 1) < 1:
            yield f"{what}: {row['best_rival']} takes {row['best_rival_over_ours']} of our time"
        if row.get("over_ours", 1) < MARGIN and row["largest_ratio"] < 1:
            yield f"{what}: {row['contender']} takes {row['over_ours']} of the default's time"
