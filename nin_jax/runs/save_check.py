"""Before training, write and read again a small file of each kind that the run will write."""

import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nin_jax.errors import RunError, UserError, reason
from nin_jax.runs import description, manifest, workdir
from nin_jax.runs.agreement import agree, is_first
from nin_jax.runs.checkpoint import Checkpoints
from nin_jax.runs.multihost import is_lost_peer
from nin_jax.runs.preparation import Run
from nin_jax.runs.writers import JsonlWriter, TensorBoardWriter, read_metrics
from nin_jax.training.sharding import EVERYWHERE, Layout
from nin_jax.training.step import TrainState
from nin_jax.writing import replacing

TRIAL = ".trial"


def check_saving(folder: Path, run: Run) -> None:
    """Check that the run can be saved into its folder and read again; leave no file there.

    Args:
        folder: the run's, which exists.
        run: the prepared run.

    Raises:
        UserError: a file cannot be written, or cannot be read.
        RunError: the same, in one of several processes.
    """
    trial, title = folder / TRIAL, description.title(run)
    try:
        agree(lambda: shutil.rmtree(trial, ignore_errors=True))  # of a process that was killed
        agree(lambda: _files(trial, title))
        _checkpoint(trial / workdir.CHECKPOINTS, run.layout)
    except RunError:
        raise
    except Exception as error:  # Orbax and TensorStore raise errors of any type
        if is_lost_peer(error):
            raise
        raise UserError(
            f"--workdir {folder} cannot hold a run: a small file could not be written and read "
            f"again ({reason(error)[:300]}): make room, or choose another folder"
        ) from None
    finally:
        if is_first():
            shutil.rmtree(trial, ignore_errors=True)


def _files(folder: Path, title: str) -> None:
    """Write what the first process writes: JSON, metrics, events, weights, a figure."""
    from matplotlib.figure import Figure  # slow to import
    from safetensors.numpy import load_file, save

    from nin_jax.plotting import literal_text

    folder.mkdir()
    manifest.write_json(folder / workdir.CONFIG, {"title": title})
    row = {"kind": "step", "step": 0, "time": 0.0, "train_loss": 0.0}
    with closing(JsonlWriter(folder / workdir.METRICS)) as rows:
        rows.write(row)
        rows.sync()
    with closing(TensorBoardWriter(folder / workdir.TENSORBOARD)) as events:
        events.write(row)
    read_metrics(folder / workdir.METRICS)
    with replacing(folder / workdir.WEIGHTS) as weights:
        weights.write_bytes(save({"weight": np.zeros(1, np.float32)}))
    load_file(folder / workdir.WEIGHTS)

    @literal_text
    def draw() -> None:
        figure = Figure(figsize=(1, 1))
        figure.suptitle(title)
        figure.savefig(folder / workdir.CURVES)

    draw()


def _checkpoint(folder: Path, layout: Layout) -> None:
    params: Any = {"weight": jnp.zeros(1)}
    state = TrainState(params, {}, jnp.zeros((), jnp.int32), jax.random.key(0))
    state = layout.place(state, EVERYWHERE)
    checkpoints = Checkpoints(folder)
    with _quiet():
        checkpoints.save(state, {"step": 0, "evaluated": False, "best": None, "progress": {}})
        checkpoints.restore(state)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the libraries' own reports of an error that becomes one line."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
