"""A recipe's optimiser, as an Optax chain."""

import jax
import optax

from nin_jax.config import Recipe


def make_schedule(recipe: Recipe, total_steps: int) -> optax.Schedule:
    """Learning rate by step: linear warm-up to ``lr``, then constant or a cosine down to 0.

    Warm-up takes at most a tenth of the run, so that short runs train too.
    """
    warmup = min(recipe.warmup_steps, total_steps // 10)
    if recipe.schedule == "constant":
        after: optax.Schedule = optax.constant_schedule(recipe.lr)
    else:
        after = optax.cosine_decay_schedule(recipe.lr, max(1, total_steps - warmup))
    if warmup == 0:
        return after
    # The first step already moves: rate lr / warmup, not 0.
    rise = optax.linear_schedule(recipe.lr / warmup, recipe.lr, warmup)
    return optax.join_schedules([rise, after], [warmup])


def _is_kernel(params):
    return jax.tree.map(lambda param: param.ndim > 1, params)


def make_optimizer(recipe: Recipe, total_steps: int) -> optax.GradientTransformation:
    """Clip by global norm, decay, then SGD or Adam.

    SGD's decay is added to the gradient, as in PyTorch; Adam's is decoupled (AdamW). Biases
    never decay.
    """
    schedule = make_schedule(recipe, total_steps)
    steps = []
    if recipe.clip_norm > 0:
        steps.append(optax.clip_by_global_norm(recipe.clip_norm))
    if recipe.optimizer == "adam":
        steps.append(optax.adamw(schedule, weight_decay=recipe.weight_decay, mask=_is_kernel))
        return optax.chain(*steps)
    if recipe.weight_decay > 0:
        steps.append(optax.add_decayed_weights(recipe.weight_decay, _is_kernel))
    momentum = recipe.momentum or None
    steps.append(optax.sgd(schedule, momentum, nesterov=bool(recipe.nesterov)))
    return optax.chain(*steps)
