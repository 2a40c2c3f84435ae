"""The operations of a training step in parts: forward, gradients, optimizer, and the rest.

Each part is counted by formula ("on paper") if there is one, and instruction by instruction in two
programs: "plain", in XLA's own operations, and "as run". The latter has fewer products and more
additions where `nin_jax.models.winograd` applies.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from nin_jax.accounting.layers import LayerCost
from nin_jax.accounting.programs import Programs
from nin_jax.accounting.xla import ProgramCost, program_cost
from nin_jax.training.recipes import Recipe


@dataclass(frozen=True)
class StepPart:
    """Operations of one part of a step, for the whole batch; None if unknown.

    Attributes:
        name: of the part.
        paper_products: by formula for XLA's own operations, those of convolutions and matrix
            products: twice the MACs on pixels.
        paper_other: all other operations by formula. None if there is no formula, as for random
            numbers.
        plain_products, plain_other: of XLA's own operations, as XLA counts.
        plain_unexplained: the plain operations minus those by formula.
        as_run_products, as_run_other: of the program that runs.
    """

    name: str
    paper_products: int | None
    paper_other: int | None
    plain_products: int | None
    plain_other: int | None
    plain_unexplained: int | None
    as_run_products: int | None
    as_run_other: int | None


@dataclass(frozen=True)
class LayerProducts:
    """FLOPs of one layer's products for one image: forward by formula, gradients as they run."""

    name: str
    forward_paper: int
    input_gradient_as_run: float | None
    weight_gradient_as_run: float | None


@dataclass(frozen=True)
class TrainingCost:
    """Operations of a training step.

    Attributes:
        parts: in the order they run; the last is the whole step.
        layers: the gradients of each layer as they run.
        programs: the costs of the programs that were counted, by name.
        micro_batch_size: images in a micro-batch, as run.
        micro_batches: number of micro-batches; a last one that is not full costs as much.
    """

    parts: tuple[StepPart, ...]
    layers: tuple[LayerProducts, ...]
    programs: Mapping[str, ProgramCost]
    micro_batch_size: int
    micro_batches: int


Split = tuple[int | None, int | None]  # products, other operations
NEWTON_SCHULZ_ITERATIONS = 5


def optimizer_flops(costs: Sequence[LayerCost], recipe: Recipe) -> tuple[int, int]:
    """Count the FLOPs of an optimizer's update: (in matrix products, others).

    The formulas follow Optax, term by term. The few operations of the schedule and of counters are
    left out. Only Muon has matrix products.
    """
    biases = sum(cost.biases for cost in costs)
    kernels = sum(cost.params for cost in costs) - biases
    each = 2  # for each parameter: times the learning rate, plus the parameter
    products, other = 0, 0
    if recipe.clip_norm > 0:
        # The norm: square and add. An array of n numbers takes n - 1 additions, and one more adds
        # its sum to the other arrays'. Then divide by the norm, multiply by the bound, unless it
        # is 1, and select.
        each += 4 if recipe.clip_norm == 1 else 5
    if recipe.weight_decay > 0:
        other += 2 * kernels
    # Adam: m = b1 m + (1 - b1) g takes 3, and v, with a square, 4. Bias correction takes 2. Adding
    # epsilon and dividing take 2; the square root is a transcendental, which does not count.
    adam = 3 + 4 + 2 + 2
    match recipe.optimizer:
        case "sgd" if recipe.momentum:
            each += 4 if recipe.nesterov else 2  # g + momentum m, once or twice
        case "adam":
            each += adam
        case "muon":
            # The average m takes 3 as Adam's does, or 2 if the factor is 1 - 0, and its correction
            # 1. Nesterov also corrects g: 1, and averages again: 3.
            each += 4 if recipe.nesterov else 0
            other += (4 if recipe.momentum else 3) * kernels + adam * biases
            for cost in costs:
                if cost.params:
                    found = _orthogonalization_flops(cost.params // cost.biases - 1, cost.biases)
                    products, other = products + found[0], other + found[1]
    if recipe.bias_lr_mult != 1:
        other += biases
    if recipe.last_lr_mult != 1:
        other += [cost.params for cost in costs if cost.params][-1]
    return products, other + each * (kernels + biases)


def _orthogonalization_flops(inputs: int, outputs: int) -> tuple[int, int]:
    """Count Muon's FLOPs for one kernel: (in matrix products, others).

    The kernel is a matrix [inputs, outputs], transposed if necessary to X [m, n] with m <= n, and
    divided by its norm. An iteration computes A = X X^T, B = b A + (c A) A and a X + B X (Jordan et
    al., "Muon", 2024).
    """
    m, n = sorted((inputs, outputs))
    products = 2 * m * m * n + 2 * m * m * m + 2 * m * m * n
    iteration = 3 * m * m + 2 * m * n
    norm = 3 * m * n  # square, sum with epsilon, divide
    shape = m * n if outputs > inputs else 0  # times sqrt(outputs / inputs)
    return (
        NEWTON_SCHULZ_ITERATIONS * products,
        norm + NEWTON_SCHULZ_ITERATIONS * iteration + shape,
    )


def loss_flops(batch_size: int, classes: int, label_smoothing: float) -> tuple[int, int]:
    """Count the FLOPs of the summed cross-entropy of a batch: (forward, backward to the logits).

    The formulas follow Optax. Without smoothing, the forward pass finds the largest logit,
    subtracts it and adds up the exponentials, 3 operations for each class; the rest looks up the
    logit of the label, with bounds. With smoothing, it makes one-hot labels and uses every class.
    """
    if label_smoothing == 0:
        return batch_size * (3 * classes + 13) + 5, batch_size * (2 * classes + 8)
    return 10 * batch_size * classes - 1, 5 * batch_size * classes


DRAWS = "random numbers of dropout"


def _paper(programs: Programs, costs: Sequence[LayerCost]) -> dict[str, Split]:
    """Count by formula the parts of a step in XLA's own operations, the whole batch at once."""
    batch, recipe = programs.batch_size, programs.recipe
    forward = 2 * batch * sum(cost.macs_on_pixels for cost in costs)
    first = next(cost for cost in costs if cost.macs)
    loss, loss_back = loss_flops(batch, programs.model.num_classes, recipe.label_smoothing)
    # Dropout selects and divides for each element; its random numbers are a part of their own.
    each = sum(cost.flops() - 2 * cost.macs for cost in costs)
    each += sum(2 * cost.outputs for cost in costs if cost.kind == "dropout")
    back = sum(cost.elementwise_flops_back(batch) for cost in costs)
    params = sum(cost.params for cost in costs)
    return {
        "forward and loss": (forward, batch * each + loss),
        DRAWS: (0, None),
        "gradients to inputs": (forward - 2 * batch * first.macs_on_pixels, 0),
        "gradients to weights": (forward, 0),
        "masks, pools and biases, backward": (0, back + loss_back),
        "optimizer": optimizer_flops(costs, recipe),
        # Three operations convert a byte to its index in a table. Each gradient is divided by the
        # number of images, and squared and added for the norm.
        "images, random keys and sums": (0, 3 * batch * costs[0].inputs + 3 * params),
    }


def training_cost(programs: Programs, costs: Sequence[LayerCost]) -> TrainingCost:
    """Lower the step and its parts and count their operations; nothing is compiled.

    Args:
        programs: of the network, the recipe and the batch.
        costs: of the network's layers.
    """
    optimizer = program_cost(programs.optimizer())  # the same for any operations and batch
    plain, as_run = _Counted(programs.plain(), optimizer), _Counted(programs, optimizer)
    parts = []
    for name, paper in _paper(programs, costs).items():
        rest = _minus(_sum(plain.parts[name]), _sum(paper))
        parts.append(StepPart(name, *paper, *plain.parts[name], rest, *as_run.parts[name]))
    parts.append(_whole(parts))
    counted = {f"plain: {name}": cost for name, cost in plain.costs.items()}
    counted |= {f"as_run: {name}": cost for name, cost in as_run.costs.items()}
    layers = tuple(
        LayerProducts(
            cost.name,
            2 * cost.macs_on_pixels,
            *(_products_per_image(gradient, programs.micro) for gradient in gradients),
        )
        for cost, gradients in zip((c for c in costs if c.macs), as_run.gradients, strict=True)
    )
    return TrainingCost(tuple(parts), layers, counted, programs.micro, programs.micro_batches)


def _products_per_image(cost: ProgramCost | None, images: int) -> float | None:
    if cost is None or cost.flops_products is None:
        return None
    return cost.flops_products / images


def _whole(parts: Sequence[StepPart]) -> StepPart:
    """Add up the parts; a part without a formula adds nothing on paper and to the unexplained."""
    by_formula = [part for part in parts if part.paper_other is not None]
    return StepPart(
        "whole step",
        sum(part.paper_products or 0 for part in by_formula),
        sum(part.paper_other or 0 for part in by_formula),
        _sum(part.plain_products for part in parts),
        _sum(part.plain_other for part in parts),
        _sum(part.plain_unexplained for part in by_formula),
        _sum(part.as_run_products for part in parts),
        _sum(part.as_run_other for part in parts),
    )


class _Counted:
    """The counts of a step in one kind of operations.

    Attributes:
        costs: of the programs, by name.
        gradients: of each layer with a product: to its input, None for the first, and to its
            weights.
        parts: products and other operations of the parts of a step, for the whole batch.
    """

    def __init__(self, programs: Programs, optimizer_cost: ProgramCost):
        self.costs = {
            "loss": program_cost(programs.loss()),
            "gradient": program_cost(programs.gradient()),
            "optimizer": optimizer_cost,
            "step of one micro-batch": program_cost(programs.micro_step()),
        }
        loss, gradient, optimizer, step = map(_split, self.costs.values())
        draws: Split = (0, 0)
        if (lowered := programs.draws()) is not None:
            self.costs[DRAWS] = program_cost(lowered)
            draws = _split(self.costs[DRAWS])
        cost_of = cache(program_cost)  # layers of the same shape share programs
        self.gradients = [
            (to_input and cost_of(to_input), cost_of(to_weights))
            for to_input, to_weights in programs.layer_gradients()
        ]
        to_inputs = _sum(_split(cost)[0] for cost, _ in self.gradients if cost)
        to_weights = _sum(_split(cost)[0] for _, cost in self.gradients)
        rest = (
            _minus(_minus(step[0], gradient[0]), optimizer[0]),
            _minus(_minus(step[1], gradient[1]), optimizer[1]),
        )
        times = programs.micro_batches
        self.parts: dict[str, Split] = {
            "forward and loss": _times((loss[0], _minus(loss[1], draws[1])), times),
            DRAWS: _times(draws, times),
            "gradients to inputs": _times((to_inputs, 0), times),
            "gradients to weights": _times((to_weights, 0), times),
            "masks, pools and biases, backward": _times((0, _minus(gradient[1], loss[1])), times),
            "optimizer": optimizer,
            "images, random keys and sums": _times(rest, times),
        }


def _split(cost: ProgramCost) -> Split:
    return cost.flops_products, cost.flops_other


def _minus(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a - b


def _sum(numbers: Any) -> int | None:
    numbers = list(numbers)
    return None if any(n is None for n in numbers) else sum(numbers)


def _times(split: Split, times: int) -> Split:
    a, b = (None if n is None else times * n for n in split)
    return a, b
