"""The optimizer of a recipe, as an Optax chain."""

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, muon

from nin_jax.training.config import TrainConfig
from nin_jax.training.recipes import Recipe


def make_schedule(recipe: Recipe, total_steps: int) -> optax.Schedule:
    """Return the learning rate by step: warm-up to ``lr``, then what ``schedule`` says.

    The warm-up takes a fraction ``warmup`` of the run, rounded down to whole steps. After it, the
    rate is constant, or decays along a cosine to 0, or is multiplied by ``lr_factor`` at each of
    ``lr_steps``, rounded to whole steps. `config.recipe_of` has scaled ``lr`` by --lr-batch-size.
    """
    warmup = int(recipe.warmup * total_steps)
    match recipe.schedule:
        case "constant":
            after: optax.Schedule = optax.constant_schedule(recipe.lr)
        case "cosine":
            after = optax.cosine_decay_schedule(recipe.lr, max(1, total_steps - warmup))
        case "steps":
            factors: dict[int, float] = {}
            for fraction in recipe.lr_steps:  # in a short run, two may be at the same step
                at = round(fraction * total_steps) - warmup
                factors[at] = factors.get(at, 1.0) * recipe.lr_factor
            after = optax.piecewise_constant_schedule(recipe.lr, factors)
    if warmup == 0:
        return after
    # The first step has the learning rate lr / warmup, not 0, so that it has an effect.
    rise = optax.linear_schedule(recipe.lr / warmup, recipe.lr, warmup)
    return optax.join_schedules([rise, after], [warmup])


def _is_kernel(params):
    return jax.tree.map(lambda param: param.ndim > 1, params)


def _is_bias(params):
    return jax.tree.map(lambda param: param.ndim == 1, params)


def _is_last(params):
    # Parameters have the order of the model: blocks, head, linear. A path ends with "kernel" or
    # "bias", and "value".
    *_, (last, _) = jax.tree_util.tree_leaves_with_path(params)
    return jax.tree_util.tree_map_with_path(lambda path, _: path[:-2] == last[:-2], params)


def _multiples(recipe: Recipe) -> list[optax.GradientTransformation]:
    """Return what multiplies the updates of biases and of the last layer; nothing if both are 1."""
    multiples = ((recipe.bias_lr_mult, _is_bias), (recipe.last_lr_mult, _is_last))
    return [optax.masked(optax.scale(mult), mask) for mult, mask in multiples if mult != 1]


def _muon_dimensions(params):
    """Return how Optax's Muon reshapes kernels: to matrices [H W C, O], or [N, M]; None for a bias.

    All axes but the last are the inputs of an output unit, as in Jordan et al. (2024).
    """
    return jax.tree.map(
        lambda p: MuonDimensionNumbers(tuple(range(p.ndim - 1)), -1) if p.ndim > 1 else None, params
    )


def for_head_only(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Return the optimizer for the head and the linear layer; other parameters do not change.

    The others have no state and no decay, and do not count in the clipped norm.
    """

    def labels(params):
        # The first name on a parameter's path is the model's attribute.
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "trained" if path[0].key in ("head", "linear") else "frozen", params
        )

    return optax.partition({"trained": optimizer, "frozen": optax.set_to_zero()}, labels)


def make_optimizer(
    recipe: Recipe, total_steps: int, schedule: optax.Schedule | None = None
) -> optax.GradientTransformation:
    """Return the chain: clip by global norm, decay, then SGD, Adam or Muon.

    SGD's decay is added to the gradient, as in PyTorch; Adam's (AdamW) and Muon's are decoupled.
    Biases never decay. Muon updates kernels; its Adam updates biases. The rates of biases and of
    the last layer are multiples of the learning rate.

    Args:
        recipe: names the optimizer and its options.
        total_steps: steps of the run.
        schedule: the learning rate by step; None takes the recipe's.
    """
    schedule = schedule or make_schedule(recipe, total_steps)
    clip = [optax.clip_by_global_norm(recipe.clip_norm)] if recipe.clip_norm > 0 else []
    match recipe.optimizer:
        case "sgd":
            decay = optax.add_decayed_weights(recipe.weight_decay, _is_kernel)
            momentum = recipe.momentum or None
            steps = [decay] if recipe.weight_decay > 0 else []
            steps.append(optax.sgd(schedule, momentum, nesterov=bool(recipe.nesterov)))
        case "adam":
            steps = [optax.adamw(schedule, weight_decay=recipe.weight_decay, mask=_is_kernel)]
        case "muon":
            steps = [
                muon(
                    schedule,
                    beta=recipe.momentum,
                    nesterov=bool(recipe.nesterov),
                    weight_decay=recipe.weight_decay,
                    muon_weight_dimension_numbers=_muon_dimensions,
                )
            ]
    return optax.chain(*clip, *steps, *_multiples(recipe))


def optimizer_of(
    config: TrainConfig, recipe: Recipe, total_steps: int, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """Return the optimizer of a run: that of its recipe, changed by ``freeze`` and the like."""
    optimizer = make_optimizer(recipe, total_steps, schedule)
    if config.freeze:
        optimizer = for_head_only(optimizer)
    return _if_finite(optimizer) if config.skip_nonfinite else optimizer


def _if_finite(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Return the optimizer, which does nothing where the gradient's global norm is not finite.

    The norm may overflow while all entries are finite. Such a step is reported as skipped too.
    """
    careful = optax.apply_if_finite(optimizer, max_consecutive_errors=2**31 - 1)

    def update(updates, state, params=None):
        finite = jnp.isfinite(optax.tree.norm(updates))
        updates = jax.tree.map(lambda g: jnp.where(finite, g, jnp.nan), updates)
        return careful.update(updates, state, params)

    return optax.GradientTransformation(careful.init, update)
