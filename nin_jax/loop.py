"""fit(): load, restore or initialise, train, evaluate, save.

The only file with side effects in a loop. Everything that a user can get wrong is found out
before the first file is written.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from nin_jax import convert, data, metrics, record, workdir
from nin_jax.checkpoint import Checkpoints
from nin_jax.config import Recipe, TrainConfig, recipe_of
from nin_jax.datasets import Dataset, Split, load_dataset
from nin_jax.device import (
    default_micro_batch_size,
    default_steps_per_dispatch,
    select_device,
    use_compilation_cache,
)
from nin_jax.errors import UserError
from nin_jax.evaluation import evaluate
from nin_jax.geometry import check_image_size, trace
from nin_jax.model import NiN, create_model
from nin_jax.optim import make_optimizer, make_schedule
from nin_jax.recorder import Recorder
from nin_jax.step import (
    EvalState,
    Sums,
    TrainState,
    make_eval_step,
    make_train_step,
    make_train_steps,
)
from nin_jax.tables import describe
from nin_jax.variants import get_variant


def fit(config: TrainConfig) -> dict[str, Any]:
    """Trains as the configuration says and returns the run's summary.

    Args:
        config: what it leaves open, its recipe fills in.

    Returns:
        What ``summary.json`` holds.

    Raises:
        UserError: anything given is wrong, or the loss is no longer finite.
    """
    started = time.perf_counter()
    recipe = recipe_of(config)
    check_image_size(get_variant(config.variant), recipe.image_size)
    workdir.check(config)
    select_device(config.device)
    use_compilation_cache(config.compilation_cache)
    dataset = load_data(config)
    config = replace(config, dataset=dataset.name)
    if config.resume:
        assert config.workdir is not None
        record.check_same_run(config.workdir, config, recipe, dataset)
    run = prepare_run(config, recipe, dataset)
    folder = workdir.claim(config)
    with workdir.locked(folder):
        return _fit_in(folder, run, started)


def load_data(config: TrainConfig) -> Dataset:
    """The run's data set, cut to its limits; with ``holdout``, the test split is held-out images.

    Raises:
        UserError: as `load_dataset`, a label is beyond ``num_classes``, or the holdout leaves
            nothing to train on.
    """
    dataset = load_dataset(config.dataset, config.data_dir)
    if config.num_classes is not None and config.num_classes < dataset.num_classes:
        raise UserError(
            f"--num-classes {config.num_classes} is too few: {dataset.name} has labels "
            f"0 to {dataset.num_classes - 1}"
        )

    train, test = dataset.train, dataset.test
    if config.holdout is not None:
        kept = len(train.labels) - config.holdout
        if kept < 1:
            raise UserError(
                f"--holdout {config.holdout} leaves nothing to train on: {dataset.name} has "
                f"{len(train.labels)} training images"
            )
        train, test = _part(train, slice(kept)), _part(train, slice(kept, None))
    return replace(
        dataset,
        train=_part(train, slice(config.limit_train)),
        test=_part(test, slice(config.limit_test)),
    )


def _part(split: Split, part: slice) -> Split:
    return Split(split.images[part], split.labels[part])


@dataclass
class Run:
    """A model, its state and its compiled steps, as `prepare_run` makes them."""

    config: TrainConfig
    recipe: Recipe
    dataset: Dataset
    model: NiN
    state: TrainState
    train_steps: Callable[..., tuple[TrainState, Sums]]
    eval_step: Callable[..., EvalState]
    learning_rates: np.ndarray
    micro_batch_size: int
    steps_per_dispatch: int
    steps_per_epoch: int

    @property
    def geometry(self) -> dict[str, Any]:
        """What `trace`, `describe` and `create_model` need to know besides the variant."""
        return {
            "in_channels": self.model.in_channels,
            "num_classes": self.model.num_classes,
            "image_size": self.model.image_size,
        }


def prepare_run(config: TrainConfig, recipe: Recipe, dataset: Dataset) -> Run:
    """Model, optimiser and steps; touches no file."""
    model = create_model(
        get_variant(config.variant),
        in_channels=dataset.image_shape[2],
        num_classes=config.num_classes or dataset.num_classes,
        image_size=recipe.image_size,
        seed=config.seed,
        init=recipe.init,
        logit_relu=recipe.logit_relu,
        dtype=config.precision,
    )
    graphdef, params = nnx.split(model, nnx.Param)
    steps_per_epoch = -(-len(dataset.train.labels) // recipe.batch_size)
    steps = steps_per_epoch * recipe.epochs
    optimizer = make_optimizer(recipe, steps)
    params = jax.tree.map(jnp.copy, params)  # a step consumes its state's; the model keeps its own
    start, key = jnp.zeros((), jnp.int32), jax.random.key(config.seed)
    state = TrainState(params, optimizer.init(params), start, key)
    micro = micro_batch_size(config, recipe, model)
    at_once = config.steps_per_dispatch or default_steps_per_dispatch()
    train_step = make_train_step(graphdef, optimizer, recipe, model.image_size, micro)
    return Run(
        config=config,
        recipe=recipe,
        dataset=dataset,
        model=model,
        state=state,
        train_steps=make_train_steps(train_step, at_once),
        eval_step=make_eval_step(graphdef, model.image_size, model.num_classes, micro),
        learning_rates=np.asarray(jax.vmap(make_schedule(recipe, steps))(jnp.arange(steps))),
        micro_batch_size=micro,
        steps_per_dispatch=at_once,
        steps_per_epoch=steps_per_epoch,
    )


def micro_batch_size(config: TrainConfig, recipe: Recipe, model: NiN) -> int:
    """Images that a step works on at a time, as asked for or as the device likes it."""
    size = config.micro_batch_size or default_micro_batch_size(model) or recipe.batch_size
    return min(size, recipe.batch_size)


def _fit_in(folder: Path, run: Run, started: float) -> dict[str, Any]:
    """The run proper, in a folder that is ours."""
    checkpoints = Checkpoints(folder / workdir.CHECKPOINTS)
    if run.config.resume:
        run.state = checkpoints.restore(run.state)
    first_step = int(run.state.step)
    if first_step >= len(run.learning_rates):
        raise UserError(f"nothing left to do: {folder} has its {first_step} steps; raise --epochs")
    record.write_config(folder, run.config, run.recipe, run.dataset)
    metrics.keep_rows_up_to(folder / workdir.METRICS, first_step)
    writers = [
        metrics.JsonlWriter(folder / workdir.METRICS),
        metrics.TensorBoardWriter(folder / workdir.TENSORBOARD),
    ]
    try:
        with metrics.Screen(len(run.learning_rates), first_step) as screen:
            screen.line(_headline(run, folder))
            recorder = Recorder(
                writers,
                screen,
                steps_per_epoch=run.steps_per_epoch,
                epochs=run.recipe.epochs,
                learning_rates=run.learning_rates,
                chance=np.bincount(run.dataset.train.labels).max() / len(run.dataset.train.labels),
                remedy=_remedy(run),
                first_step=first_step,
                started=started,
            )
            _train(run, recorder, checkpoints, folder)
            screen.line(f"wrote {folder}")
    finally:
        checkpoints.close()
        for writer in writers:
            writer.close()
    summary = _summary(run, recorder)
    record.write_json(folder / workdir.SUMMARY, summary)
    _draw(run, folder)
    return summary


def _train(run: Run, recorder: Recorder, checkpoints: Checkpoints, folder: Path) -> None:
    train = jax.device_put((run.dataset.train.images, run.dataset.train.labels))
    test = jax.device_put((run.dataset.test.images, run.dataset.test.labels))
    make_order = jax.jit(data.epoch_order, static_argnums=(2, 3))
    step = recorder.step
    while step < len(run.learning_rates):
        epoch = step // run.steps_per_epoch
        # Nothing travels between host and device but what says so: device_put and device_get.
        with jax.transfer_guard("disallow"):
            index = jax.device_put(np.int32(epoch))
            order = make_order(run.state.key, index, len(train[1]), run.recipe.batch_size)
            while missing := (epoch + 1) * run.steps_per_epoch - step:
                count = min(missing, run.steps_per_dispatch)
                run.state, sums = run.train_steps(
                    run.state, *train, order, jax.device_put(np.int32(count))
                )
                step += count
                recorder.dispatched(count, sums)
            recorder.flush()
            score = evaluate(
                run.eval_step,
                run.state.params,
                *test,
                num_classes=run.model.num_classes,
                batch_size=run.micro_batch_size,
                progress=recorder.screen.evaluating,
            )
        recorder.epoch(score)
        _save(run, checkpoints, folder)


def _save(run: Run, checkpoints: Checkpoints, folder: Path) -> None:
    checkpoints.save(run.state)
    nnx.update(run.model, jax.tree.map(jnp.copy, run.state.params))
    convert.save_safetensors(run.model, folder / workdir.WEIGHTS)


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
        "steps": recorder.step,
        **{key: recorder.last_epoch[key] for key in kept},
        "test_accuracy_per_class": recorder.accuracy_per_class,
        "at_chance_after_first_epoch": recorder.at_chance,
        "time_to_first_step_seconds": recorder.time_to_first_step,
        "device": record.device_name(),
    }


def _headline(run: Run, folder: Path) -> str:
    config, dataset = run.config, run.dataset
    return (
        f"{describe(run.model.variant, **run.geometry)}\n"
        f"{dataset.name} ({dataset.source}): {len(dataset.train.labels):,} training and "
        f"{len(dataset.test.labels):,} test images; recipe {config.recipe}, batch "
        f"{run.recipe.batch_size} in parts of {run.micro_batch_size}, {len(run.learning_rates):,} "
        f"steps; {record.device_name()}; into {folder}"
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
