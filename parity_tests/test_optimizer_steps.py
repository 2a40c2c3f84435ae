"""Twenty optimizer steps from the same start, on the same batches, give the same parameters."""

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
import optax
import pytest
import torch
from flax import nnx
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, MultiStepLR, SequentialLR

import nin_jax
import nin_torch_ref
from nin_jax.training.optimizer import make_optimizer, make_schedule
from nin_jax.training.recipes import RECIPES, Recipe
from parity_tests.frameworks import as_array, as_nchw, as_tensor, assert_close
from parity_tests.pairs import Pair, make_pair
from parity_tests.passes import compile_loss_and_gradient
from parity_tests.tolerances import MUON_BFLOAT16, OPTIMIZER_STEPS, RATES

Batches = list[tuple[np.ndarray, np.ndarray]]

STEPS, BATCH_SIZE = 20, 2


def _batches(image_size: tuple[int, int]) -> Batches:
    rng = np.random.default_rng(1)
    shape = (BATCH_SIZE, *image_size, 1)
    return [(rng.random(shape), rng.integers(10, size=BATCH_SIZE)) for _ in range(STEPS)]


def _torch_muon(params: Iterable[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """Return the recipe's optimizer in PyTorch, with gradient clipping."""
    params = list(params)
    optimizer = nin_torch_ref.Muon(
        params, recipe.lr, recipe.momentum, recipe.nesterov, recipe.weight_decay
    )

    def clip(*_: Any) -> None:  # clip_grad_norm_ adds 1e-6 to the norm
        grads = [param.grad for param in params if param.grad is not None]
        factor = recipe.clip_norm / torch.nn.utils.get_total_norm(grads)
        for grad in grads:
            grad.mul_(factor.clamp(max=1))

    if recipe.clip_norm:
        optimizer.register_step_pre_hook(clip)
    return optimizer


@cache
def _compiled_gradient(graphdef: nnx.GraphDef):
    """Compile the gradient once for all optimizers."""
    return compile_loss_and_gradient(graphdef)


def _train_flax(
    model: nin_jax.NiN, batches: Batches, optimizer: optax.GradientTransformation
) -> tuple[list[float], dict[str, np.ndarray]]:
    """Return the losses, and the final parameters as a state dict."""
    graphdef, params = nnx.split(model, nnx.Param)
    state = optimizer.init(params)

    @jax.jit
    def update(gradients: nnx.State, state: optax.OptState, params: nnx.State):
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    losses = []
    for images, labels in batches:
        (loss, _), gradients = _compiled_gradient(graphdef)(params, images, labels)
        params, state = update(gradients, state, params)
        losses.append(float(loss))
    return losses, nin_jax.convert.to_torch(nnx.merge(graphdef, params))


def _train_torch(
    model: nin_torch_ref.NiN, batches: Batches, optimizer: torch.optim.Optimizer
) -> tuple[list[float], dict[str, np.ndarray]]:
    """Do the same for the reference; it is in eval mode, so dropout is off."""
    losses = [
        float(nin_torch_ref.train_step(model, optimizer, as_nchw(images), as_tensor(labels)))
        for images, labels in batches
    ]
    return losses, {name: as_array(value) for name, value in model.state_dict().items()}


def _assert_same_training(
    pair: Pair, ours: optax.GradientTransformation, theirs: torch.optim.Optimizer
) -> None:
    """Assert that losses and parameters agree after the steps, and that every parameter moved."""
    start = nin_jax.convert.to_torch(pair.model)
    batches = _batches(pair.model.image_size)
    losses, params = _train_flax(pair.model, batches, ours)
    expected_losses, expected = _train_torch(pair.reference, batches, theirs)
    assert_close(losses, expected_losses, OPTIMIZER_STEPS, "losses")
    for name, value in params.items():
        moved = np.abs(value - start[name]).max()
        assert moved > 1e4 * OPTIMIZER_STEPS * np.abs(value).max(), f"{name} was hardly trained"
        assert_close(value, expected[name], OPTIMIZER_STEPS, name)


PLAIN = {"lr": 0.5}
MOMENTUM = {"lr": 0.1, "momentum": 0.9}  # the recipe paper has decay too


@pytest.mark.parametrize("options", [PLAIN, MOMENTUM, MOMENTUM | {"nesterov": True}], ids=str)
def test_sgd_steps(options):
    _check_sgd(make_pair(*_narrow("nin_fc")), options)


@pytest.mark.slow
def test_sgd_steps_of_a_whole_network():
    _check_sgd(make_pair("nin15"), MOMENTUM)


def _check_sgd(pair: Pair, options: dict[str, Any]) -> None:
    expected = torch.optim.SGD(pair.reference.parameters(), **options)
    _assert_same_training(pair, make_optimizer(Recipe(**options), STEPS), expected)


def test_adam_steps():
    """The decay is decoupled, and only of kernels."""
    pair = make_pair(*_narrow("nin_fc"))
    groups = [
        {"params": [param], "weight_decay": 0.1 if param.ndim > 1 else 0.0}
        for param in pair.reference.parameters()
    ]
    recipe = Recipe(lr=1e-3, optimizer="adam", weight_decay=0.1)
    optimizer = make_optimizer(recipe, STEPS)
    _assert_same_training(pair, optimizer, torch.optim.AdamW(groups, recipe.lr))


@pytest.mark.parametrize("variant", ["nin_cifar10", pytest.param("nin_fc", marks=pytest.mark.slow)])
def test_steps_of_the_recipe_paper(variant):
    """Kernels, biases and the last layer have learning rates of their own."""
    recipe = replace(RECIPES["paper"](nin_jax.get_variant(variant)), schedule="constant")
    pair = make_pair(*_narrow(variant))
    *_, (last, _) = pair.reference.named_parameters()
    groups = [
        {
            "params": [param],
            "lr": recipe.lr
            * (2.0 if param.ndim == 1 else 1.0)
            * (0.1 if name.rpartition(".")[0] == last.rpartition(".")[0] else 1.0),
            "weight_decay": recipe.weight_decay if param.ndim > 1 else 0.0,
        }
        for name, param in pair.reference.named_parameters()
    ]
    expected = torch.optim.SGD(groups, momentum=recipe.momentum)
    _assert_same_training(pair, make_optimizer(recipe, STEPS), expected)


@pytest.mark.parametrize(
    ("variant", "changes"),
    [
        ("nin_one_1x1", {}),
        pytest.param(
            "nin_fc",
            {
                "nesterov": False,
                "weight_decay": 0.0,
                "clip_norm": 0.0,
                "momentum": 0.8,
                "init": "he",
            },
            marks=pytest.mark.slow,
        ),
    ],
    ids=str,
)
def test_muon_steps(variant, changes):
    """The optimizer of recipe modern at a constant rate; its schedule computes in float32."""
    recipe = RECIPES["modern"](nin_jax.get_variant(variant))
    recipe = replace(recipe, schedule="constant", warmup=0.0, **changes)
    options: dict[str, Any] = {"init": recipe.init, "logit_relu": recipe.logit_relu}
    pair = make_pair(*_narrow(variant), **options)
    expected = _torch_muon(pair.reference.parameters(), recipe)
    _assert_same_training(pair, make_optimizer(recipe, STEPS), expected)


def _narrow(variant: str) -> tuple[nin_jax.Variant, nin_torch_ref.Architecture]:
    """Divide a network's channels by 8: the work of a step grows with at least their square."""
    wide, architecture = nin_jax.get_variant(variant), nin_torch_ref.ARCHITECTURES[variant]

    def eighth(channels):
        if isinstance(channels, tuple):
            return tuple(map(eighth, channels))
        return channels and channels // 8

    *stages, head = (
        replace(stage, channels=eighth(stage.channels)) for stage in (*wide.stages, wide.head)
    )
    blocks = ((eighth(block[0]), *block[1:]) for block in architecture.blocks)
    mlps = (
        tuple((*map(eighth, layer[:-2]), *layer[-2:]) for layer in mlp) for mlp in architecture.mlps
    )
    narrow = replace(architecture, blocks=tuple(blocks), mlps=tuple(mlps))
    return replace(wide, stages=tuple(stages), head=head), narrow


def test_the_learning_rates_of_modern_match_pytorch():
    recipe, steps = RECIPES["modern"](nin_jax.get_variant("nin")), 50
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], recipe.lr)
    warm, rest = LinearLR(optimizer, 1 / 5, total_iters=5), CosineAnnealingLR(optimizer, 45)
    _check_rates(recipe, SequentialLR(optimizer, [warm, rest], [5]), steps)


def _check_rates(recipe: Recipe, scheduler: Any, steps: int) -> None:
    expected = []
    for _ in range(steps):
        expected.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    rates = jax.vmap(make_schedule(recipe, steps))(np.arange(steps))
    assert_close(np.array(rates, np.float64), expected, RATES, "learning rates")


@pytest.mark.parametrize("warmup", [0, 5])
@pytest.mark.parametrize("epochs", [1, 26, 260])
def test_the_learning_rates_of_paper_match_pytorch(epochs, warmup):
    """260 epochs of some batches; a short run has its steps at the same fractions."""
    per_epoch, steps = 3, 3 * epochs
    warmup = min(warmup, steps // 2)
    recipe = RECIPES["paper"](nin_jax.get_variant("nin_cifar10"))
    recipe = replace(recipe, warmup=(warmup + 0.5) / steps if warmup else 0.0)
    milestones = [round(fraction * steps) for fraction in (200 / 260, 230 / 260)]
    if epochs == 260:
        assert milestones == [200 * per_epoch, 230 * per_epoch]
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], recipe.lr)
    falls: Any = MultiStepLR(optimizer, [at - warmup for at in milestones], recipe.lr_factor)
    if warmup:
        warm = LinearLR(optimizer, 1 / warmup, total_iters=warmup)
        falls = SequentialLR(optimizer, [warm, falls], [warmup])
    _check_rates(recipe, falls, steps)


# Kernels [K, K, C, O] with more inputs than outputs and the reverse, and a linear layer's [N, M].
KERNELS = [(3, 3, 16, 24), (1, 1, 32, 32), (3, 3, 1, 64), (40, 10)]


def test_muon_matches_torch_optim(rng):
    """PyTorch's parameter is the matrix [O, K K C]; `nin_torch_ref.Muon` says why no Nesterov."""
    # A decay this large moves a kernel about as far as the updates do.
    options: dict[str, Any] = {"momentum": 0.95, "nesterov": False, "weight_decay": 2.0}
    optimizer = make_optimizer(Recipe(lr=0.02, optimizer="muon", **options), STEPS)
    start = [0.03 * rng.normal(size=shape) for shape in KERNELS]
    parameters = [nn.Parameter(as_tensor(_as_matrix(kernel))) for kernel in start]
    theirs = torch.optim.Muon(parameters, 0.02, adjust_lr_fn="original", **options)

    @jax.jit
    def update(gradients: Any, state: optax.OptState, kernels: Any) -> Any:
        updates, state = optimizer.update(gradients, state, kernels)
        return optax.apply_updates(kernels, updates), state

    kernels, state = start, optimizer.init(start)
    for _ in range(STEPS):
        gradients = [rng.normal(size=shape) for shape in KERNELS]
        kernels, state = update(gradients, state, kernels)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = as_tensor(_as_matrix(gradient))
        theirs.step()
    for before, actual, expected in zip(start, kernels, parameters, strict=True):
        moved = as_array(expected) - _as_matrix(before)
        error = np.linalg.norm(_as_matrix(actual) - as_array(expected)) / np.linalg.norm(moved)
        assert error <= MUON_BFLOAT16, f"{before.shape}: {error:.2e}"


def _as_matrix(kernel: npt.ArrayLike) -> np.ndarray:
    """[K, K, C, O] -> [O, K K C], or [N, M] -> [M, N]."""
    kernel = np.asarray(kernel)
    return np.ascontiguousarray(kernel.reshape(-1, kernel.shape[-1]).T)
