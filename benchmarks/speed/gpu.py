"""What decides on a GPU: our defaults against other settings, and against PyTorch.

A default is right if no other setting is faster: ten steps a dispatch, whole batches, resident
images. Products in TF32 are compared with float32 ones, which are more exact.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from benchmarks.speed.pipelines import nin_jax_epoch
from benchmarks.speed.work import OURS, Call, Row, Work
from nin_jax.errors import UserError
from nin_jax.training.device import default_device

EPOCH_IMAGES = 10_240
MARGIN = 0.97  # a setting that takes less than this part of our time is faster than the default

# The options of scripts/train.py that a GPU's defaults leave out.
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "1 step a dispatch": {"steps_per_dispatch": 1},
    "40 steps a dispatch": {"steps_per_dispatch": 40},
    "micro-batches of 64": {"micro_batch_size": 64},
    "micro-batches of 16": {"micro_batch_size": 16},
    "streamed images": {"feed": "stream"},
}
EXACT = "float32 products without TF32"


def check() -> None:
    """Check that JAX computes on a GPU.

    Raises:
        UserError: it does not.
    """
    platform = default_device().platform
    if platform not in ("gpu", "cuda", "rocm"):
        raise UserError(f"the benchmark gpu needs a GPU, and JAX computes on the {platform}")


def contenders(work: Work, images: np.ndarray, labels: np.ndarray) -> dict[str, Callable[[], Call]]:
    """Return functions that build an epoch with the default settings and with each other one."""
    build = partial(nin_jax_epoch, work, images, labels)
    found: dict[str, Callable[[], Call]] = {OURS: build}
    found |= {name: partial(build, **options) for name, options in SETTINGS.items()}
    if work.precision == "float32":
        found[EXACT] = lambda: _exact(build())
    return found


def _exact(epoch: Call) -> Call:
    def call() -> None:
        with jax.default_matmul_precision("highest"):
            epoch()

    return call


def defeats(rows: Iterable[Row]) -> Iterator[str]:
    """Yield a line for each row in which PyTorch or another setting wins, or we fail."""
    for row in rows:
        what = "{benchmark} {variant} {batch_size} {precision}".format_map(row)
        if row["contender"] == OURS and "error" in row:
            yield f"{what}: {row['error']}"
        if (ratio := row.get("best_rival_over_ours", 1)) < 1:
            yield f"{what}: {row['best_rival']} takes {ratio} of our time"
        if (ratio := row.get("over_ours", 1)) < MARGIN:
            yield f"{what}: {row['contender']} takes {ratio} of the default's time"
