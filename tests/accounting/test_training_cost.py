"""A training step in parts, and its optimizer, by formula and by XLA."""

from dataclasses import replace

import jax
import pytest
from flax import nnx

import nin_jax
from nin_jax.accounting.memory import optimizer_numbers
from nin_jax.accounting.programs import Programs
from nin_jax.accounting.step_parts import DRAWS, optimizer_flops, training_cost
from nin_jax.accounting.xla import program_cost
from nin_jax.training.optimizer import make_optimizer
from nin_jax.training.recipes import RECIPES
from tests.support.accounts import costs_of, known, model_of

# At most this many operations of the schedule, which the formula leaves out, for any recipe.
SCALARS = 30
# Muon evaluates the schedule twice, for kernels and biases, and has four bias corrections.
MUON_SCALARS = 70
MUON = {"optimizer": "muon", "momentum": 0.95}
# Its first kernel has more outputs than inputs, the others have not.
SMALL = nin_jax.Variant("small", (nin_jax.Stage(12, 3, padding=1, mlp=()),), classifier="linear")
# At most: for folding and splitting keys, and for the bookkeeping of one image.
KEYS, IMAGE = 300, 180


# One network of each kind: 3x3 convolutions within a block; a block without a pool; a stride of 2
# and small maps; average pools with padding, and dropout between blocks; pools that round up.
KINDS = ("nin_3x3", "nin_gradual", "nin15", "nin_cifar10", "nin_imagenet")
SLOW = [pytest.param(variant, "d2l", marks=pytest.mark.slow) for variant in KINDS]


# The recipe changes only the loss and the optimizer, so one variant is enough for the second.
@pytest.mark.parametrize(("variant", "recipe"), [*SLOW, ("nin_fc", "modern")])
def test_the_training_step_equals_the_formulas(variant, recipe):
    smoothing = 0.1 * (recipe == "modern")
    recipe = replace(RECIPES[recipe](nin_jax.get_variant(variant)), label_smoothing=smoothing)
    network = variant, 1, 10, (96, 96), recipe.logit_relu
    programs = Programs(model_of(*network), recipe, 6, micro_batch_size=3)
    costs = costs_of(*network)
    training = training_cost(programs, costs)
    assert (training.micro_batch_size, training.micro_batches) == (3, 2)
    parts = {part.name: part for part in training.parts}
    for name in ("forward and loss", "gradients to inputs", "gradients to weights", "optimizer"):
        assert parts[name].plain_products == parts[name].paper_products
    unexplained = {name: part.plain_unexplained for name, part in parts.items()}
    draws = parts.pop(DRAWS)
    assert unexplained.pop(DRAWS) is draws.paper_other is None
    assert known(draws.plain_other) > 6 * sum(cost.mask_elements for cost in costs)
    assert unexplained.pop("gradients to inputs") == unexplained.pop("gradients to weights") == 0
    assert unexplained.pop("masks, pools and biases, backward") == 0
    scalars = MUON_SCALARS if recipe.optimizer == "muon" else SCALARS
    assert 0 <= known(unexplained.pop("optimizer")) < scalars
    assert 0 <= known(unexplained.pop("forward and loss")) < KEYS  # dropout's
    # For each image: its index, weight, key and prediction.
    assert 0 <= known(unexplained.pop("images, random keys and sums")) < KEYS + 6 * IMAGE
    assert 0 <= known(unexplained.pop("whole step")) < 2 * KEYS + scalars + 6 * IMAGE
    assert not unexplained
    # The parts add up to the step.
    whole = training.programs["plain: step of one micro-batch"].flops
    step = parts["whole step"]
    assert whole == known(step.plain_products) + known(step.plain_other)
    micro = known(training.programs["as_run: step of one micro-batch"].flops)
    update = known(training.programs["as_run: optimizer"].flops)
    assert known(step.as_run_products) + known(step.as_run_other) == 2 * (micro - update) + update
    for name, cost in training.programs.items():
        assert cost.flops_unexplained == 0, name


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True},
        {"clip_norm": 1.0},
        {"clip_norm": 2.5, "momentum": 0.9},
        {"weight_decay": 1e-4},
        {"optimizer": "adam"},
        {"optimizer": "adam", "weight_decay": 1e-3, "clip_norm": 0.5},
        {"schedule": "cosine", "warmup": 0.1},
        {"bias_lr_mult": 2.0},
        {"bias_lr_mult": 2.0, "last_lr_mult": 0.1, "schedule": "cosine", "momentum": 0.9},
        MUON | {"last_lr_mult": 0.5},
        MUON | {"momentum": 0.0},
        MUON,
        MUON | {"nesterov": True, "weight_decay": 0.01},
        MUON | {"nesterov": True, "weight_decay": 0.01, "clip_norm": 1.0},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("variant", "side"),
    [(SMALL, 8), *(pytest.param(name, 96, marks=pytest.mark.slow) for name in ("nin_fc", "nin15"))],
)
def test_operations_and_state_of_the_optimizer(variant, side, changes):
    recipe = replace(RECIPES["d2l"](nin_jax.get_variant(variant)), **changes)
    network = variant, 1, 10, (side, side), True
    model, costs = model_of(*network), costs_of(*network)
    found = program_cost(Programs(model, recipe, 1).optimizer())
    products, other = optimizer_flops(costs, recipe)
    assert found.flops_products == products
    scalars = MUON_SCALARS if recipe.optimizer == "muon" else SCALARS
    assert 0 <= known(found.flops) - products - other < scalars
    _, params = nnx.split(model, nnx.Param)
    state = jax.eval_shape(make_optimizer(recipe, 1000).init, params)
    kept = sum(x.size for x in jax.tree.leaves(state) if x.ndim)
    assert kept == optimizer_numbers(costs, recipe)
