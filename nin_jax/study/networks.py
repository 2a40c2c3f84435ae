"""The costs of each network: parameters and MACs, memory by XLA's plan, and step time.

The speed of the runs is not used, because they may have shared the machine with other work. Here
all networks are timed in turns in one process, so that a change of speed affects all of them.
"""

import statistics
import timeit
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from nin_jax.accounting.account import account
from nin_jax.accounting.programs import Programs, abstract_model
from nin_jax.accounting.xla import xla_memory
from nin_jax.data.datasets import Dataset
from nin_jax.models.variants import get_variant
from nin_jax.runs import environment
from nin_jax.runs.preparation import RunSpec, epoch_order, make_feed, prepare_run
from nin_jax.training.config import TrainConfig, recipe_of

ROUNDS = 15  # with 5, two equal networks differed by 12 %

Network = dict[str, Any]
Networks = dict[str, Network]


def key(variant: str, recipe: str) -> str:
    """Return the key of a network in `Networks`."""
    return f"{Path(variant).stem} {recipe}"


def count(config: TrainConfig, dataset: Dataset) -> Network:
    """Count the parameters and operations of a configuration's network.

    Returns:
        ``batch_size``, ``head_map`` (height and width of the last block's maps), ``params``,
        ``macs`` (forward pass of one image) and ``flops_per_training_step``.
    """
    recipe = recipe_of(config)
    counted = account(
        config.variant,
        image_size=recipe.image_size,
        in_channels=dataset.image_shape[2],
        num_classes=dataset.num_classes,
        batch_size=recipe.batch_size,
        recipe=recipe,
        xla=False,
    )
    return {
        "batch_size": recipe.batch_size,
        "head_map": list(counted.layers[-1].in_shape[:2]),
        "params": counted.params,
        "macs": counted.macs,
        "flops_per_training_step": counted.flops_per_training_step,
    }


def measure(
    configs: Sequence[TrainConfig], dataset: Dataset, say: Callable[[str], None]
) -> Networks:
    """Plan the memory of each configuration's network and time its training step.

    Args:
        configs: each with another variant or recipe.
        dataset: its first batch is used for timing.
        say: receives progress messages.

    Returns:
        By `key`: ``train_bytes`` and ``predict_bytes`` (the total of XLA's plan, or None),
        ``step_ms`` (the median time of a training step) and ``device``.
    """
    found: Networks = {}
    steps: dict[str, Callable[[], None]] = {}
    for config in configs:
        name = key(config.variant, config.recipe)
        say(f"compiling {name}")
        found[name] = _memory(config, dataset)
        steps[name] = _step(config, dataset)
    seconds: Mapping[str, list[float]] = {name: [] for name in steps}
    for number in range(ROUNDS):
        say(f"timing, round {number + 1} of {ROUNDS}")
        for name, step in steps.items():
            seconds[name].append(timeit.timeit(step, number=1))
    for name, values in seconds.items():
        found[name]["step_ms"] = round(1e3 * statistics.median(values), 2)
        found[name]["device"] = environment.device_name()
    return found


def _memory(config: TrainConfig, dataset: Dataset) -> Network:
    recipe = recipe_of(config)
    model = abstract_model(
        get_variant(config.variant),
        dataset.image_shape[2],
        dataset.num_classes,
        recipe.image_size,
        config.precision,
        recipe.logit_relu,
    )
    programs = Programs(model, recipe, recipe.batch_size)
    return {
        "train_bytes": xla_memory(programs.train_step().compile()).total_bytes,
        "predict_bytes": xla_memory(programs.predict().compile()).total_bytes,
    }


def _step(config: TrainConfig, dataset: Dataset) -> Callable[[], None]:
    """Return a training step of a run, compiled and warmed up, that waits for its end."""
    run = prepare_run(RunSpec(config, recipe_of(config), dataset))
    chunk = next(make_feed(run).chunks(epoch_order(run, 0), 0))

    def step() -> None:
        figures = run.take_steps(chunk, 1)
        jax.block_until_ready((run.state, figures))

    step()
    return step
