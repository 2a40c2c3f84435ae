"""fit(): load, restore or initialise, train, evaluate, save.

Everything that a user can get wrong is found out before the first file is written.
"""

import contextlib
import shlex
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax

from nin_jax.errors import Interrupted, RunError, UserError
from nin_jax.models.geometry import check_image_size, trace
from nin_jax.models.summary import describe
from nin_jax.models.variants import get_variant
from nin_jax.runs import failure, manifest, multihost, workdir, writers
from nin_jax.runs.checkpoint import Checkpoints
from nin_jax.runs.loop import train
from nin_jax.runs.multihost import agree, in_all, is_first
from nin_jax.runs.preparation import Run, load_data, prepare_run, with_steps
from nin_jax.runs.progress import NotFinite, Progress, Recorder
from nin_jax.runs.saving import Cadence, Saver
from nin_jax.runs.signals import Interruption
from nin_jax.runs.trained import read_weights
from nin_jax.training.config import Recipe, TrainConfig, recipe_of
from nin_jax.training.device import make_deterministic, select_device, use_compilation_cache


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
    make_deterministic(config.deterministic)
    multihost.join(config)
    with multihost.together():
        return _fit(config, recipe, started)


def _fit(config: TrainConfig, recipe: Recipe, started: float) -> dict[str, Any]:
    """In a process that has joined the others, if there are any."""
    agree(lambda: workdir.check(config))
    select_device(config.device)
    use_compilation_cache(config.compilation_cache)
    dataset = in_all(lambda: load_data(config))
    config = replace(config, dataset=dataset.name)
    recipe = with_steps(recipe, config.steps, len(dataset.train))
    multihost.check_same(manifest.identity(config, recipe, dataset))
    if config.resume:
        assert config.workdir is not None
        agree(partial(manifest.check_same_run, config.workdir, config, recipe, dataset))
    initial = in_all(lambda: _initial_weights(config))
    run = in_all(lambda: prepare_run(config, recipe, dataset, initial))
    folder = Path(agree(lambda: str(workdir.claim(config).absolute())))
    with Interruption() as interruption, contextlib.ExitStack() as stack:

        def claim() -> None:
            stack.enter_context(workdir.locked(folder))
            workdir.check(config)  # once more: another process may have been first

        agree(claim)
        multihost.check_shared(folder)
        with jax.set_mesh(run.layout.mesh):
            return _fit_in(folder, run, started, interruption)


def _initial_weights(config: TrainConfig) -> dict[str, Any] | None:
    """What --init-from names; None if it is not given, or a checkpoint holds what came of it."""
    if config.init_from is None:
        return None
    if config.resume and config.workdir is not None:
        checkpoints = Checkpoints(config.workdir / workdir.CHECKPOINTS)
        if checkpoints.names():
            return None
    return read_weights(config.init_from)


def _fit_in(folder: Path, run: Run, started: float, interruption: Interruption) -> dict[str, Any]:
    """The run proper, in a folder that is ours."""
    checkpoints = Checkpoints(folder / workdir.CHECKPOINTS, run.config.keep_checkpoints)
    progress = _restore(folder, run, checkpoints)
    outputs = _open_writers(folder, run)
    total = len(run.learning_rates)
    with contextlib.ExitStack() as stack:
        for writer in outputs:
            stack.enter_context(contextlib.closing(writer))
        screen = stack.enter_context(writers.Screen(total, progress.step, not is_first()))
        screen.line(_headline(run, folder, progress))
        recorder = _recorder(run, progress, outputs, screen, started)
        saver = Saver(run, recorder, outputs[0], checkpoints, folder)
        if not agree(lambda: bool(checkpoints.names())):
            saver.checkpoint()
        with _what_ends_a_run(run, saver):
            train(run, recorder, saver, interruption)
        saver.finish()
        screen.line(f"wrote {folder}")
    summary = _summary(run, recorder)
    if not is_first():
        return summary
    try:
        _draw(run, folder)
        manifest.write_json(folder / workdir.SUMMARY, summary)  # last: with it the run is done
    except OSError as error:
        raise RunError(f"training is done; {folder} cannot be written: {error.strerror}") from None
    return summary


def _restore(folder: Path, run: Run, checkpoints: Checkpoints) -> Progress:
    """Puts the run where its newest intact checkpoint is; says how far that is."""
    if is_first():
        checkpoints.clear_partial()
    rows = folder / workdir.METRICS
    found = checkpoints.restore(run.state) if run.config.resume else None
    if found is None:
        if run.config.resume and agree(lambda: rows.exists() and rows.stat().st_size > 0):
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
    if progress.epochs >= run.recipe.epochs and agree((folder / workdir.SUMMARY).exists):
        raise UserError(
            f"nothing left to do: {folder} has its {progress.step} steps; raise --epochs"
        )
    if is_first():
        writers.cut(rows, size)
    return progress


def _open_writers(folder: Path, run: Run) -> list[Any]:
    """metrics.jsonl and TensorBoard's events, in the process that writes them."""
    if not is_first():
        return [writers.Nowhere()]
    try:
        manifest.write_config(folder, run.config, run.recipe, run.dataset)
        rows = writers.JsonlWriter(folder / workdir.METRICS)
        written = writers.read_metrics(folder / workdir.METRICS)
        return [rows, writers.TensorBoardWriter(folder / workdir.TENSORBOARD, written)]
    except OSError as error:
        raise RunError(f"{folder} cannot be written: {error.strerror}") from None


def _recorder(run: Run, progress: Progress, outputs, screen, started: float) -> Recorder:
    return Recorder(
        outputs,
        screen,
        steps_per_epoch=run.steps_per_epoch,
        epochs=run.recipe.epochs,
        learning_rates=run.learning_rates,
        chance=run.dataset.train.chance(run.dataset.num_classes),
        class_names=run.dataset.class_names,
        remedies=_remedies(run),
        progress=progress,
        skip_nonfinite=run.config.skip_nonfinite,
        started=started,
    )


@contextlib.contextmanager
def _what_ends_a_run(run: Run, saver: Saver) -> Iterator[None]:
    """What may happen in training, as the exception that tells the user of it."""
    try:
        try:
            yield
        except Interrupted as stop:
            saver.recorder.flush()
            raise Interrupted(stop.number, _saved(saver)) from None
    except NotFinite as found:
        indices = failure.batch_of(run, found.step)
        kept = agree(partial(failure.write_nonfinite, saver.folder, run, found, indices))
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


def _summary(run: Run, recorder: Recorder) -> dict[str, Any]:
    layers = trace(run.model.variant, **run.geometry)
    kept = ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "images_per_second")
    return {
        "variant": run.model.variant.name,
        "recipe": run.config.recipe,
        "dataset": run.dataset.name,
        "image_size": list(run.model.image_size),
        "train_images": len(run.dataset.train),
        "test_images": len(run.dataset.test),
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
        "dead_classes": [run.dataset.class_names[c] for c in recorder.progress.dead_classes],
        "time_to_first_step_seconds": recorder.time_to_first_step,
        "device": manifest.device_name(run.layout.devices),
    }


def _headline(run: Run, folder: Path, progress: Progress) -> str:
    config, dataset = run.config, run.dataset
    notes = "\nonly the head is trained" if config.freeze else ""
    if progress.step:
        notes += f"\nresumed after step {progress.step}"
    elif config.init_from is not None:
        notes += f"\nweights from {config.init_from}"
        notes += f"; drawn anew: {', '.join(run.drawn_anew)}" if run.drawn_anew else ""
    return (
        f"{describe(run.model.variant, **run.geometry)}\n"
        f"{dataset.name} ({dataset.source}): {len(dataset.train):,} training and "
        f"{len(dataset.test):,} test images; recipe {config.recipe}, batch "
        f"{run.recipe.batch_size} in parts of {run.micro_batch_size}, {len(run.learning_rates):,} "
        f"steps; {manifest.device_name(run.layout.devices)}; into {folder}{notes}"
    )


def _remedies(run: Run) -> tuple[str, str]:
    """Return what to do about a run that learns nothing, and about one with dead classes."""
    if run.config.recipe == "d2l":
        return (
            "The published recipe starts very slowly and at high rates may never learn. Remedy: "
            f"--recipe modern, or a lower --lr (now {run.recipe.lr:g}), or more --epochs.",
            "Under the ReLU on the logits a class can lose its gradient for good. Remedy: --recipe "
            "modern, or --logit-relu False, or another --seed.",
        )
    return (
        "Remedy: more images or --epochs; if that does not help, another --lr or --seed.",
        "Remedy: more images or --epochs; if that does not help, --init identity, a lower --lr, "
        "or another --seed.",
    )


def _draw(run: Run, folder: Path) -> None:
    from nin_jax.plotting import plot_curves  # matplotlib is slow to import

    height, width = run.model.image_size
    title = (
        f"{run.model.variant.name} on {run.dataset.name}, {len(run.dataset.train):,} images "
        f"at {height}x{width}, recipe {run.config.recipe}"
    )
    plot_curves(writers.read_metrics(folder / workdir.METRICS), title, folder / workdir.CURVES)
