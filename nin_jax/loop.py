"""fit(): load, restore or initialise, train, evaluate, save.

The only file with side effects in a loop. Everything that a user can get wrong is found out
before the first file is written.
"""

import shlex
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nin_jax import failure, metrics, record, workdir
from nin_jax.checkpoint import Checkpoints
from nin_jax.config import TrainConfig, recipe_of
from nin_jax.device import make_deterministic, select_device, use_compilation_cache
from nin_jax.errors import Interrupted, RunError, UserError
from nin_jax.evaluation import Score, evaluate
from nin_jax.geometry import check_image_size, trace
from nin_jax.interruption import Interruption
from nin_jax.preparation import Run, epoch_order, load_data, prepare_run
from nin_jax.recorder import NotFinite, Progress, Recorder
from nin_jax.saving import Cadence, Saver
from nin_jax.tables import describe
from nin_jax.variants import get_variant


def fit(config: TrainConfig) -> dict[str, Any]:
    """Trains as the configuration says and returns the run's summary.

    A run that is killed at any moment and then resumed ends with the very numbers of the run that
    was left alone.

    Args:
        config: what it leaves open, its recipe fills in.

    Returns:
        What ``summary.json`` holds.

    Raises:
        UserError: anything given is wrong, the loss is no longer finite, or memory is short.
        Interrupted: a signal came; the run is saved and can be resumed.
        RunError: the end of the run could not be saved.
    """
    started = time.perf_counter()
    if config.workdir is not None:
        config = replace(config, workdir=Path(config.workdir))
    recipe = recipe_of(config)
    check_image_size(get_variant(config.variant), recipe.image_size)
    Cadence.parse(config.checkpoint_every)
    workdir.check(config)
    make_deterministic(config.deterministic)
    select_device(config.device)
    use_compilation_cache(config.compilation_cache)
    dataset = load_data(config)
    config = replace(config, dataset=dataset.name)
    if config.resume:
        assert config.workdir is not None
        record.check_same_run(config.workdir, config, recipe, dataset)
    run = prepare_run(config, recipe, dataset)
    folder = workdir.claim(config)
    with Interruption() as interruption, workdir.locked(folder):
        workdir.check(config)  # once more: another process may have been first
        return _fit_in(folder, run, started, interruption)


def _fit_in(folder: Path, run: Run, started: float, interruption: Interruption) -> dict[str, Any]:
    """The run proper, in a folder that is ours."""
    checkpoints = Checkpoints(folder / workdir.CHECKPOINTS, run.config.keep_checkpoints)
    progress = _restore(folder, run, checkpoints)
    try:
        record.write_config(folder, run.config, run.recipe, run.dataset)
        rows = metrics.JsonlWriter(folder / workdir.METRICS)
        written = metrics.read_metrics(folder / workdir.METRICS)
        events = metrics.TensorBoardWriter(folder / workdir.TENSORBOARD, written)
    except OSError as error:
        raise RunError(f"{folder} cannot be written: {error.strerror}") from None
    total = len(run.learning_rates)
    with closing(rows), closing(events), metrics.Screen(total, progress.step) as screen:
        screen.line(_headline(run, folder, progress))
        recorder = _recorder(run, progress, [rows, events], screen, started)
        saver = Saver(run, recorder, rows, checkpoints, folder)
        if not checkpoints.names():
            saver.checkpoint()
        with _what_ends_a_run(run, saver):
            _train(run, recorder, saver, interruption)
        saver.finish()
        screen.line(f"wrote {folder}")
    summary = _summary(run, recorder)
    try:
        _draw(run, folder)
        record.write_json(folder / workdir.SUMMARY, summary)  # last: with it the run is done
    except OSError as error:
        raise RunError(f"training is done; {folder} cannot be written: {error.strerror}") from None
    return summary


def _restore(folder: Path, run: Run, checkpoints: Checkpoints) -> Progress:
    """Puts the run where its newest intact checkpoint is; says how far that is."""
    checkpoints.clear_partial()
    rows = folder / workdir.METRICS
    found = checkpoints.restore(run.state) if run.config.resume else None
    if found is None:
        if run.config.resume and rows.exists() and rows.stat().st_size:
            raise UserError(
                f"{folder} has metrics but no checkpoint: the run cannot be resumed; start another "
                "in a new --workdir"
            )
        return Progress()
    run.state, position = found
    try:
        progress, size = Progress(**position["progress"]), position["metrics_bytes"]
    except (KeyError, TypeError):
        raise UserError(f"the checkpoints of {folder} are of another version of nin_jax") from None
    if progress.epochs >= run.recipe.epochs and (folder / workdir.SUMMARY).exists():
        raise UserError(
            f"nothing left to do: {folder} has its {progress.step} steps; raise --epochs"
        )
    metrics.cut(rows, size)
    return progress


def _recorder(run: Run, progress: Progress, writers, screen, started: float) -> Recorder:
    labels = run.dataset.train.labels
    return Recorder(
        writers,
        screen,
        steps_per_epoch=run.steps_per_epoch,
        epochs=run.recipe.epochs,
        learning_rates=run.learning_rates,
        chance=np.bincount(labels).max() / len(labels),
        remedy=_remedy(run),
        progress=progress,
        skip_nonfinite=run.config.skip_nonfinite,
        started=started,
    )


@contextmanager
def _what_ends_a_run(run: Run, saver: Saver) -> Iterator[None]:
    """What may happen in training, as the exception that tells the user of it."""
    try:
        try:
            yield
        except Interrupted as stop:
            saver.recorder.flush()
            raise Interrupted(stop.number, _saved(saver)) from None
    except NotFinite as found:
        kept = failure.write_nonfinite(saver.folder, run, found)
        raise UserError(failure.nonfinite_text(found, kept)) from None
    except jax.errors.JaxRuntimeError as error:
        if not failure.is_out_of_memory(error):
            raise
        raise UserError(
            failure.out_of_memory_text(run.recipe.batch_size, run.micro_batch_size)
        ) from None


def _saved(saver: Saver) -> str:
    step, folder = saver.recorder.progress.step, shlex.quote(str(saver.folder))
    if not saver.checkpoint():
        return f"step {step} could not be saved"
    return f"step {step} is saved; go on with --resume --workdir {folder}"


def _train(run: Run, recorder: Recorder, saver: Saver, interruption: Interruption) -> None:
    """Epoch by epoch, from wherever the run is, to its end."""
    train = jax.device_put((run.dataset.train.images, run.dataset.train.labels))
    test = jax.device_put((run.dataset.test.images, run.dataset.test.labels))
    progress = recorder.progress
    while progress.epochs < run.recipe.epochs:
        # Nothing travels between host and device but what says so: device_put and device_get.
        with jax.transfer_guard("disallow"):
            order = epoch_order(run, progress.epochs)
            while (left := (progress.epochs + 1) * run.steps_per_epoch - progress.step) > 0:
                _segment(run, recorder, saver, interruption, (*train, order), left)
            score = _evaluate(run, recorder, interruption, test)
        recorder.epoch(score)
        saver.weights()
        saver.checkpoint()
        interruption.check()


def _segment(
    run: Run,
    recorder: Recorder,
    saver: Saver,
    interruption: Interruption,
    arrays: tuple[jax.Array, ...],
    left: int,
) -> None:
    """Steps up to the next checkpoint within the epoch, or to the epoch's end."""
    step, end = recorder.progress.step, recorder.progress.step + left
    while step < end:
        count = min(end - step, run.steps_per_dispatch, saver.cadence.steps_left(step))
        run.state, figures = run.train_steps(run.state, *arrays, jax.device_put(np.int32(count)))
        step += count
        recorder.dispatched(count, figures)
        interruption.check()
        if step < end and saver.is_due(step):
            break
    recorder.flush()
    if step < end:
        with jax.transfer_guard("allow"):
            saver.checkpoint()


def _evaluate(
    run: Run, recorder: Recorder, interruption: Interruption, test: tuple[jax.Array, ...]
) -> Score:
    def progress(done: int, total: int) -> None:
        recorder.screen.evaluating(done, total)
        interruption.check()

    return evaluate(
        run.eval_step,
        run.state.params,
        *test,
        num_classes=run.model.num_classes,
        batch_size=run.micro_batch_size,
        progress=progress,
    )


def _summary(run: Run, recorder: Recorder) -> dict[str, Any]:
    layers = trace(run.model.variant, **run.geometry)
    kept = ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "images_per_second")
    return {
        "variant": run.model.variant.name,
        "recipe": run.config.recipe,
        "dataset": run.dataset.name,
        "image_size": list(run.model.image_size),
        "train_images": len(run.dataset.train.labels),
        "test_images": len(run.dataset.test.labels),
        "evaluated_on": "test images" if run.config.holdout is None else "held-out training images",
        "params": sum(layer.params for layer in layers),
        "macs_per_image": sum(layer.macs for layer in layers),
        "epochs": run.recipe.epochs,
        "steps": recorder.progress.step,
        **{key: recorder.progress.last_epoch[key] for key in kept},
        "best_epoch": recorder.progress.best,
        "skipped_steps": recorder.progress.skipped,
        "test_accuracy_per_class": recorder.progress.accuracy_per_class,
        "at_chance_after_first_epoch": recorder.progress.at_chance,
        "time_to_first_step_seconds": recorder.time_to_first_step,
        "device": record.device_name(),
    }


def _headline(run: Run, folder: Path, progress: Progress) -> str:
    resumed = f"\nresumed after step {progress.step}" if progress.step else ""
    config, dataset = run.config, run.dataset
    return (
        f"{describe(run.model.variant, **run.geometry)}\n"
        f"{dataset.name} ({dataset.source}): {len(dataset.train.labels):,} training and "
        f"{len(dataset.test.labels):,} test images; recipe {config.recipe}, batch "
        f"{run.recipe.batch_size} in parts of {run.micro_batch_size}, {len(run.learning_rates):,} "
        f"steps; {record.device_name()}; into {folder}{resumed}"
    )


def _remedy(run: Run) -> str:
    """What to do about a run that learns nothing."""
    if run.config.recipe == "d2l":
        return (
            "The published recipe starts very slowly and at high rates may never learn. Remedy: "
            f"--recipe modern, or a lower --lr (now {run.recipe.lr:g}), or more --epochs."
        )
    return "Remedy: more images or --epochs; if that does not help, another --lr or --seed."


def _draw(run: Run, folder: Path) -> None:
    from nin_jax.plotting import plot_curves  # matplotlib is slow to import

    height, width = run.model.image_size
    title = (
        f"{run.model.variant.name} on {run.dataset.name}, {len(run.dataset.train.labels):,} images "
        f"at {height}x{width}, recipe {run.config.recipe}"
    )
    plot_curves(metrics.read_metrics(folder / workdir.METRICS), title, folder / workdir.CURVES)
