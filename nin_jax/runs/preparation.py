"""Everything that a run needs before its first step: data, model, optimizer, compiled steps.

Nothing here reads or writes a run's folder.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from nin_jax.data import transforms
from nin_jax.data.datasets import Dataset, Split
from nin_jax.data.statistics import mean_and_std
from nin_jax.errors import UserError
from nin_jax.models import convert
from nin_jax.models.nin import NiN, new_model
from nin_jax.models.preprocessing import Preprocessing
from nin_jax.models.variants import get_variant
from nin_jax.runs.agreement import is_first
from nin_jax.runs.examples import load_data, streams
from nin_jax.training.class_weights import weights_of_classes
from nin_jax.training.config import TrainConfig, check_warmup, recipe_of
from nin_jax.training.device import (
    default_micro_batch_size,
    default_steps_per_dispatch,
    devices_for,
)
from nin_jax.training.evaluate import EvalState, Score, evaluate, make_eval_step
from nin_jax.training.feed import Chunk, Resident, Shares, evaluation_parts
from nin_jax.training.optimizer import make_schedule, optimizer_of
from nin_jax.training.recipes import Recipe
from nin_jax.training.sharding import EVERYWHERE, Layout, make_layout
from nin_jax.training.step import (
    StepFigures,
    TrainState,
    init_train_state,
    make_train_step,
    make_train_steps,
)

MAX_STEPS = 10_000_000
CHUNK_BYTES = 2**26  # images sent to a device at a time


@dataclass
class RunSpec:
    """What a run trains: its configuration, the recipe with every option set, and its data."""

    config: TrainConfig
    recipe: Recipe
    dataset: Dataset

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches that hold all training images once."""
        return -(-len(self.dataset.train) // self.recipe.batch_size)


@dataclass
class Run(RunSpec):
    """A `RunSpec` made ready to train by `prepare_run`."""

    layout: Layout
    model: NiN
    state: TrainState
    train_steps: Callable[..., tuple[TrainState, StepFigures]]
    eval_step: Callable[..., EvalState]
    learning_rates: np.ndarray  # float32 [steps of the run]
    micro_batch_size: int
    steps_per_dispatch: int
    new_layers: list[str]  # layers drawn at random because the initial weights do not fit them

    @property
    def geometry(self) -> dict[str, Any]:
        """The arguments of `describe` besides the variant."""
        return {
            "in_channels": self.model.in_channels,
            "num_classes": self.model.num_classes,
            "image_size": self.model.image_size,
        }

    def take_steps(self, chunk: Chunk, count: int) -> StepFigures:
        """Take the next ``count`` steps of a chunk in one dispatch; ``state`` becomes the new one.

        Nothing waits for the device.
        """
        placed = self.layout.place(np.int32(count), EVERYWHERE)
        examples = chunk.images, chunk.labels, chunk.order
        self.state, figures = self.train_steps(self.state, *examples, placed)
        return figures


class Initial(NamedTuple):
    """The weights that a run starts from.

    Attributes:
        arrays: a state dict of floating arrays.
        preprocessing: what their network does to its images.
    """

    arrays: Mapping[str, np.ndarray]
    preprocessing: Preprocessing = Preprocessing()


def load_spec(config: TrainConfig) -> RunSpec:
    """Load a run's data and set every open option of its recipe.

    With ``steps``, the recipe has the fewest whole epochs that take at least that many steps.

    Raises:
        UserError: as `load_data` and `recipe_of`, or the warm-up is shorter than one step.
    """
    dataset = load_data(config)
    spec = RunSpec(replace(config, dataset=dataset.name), recipe_of(config), dataset)
    if config.steps is not None:
        epochs = -(-config.steps // spec.steps_per_epoch)
        spec.recipe = replace(spec.recipe, epochs=epochs)
    check_warmup(config, spec.recipe.epochs * spec.steps_per_epoch)
    return spec


def prepare_run(
    spec: RunSpec,
    initial: Initial | None = None,
    schedule: optax.Schedule | None = None,
    preprocessing: Preprocessing | None = None,
) -> Run:
    """Make the model, the optimizer and the compiled steps on the run's devices.

    Args:
        spec: what to train.
        initial: the weights to start from; None draws all weights.
        schedule: the learning rate by step; None takes the recipe's.
        preprocessing: of the run that is resumed; None chooses it.

    Raises:
        UserError: the network cannot be made, the initial weights do not fit, the classes cannot
            be weighted, or the run has more than ``MAX_STEPS`` steps.
    """
    config, recipe, dataset = spec.config, spec.recipe, spec.dataset
    layout = make_layout(
        devices_for(config.devices),
        shard_params=config.shard_params,
        own_examples=not isinstance(dataset.train, Split) or streams(config, dataset),
    )
    model = _make_model(spec, preprocessing or _preprocessing(spec, initial))
    new_layers = [] if initial is None else _load_initial(model, initial.arrays, config)
    graphdef, params = nnx.split(model, nnx.Param)
    steps = spec.steps_per_epoch * recipe.epochs
    if steps > MAX_STEPS:
        given = f"--steps {config.steps}" if config.steps else f"--epochs {recipe.epochs}"
        raise UserError(f"{given} gives {steps:,} steps, more than the {MAX_STEPS:,} allowed")
    schedule = schedule or make_schedule(recipe, steps)
    optimizer = optimizer_of(config, recipe, steps, schedule)
    state = init_train_state(params, optimizer, config.seed, layout)
    micro = min(micro_batch_size(config, recipe, model), layout.columns(recipe.batch_size))
    steps_per_dispatch = config.steps_per_dispatch or default_steps_per_dispatch()
    weights = weights_of_classes(recipe.class_weights, dataset.train.labels, model.num_classes)
    train_step = make_train_step(
        graphdef, optimizer, recipe, model.image_size, micro, layout, weights
    )
    return Run(
        config=config,
        recipe=recipe,
        dataset=dataset,
        layout=layout,
        model=model,
        state=state,
        train_steps=make_train_steps(train_step, steps_per_dispatch, layout, state),
        eval_step=make_eval_step(graphdef, model.image_size, micro, layout),
        learning_rates=np.asarray(jax.vmap(schedule)(jnp.arange(steps))),
        micro_batch_size=micro,
        steps_per_dispatch=steps_per_dispatch,
        new_layers=new_layers,
    )


def _make_model(spec: RunSpec, preprocessing: Preprocessing) -> NiN:
    """Return the run's network with initial weights."""
    config, recipe, dataset = spec.config, spec.recipe, spec.dataset
    model = new_model(
        get_variant(config.variant),
        in_channels=dataset.image_shape[2],
        num_classes=config.num_classes or dataset.num_classes,
        image_size=recipe.image_size,
        seed=config.seed,
        init=recipe.init,
        logit_relu=recipe.logit_relu,
        preprocessing=preprocessing,
        dtype=config.precision,
    )
    if recipe.dropout is not None:
        _set_dropout(model, recipe.dropout)
    model.frozen = config.freeze
    return model


def _set_dropout(model: NiN, rate: float) -> None:
    dropouts = [module for module in (*model.pool_dropouts, model.dropout) if module.rate]
    if not dropouts:
        raise UserError(f"--dropout has no effect: {model.variant.name} has no dropout")
    for module in dropouts:
        module.rate = rate


def _preprocessing(spec: RunSpec, initial: Initial | None) -> Preprocessing:
    """Return what a new run's network does to its images.

    That of the initial weights is used, with the run's rule for resizing, unless --normalize
    dataset is given. If it is for another number of channels, it is not used, and the first layer
    is drawn at random.
    """
    resize = "crop" if spec.config.crop else "stretch"
    if initial is not None and spec.config.normalize != "dataset":
        with contextlib.suppress(UserError):
            initial.preprocessing.check(spec.dataset.image_shape[2])
            return replace(initial.preprocessing, resize=resize, crop_fraction=1.0)
    if spec.recipe.normalize == "none":
        return Preprocessing(resize=resize)
    mean, std = mean_and_std(spec.dataset.train, quiet=not is_first())
    return Preprocessing(mean=mean, std=std, resize=resize)


def _load_initial(model: NiN, initial: Mapping[str, np.ndarray], config: TrainConfig) -> list[str]:
    """Load weights into a model; return the names of the layers that they do not fit."""
    drawn = convert.transfer(model, initial)
    untrained = [name for name in drawn if name.startswith("block")]
    if config.init is not None and not drawn:
        raise UserError("--init has no effect: --init-from gives the weights of all layers")
    if config.freeze and untrained:
        raise UserError(
            f"--freeze would leave {', '.join(untrained)} with random weights: the given ones are "
            "for another number of input channels; leave --freeze out"
        )
    return drawn


def micro_batch_size(config: TrainConfig, recipe: Recipe, model: NiN) -> int:
    """Return the images of a micro-batch: the given number, or the best one for the device."""
    size = config.micro_batch_size or default_micro_batch_size(model, recipe.batch_size)
    return min(size, recipe.batch_size)


_key = jax.jit(jax.random.key)
_epoch_order = jax.jit(transforms.epoch_order, static_argnums=(2, 3))


def epoch_order(run: Run, epoch: int) -> np.ndarray:
    """Return the training images of each batch, int32 [steps, batch]; -1 fills the last batch."""
    seed, index = run.layout.place((np.uint32(run.config.seed), np.int32(epoch)), EVERYWHERE)
    size = len(run.dataset.train)
    order = _epoch_order(_key(seed), index, size, run.recipe.batch_size)
    return np.asarray(jax.device_get(order))


def make_feed(run: Run) -> Resident | Shares:
    """Return what brings the training images to the devices."""
    train = run.dataset.train
    if not run.layout.own_examples:
        assert isinstance(train, Split)  # see the layout in prepare_run
        return Resident(run.layout, train)
    per_step = run.layout.columns(run.recipe.batch_size) * math.prod(run.dataset.image_shape)
    rows = max(run.steps_per_dispatch, CHUNK_BYTES // per_step)
    return Shares(run.layout, train.read, min(rows, run.steps_per_epoch))


def evaluation_images(layout: Layout, dataset: Dataset) -> Iterator[tuple[jax.Array, jax.Array]]:
    """Yield the test split in parts, divided over the devices."""
    most = max(1, CHUNK_BYTES // math.prod(dataset.image_shape))
    return evaluation_parts(layout, dataset.test.read, len(dataset.test), most)


def evaluate_run(
    run: Run, progress: Callable[[int, int], None] = lambda done, total: None
) -> Score:
    """Score the current parameters on the test split.

    Args:
        run: in the state to score.
        progress: called with the number of scored images and of all images.
    """
    return evaluate(
        run.eval_step,
        run.layout.whole(run.state.params),
        evaluation_images(run.layout, run.dataset),
        count=len(run.dataset.test),
        num_classes=run.model.num_classes,
        batch_size=run.micro_batch_size,
        layout=run.layout,
        progress=progress,
    )
