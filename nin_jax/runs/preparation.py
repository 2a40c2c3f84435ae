"""All that a run needs before its first step: data, model, optimiser, compiled steps.

Nothing here touches a run's folder.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from nin_jax.data import transforms
from nin_jax.data.datasets import FOLDER_PREFIX, TFDS_PREFIX, Dataset, Split, load_dataset
from nin_jax.data.streaming import open_dataset
from nin_jax.errors import UserError
from nin_jax.models import convert
from nin_jax.models.nin import NiN, new_model
from nin_jax.models.variants import get_variant
from nin_jax.training.config import Recipe, TrainConfig
from nin_jax.training.device import (
    default_micro_batch_size,
    default_steps_per_dispatch,
    devices_for,
)
from nin_jax.training.feed import Resident, Shares, evaluation_parts
from nin_jax.training.optimizer import for_head_only, make_optimizer, make_schedule
from nin_jax.training.sharding import EVERYWHERE, Layout, make_layout
from nin_jax.training.step import (
    EvalState,
    StepFigures,
    TrainState,
    init_train_state,
    make_eval_step,
    make_train_step,
    make_train_steps,
)

MAX_STEPS = 10_000_000


def load_data(config: TrainConfig) -> Dataset:
    """The run's data set, cut to its limits; with ``holdout``, the test split is held-out images.

    Raises:
        UserError: as `load_dataset`, a label is beyond ``num_classes``, or the holdout leaves
            nothing to train on.
    """
    dataset = _open(config)
    if config.num_classes is not None and config.num_classes < dataset.num_classes:
        raise UserError(
            f"--num-classes {config.num_classes} is too few: {dataset.name} has labels "
            f"0 to {dataset.num_classes - 1}"
        )

    train, test = dataset.train, dataset.test
    if config.holdout is not None:
        kept = len(train) - config.holdout
        if kept < 1:
            raise UserError(
                f"--holdout {config.holdout} leaves nothing to train on: {dataset.name} has "
                f"{len(train)} training images"
            )
        train, test = train.part(None, kept), train.part(kept, None)
    train, test = train.part(None, config.limit_train), test.part(None, config.limit_test)
    return replace(dataset, train=train, test=test)


def _open(config: TrainConfig) -> Dataset:
    """The whole set, in memory, or opened for reading if it is streamed.

    Sets that can be streamed have the checksum of a streamed one either way: a run may be resumed
    with the other feed.
    """
    name = config.dataset
    if not isinstance(name, str) or not name.startswith((TFDS_PREFIX, FOLDER_PREFIX)):
        return load_dataset(name, config.data_dir)
    streamed = open_dataset(name, config.data_dir)
    if streams(config, streamed):
        return streamed
    return replace(load_dataset(name, config.data_dir), checksum=streamed.checksum)


RESIDENT_BYTES = 2**31  # of training images that every device has room for
CHUNK_BYTES = 2**26  # of images that a device is given at a time


def streams(config: TrainConfig, dataset: Dataset) -> bool:
    """Whether each device is given its own share of the examples, or all have all of them."""
    if config.feed == "auto":
        size = len(dataset.train) * math.prod(dataset.image_shape)
        return jax.process_count() > 1 or size > RESIDENT_BYTES
    return config.feed == "stream"


def with_steps(recipe: Recipe, steps: int | None, train_images: int) -> Recipe:
    """Return the recipe with the fewest whole epochs that take at least ``steps`` steps."""
    if steps is None:
        return recipe
    return replace(recipe, epochs=-(-steps // steps_per_epoch(recipe, train_images)))


def steps_per_epoch(recipe: Recipe, train_images: int) -> int:
    """Return the number of batches that hold all training images once."""
    return -(-train_images // recipe.batch_size)


@dataclass
class Run:
    """A model, its state and its compiled steps, as `prepare_run` makes them."""

    config: TrainConfig
    recipe: Recipe
    dataset: Dataset
    layout: Layout
    model: NiN
    state: TrainState
    train_steps: Callable[..., tuple[TrainState, StepFigures]]
    eval_step: Callable[..., EvalState]
    learning_rates: np.ndarray
    micro_batch_size: int
    steps_per_dispatch: int
    steps_per_epoch: int
    drawn_anew: list[str]  # layers that the initial weights do not fit

    @property
    def geometry(self) -> dict[str, Any]:
        """What `trace`, `describe` and `create_model` need to know besides the variant."""
        return {
            "in_channels": self.model.in_channels,
            "num_classes": self.model.num_classes,
            "image_size": self.model.image_size,
        }


def prepare_run(
    config: TrainConfig,
    recipe: Recipe,
    dataset: Dataset,
    initial: Mapping[str, np.ndarray] | None = None,
) -> Run:
    """Model, optimiser and steps, on the run's devices; touches no file.

    Args:
        config, recipe, dataset: of the run.
        initial: state dict of the weights to start from; None draws all of them.

    Raises:
        UserError: the network cannot be made, or the initial weights are of another one.
    """
    layout = make_layout(
        devices_for(config.devices),
        shard_params=config.shard_params,
        own_examples=not isinstance(dataset.train, Split) or streams(config, dataset),
    )
    model = new_model(
        get_variant(config.variant),
        in_channels=dataset.image_shape[2],
        num_classes=config.num_classes or dataset.num_classes,
        image_size=recipe.image_size,
        seed=config.seed,
        init=recipe.init,
        logit_relu=recipe.logit_relu,
        dtype=config.precision,
    )
    drawn_anew = [] if initial is None else _start_from(model, initial, config.freeze)
    model.frozen = config.freeze
    graphdef, params = nnx.split(model, nnx.Param)
    per_epoch = steps_per_epoch(recipe, len(dataset.train))
    steps = per_epoch * recipe.epochs
    if steps > MAX_STEPS:
        raise UserError(
            f"--epochs {recipe.epochs} are {steps:,} steps, more than the {MAX_STEPS:,} whose "
            "rates are kept"
        )
    optimizer = make_optimizer(recipe, steps)
    if config.freeze:
        optimizer = for_head_only(optimizer)
    if config.skip_nonfinite:
        optimizer = optax.apply_if_finite(optimizer, max_consecutive_errors=2**31 - 1)
    state = init_train_state(params, optimizer, config.seed, layout)
    micro = min(micro_batch_size(config, recipe, model), layout.columns(recipe.batch_size))
    at_once = config.steps_per_dispatch or default_steps_per_dispatch()
    train_step = make_train_step(graphdef, optimizer, recipe, model.image_size, micro, layout)
    return Run(
        config=config,
        recipe=recipe,
        dataset=dataset,
        layout=layout,
        model=model,
        state=state,
        train_steps=make_train_steps(train_step, at_once, layout, state),
        eval_step=make_eval_step(graphdef, model.image_size, model.num_classes, micro, layout),
        learning_rates=np.asarray(jax.vmap(make_schedule(recipe, steps))(jnp.arange(steps))),
        micro_batch_size=micro,
        steps_per_dispatch=at_once,
        steps_per_epoch=per_epoch,
        drawn_anew=drawn_anew,
    )


def _start_from(model: NiN, initial: Mapping[str, np.ndarray], freeze: bool) -> list[str]:
    """Load weights into a model; return the names of the layers that they do not fit."""
    drawn = convert.transfer(model, initial)
    untrained = [name for name in drawn if name.startswith("block")]
    if freeze and untrained:
        raise UserError(
            f"--freeze would leave {', '.join(untrained)} as drawn at random: the weights are for "
            "another number of input channels; leave --freeze out"
        )
    return drawn


def micro_batch_size(config: TrainConfig, recipe: Recipe, model: NiN) -> int:
    """Images that a step works on at a time, as asked for or as the device likes it."""
    size = config.micro_batch_size or default_micro_batch_size(model) or recipe.batch_size
    return min(size, recipe.batch_size)


_epoch_order = jax.jit(transforms.epoch_order, static_argnums=(2, 3))


def epoch_order(run: Run, epoch: int) -> np.ndarray:
    """int32 [steps, batch]: which training images make which batch; -1 fills the last one up."""
    seed, index = run.layout.place((np.uint32(run.config.seed), np.int32(epoch)), EVERYWHERE)
    size = len(run.dataset.train)
    order = _epoch_order(_key(seed), index, size, run.recipe.batch_size)
    return np.asarray(jax.device_get(order))


_key = jax.jit(jax.random.key)


def make_feed(run: Run) -> Resident | Shares:
    """The way of the training images to the devices."""
    train = run.dataset.train
    if not run.layout.own_examples:
        assert isinstance(train, Split)  # as `streams` has it
        return Resident(run.layout, train)
    per_step = run.layout.columns(run.recipe.batch_size) * math.prod(run.dataset.image_shape)
    rows = max(run.steps_per_dispatch, CHUNK_BYTES // per_step)
    return Shares(run.layout, train.read, min(rows, run.steps_per_epoch))


def evaluation_images(layout: Layout, dataset: Dataset) -> Iterator[tuple[jax.Array, jax.Array]]:
    """The test split, divided over the devices, in parts."""
    most = max(1, CHUNK_BYTES // math.prod(dataset.image_shape))
    return evaluation_parts(layout, dataset.test.read, len(dataset.test), most)
