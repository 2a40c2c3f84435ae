"""All that a run needs before its first step: data, model, optimiser, compiled steps.

Nothing here touches a run's folder.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from nin_jax import data
from nin_jax.config import Recipe, TrainConfig
from nin_jax.datasets import Dataset, Split, load_dataset
from nin_jax.device import default_micro_batch_size, default_steps_per_dispatch
from nin_jax.errors import UserError
from nin_jax.model import NiN, create_model
from nin_jax.optim import make_optimizer, make_schedule
from nin_jax.step import (
    EvalState,
    StepFigures,
    TrainState,
    make_eval_step,
    make_train_step,
    make_train_steps,
)
from nin_jax.variants import get_variant

MAX_STEPS = 10_000_000


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
    train_steps: Callable[..., tuple[TrainState, StepFigures]]
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
    if steps > MAX_STEPS:
        raise UserError(
            f"--epochs {recipe.epochs} are {steps:,} steps, more than the {MAX_STEPS:,} whose "
            "rates are kept"
        )
    optimizer = make_optimizer(recipe, steps)
    if config.skip_nonfinite:
        optimizer = optax.apply_if_finite(optimizer, max_consecutive_errors=2**31 - 1)
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


_epoch_order = jax.jit(data.epoch_order, static_argnums=(2, 3))


def epoch_order(run: Run, epoch: int) -> jax.Array:
    """int32 [steps, batch]: which training images make which batch; -1 fills the last one up."""
    index, size = jax.device_put(np.int32(epoch)), len(run.dataset.train.labels)
    return _epoch_order(run.state.key, index, size, run.recipe.batch_size)
