"""fit(): the whole run. It loads, restores or initializes, trains, evaluates and saves.

Everything that a user can get wrong is found before the first file is written.
"""

import contextlib
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax

from nin_jax.errors import RunError, UserError, one_line
from nin_jax.models.geometry import check_image_size
from nin_jax.models.variants import get_variant
from nin_jax.runs import (
    description,
    failure,
    manifest,
    multihost,
    resuming,
    workdir,
    writers,
)
from nin_jax.runs.agreement import agree, check_same, check_shared, in_all, is_first
from nin_jax.runs.checkpoint import Checkpoints
from nin_jax.runs.loop import train
from nin_jax.runs.preparation import Initial, Run, load_spec, prepare_run
from nin_jax.runs.progress import Progress, Recorder
from nin_jax.runs.save_check import check_saving
from nin_jax.runs.saving import Cadence, Saver
from nin_jax.runs.signals import Interruption
from nin_jax.runs.trained import read_weights
from nin_jax.training.config import TrainConfig, recipe_of
from nin_jax.training.device import (
    allow_cpu,
    keep_freed_memory,
    make_deterministic,
    select_device,
    use_compilation_cache,
)


def fit(config: TrainConfig) -> dict[str, Any]:
    """Train as the configuration says and return the run's summary.

    A run that is killed at any time and then resumed ends with the same numbers as a run without
    interruption. On Linux, glibc keeps freed memory in this process from then on
    (`nin_jax.training.device.keep_freed_memory`).

    Args:
        config: its recipe fills in the options that it leaves open.

    Returns:
        What ``summary.json`` holds.

    Raises:
        DivergedError: the loss or the gradient is not finite.
        UserError: an option or a file is wrong, or memory is too small.
        Interrupted: a signal was received; the run is saved and can be resumed.
        RunError: the start or the end of the run could not be saved.
    """
    started = time.perf_counter()
    check_image_size(get_variant(config.variant), recipe_of(config).image_size)
    Cadence.parse(config.checkpoint_every)
    make_deterministic(config.deterministic)
    keep_freed_memory()
    allow_cpu(config.device)
    multihost.join(config)
    with multihost.together():
        return _fit(config, started)


def _fit(config: TrainConfig, started: float) -> dict[str, Any]:
    """Check and prepare the run, then train in its locked folder."""
    agree(lambda: workdir.check(config))
    select_device(config.device)
    use_compilation_cache(config.compilation_cache)
    spec = in_all(lambda: load_spec(config))
    check_same(resuming.identity(spec))
    preprocessing = None
    if config.resume:
        assert config.workdir is not None  # see workdir.check
        agree(partial(resuming.check_same_run, config.workdir, spec))
        preprocessing = in_all(partial(manifest.read_run, config.workdir)).preprocessing
    initial = in_all(lambda: _initial_weights(config))
    check_same(resuming.digest(initial))
    run = in_all(lambda: prepare_run(spec, initial, preprocessing=preprocessing))
    folder = Path(agree(lambda: str(workdir.claim(config).absolute())))
    with Interruption() as interruption, contextlib.ExitStack() as stack:

        def lock() -> None:
            stack.enter_context(workdir.locked(folder))
            workdir.check(config)  # again: another process may have been faster

        agree(lock)
        check_shared(folder)
        with jax.set_mesh(run.layout.mesh):
            check_saving(folder, run)
            return _train_in(folder, run, started, interruption)


def _initial_weights(config: TrainConfig) -> Initial | None:
    """Return the weights of ``--init-from``; None without that option or if a checkpoint exists."""
    if config.init_from is None:
        return None
    if config.resume:
        assert config.workdir is not None  # see workdir.check
        if Checkpoints(config.workdir / workdir.CHECKPOINTS).names():
            return None
    return read_weights(config.init_from)


def _train_in(folder: Path, run: Run, started: float, interruption: Interruption) -> dict[str, Any]:
    """Train the prepared run in its own folder and write the summary."""
    checkpoints = Checkpoints(folder / workdir.CHECKPOINTS, run.config.keep_checkpoints)
    progress = _restore(folder, run, checkpoints)
    with contextlib.ExitStack() as stack:
        outputs = _open_writers(folder, run, stack)
        screen = writers.Screen(len(run.learning_rates), progress.step, quiet=not is_first())
        stack.enter_context(screen)
        screen.line(description.headline(run, folder, progress))
        recorder = Recorder(run, outputs, screen, progress, started)
        saver = Saver(run, recorder, outputs[0], checkpoints, folder)
        if not agree(lambda: bool(checkpoints.names())):
            saver.first_checkpoint()
        with failure.handled(saver):
            train(run, recorder, saver, interruption)
        saver.finish()
        if early := description.early_end(run, progress):
            screen.line(early)
        screen.line(f"wrote {folder}")
    summary = description.summary(run, recorder)
    if is_first():
        with one_line(f"training is done; {folder} cannot be written", raised=RunError):
            description.draw_curves(run, folder)
            manifest.write_json(folder / workdir.SUMMARY, summary)  # last: it marks the run as done
    return summary


def _restore(folder: Path, run: Run, checkpoints: Checkpoints) -> Progress:
    """Set the run to the state of its newest intact checkpoint; return its progress."""
    if is_first():
        checkpoints.clear_partial()
    metrics = folder / workdir.METRICS
    found = checkpoints.restore(run.state) if run.config.resume else None
    if found is None:
        if run.config.resume and agree(lambda: metrics.exists() and metrics.stat().st_size > 0):
            raise UserError(
                f"{folder} has metrics but no checkpoint, so the run cannot be resumed; start "
                "another one in a new --workdir"
            )
        return Progress()
    run.state, position = found
    try:
        progress, size = Progress(**position["progress"]), position["metrics_bytes"]
    except (KeyError, TypeError):
        raise UserError(f"the checkpoints of {folder} are of another version of nin_jax") from None
    early = description.early_end(run, progress)
    ended = early or progress.epochs >= run.recipe.epochs
    if ended and agree((folder / workdir.SUMMARY).exists):
        what = early or f"has its {progress.step} steps"
        length = "--epochs" if run.config.steps is None else "--steps"
        more = "--patience" if early else length
        raise UserError(f"nothing left to do: {folder} {what}; raise {more}")
    if is_first():
        with one_line(f"{metrics} cannot be written", raised=RunError):
            writers.cut(metrics, size)
    return progress


def _open_writers(folder: Path, run: Run, stack: contextlib.ExitStack) -> list[Any]:
    """Return the writers of metrics.jsonl and, in the process that owns the folder, TensorBoard.

    The stack closes them.
    """
    metrics = folder / workdir.METRICS if is_first() else Path(os.devnull)
    with one_line(f"{folder} cannot be written", raised=RunError):
        rows = stack.enter_context(contextlib.closing(writers.JsonlWriter(metrics)))
        if not is_first():
            return [rows]
        written = writers.read_metrics(metrics)  # an error if damaged, so before config.json
        manifest.write_config(folder, run, run.model.preprocessing)
        # That of fewer epochs would mark the run as done.
        (folder / workdir.SUMMARY).unlink(missing_ok=True)
        events = writers.TensorBoardWriter(folder / workdir.TENSORBOARD, written)
        return [rows, stack.enter_context(contextlib.closing(events))]
