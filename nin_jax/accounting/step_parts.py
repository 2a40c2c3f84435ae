"""A training step in parts: forward, both kinds of gradients, the optimiser, and what is left.

Each part is counted on paper where a formula exists, and instruction by instruction in the program
that XLA is given: once as XLA's own operations, once as it really runs, with fewer products where
`nin_jax.models.winograd` applies and with more additions around them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from nin_jax.accounting.layers import LayerCost
from nin_jax.accounting.programs import Programs
from nin_jax.accounting.xla import ProgramCost, program_cost
from nin_jax.training.config import Recipe


@dataclass(frozen=True)
class StepPart:
    """Operations of one part of the step, for the whole batch; None where it is not known.

    Attributes:
        name: of the part.
        paper_products, paper_other: by formula, for XLA's own operations: in convolutions and
            matrix products, twice the MACs that meet pixels; and everything else. None where there
            is no formula: of random numbers.
        plain_products, plain_other: of XLA's own operations, as XLA counts.
        plain_unexplained: what the formulas leave of them.
        as_run_products, as_run_other: of the operations that run.
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
    """FLOPs of one layer's products for one image: on paper, as XLA's own, and as they run."""

    name: str
    forward_paper: int
    input_gradient_as_run: float | None
    weight_gradient_as_run: float | None


@dataclass(frozen=True)
class TrainingCost:
    """What a training step computes.

    Attributes:
        parts: in the order they run; the last is the whole.
        layers: each layer's gradients as they run.
        programs: the programs behind the parts, with XLA's own figures; by name.
        micro_batch_size, micro_batches: images worked on at a time, and how many times, as run.
            A last micro-batch that is not full is computed like a full one.
    """

    parts: tuple[StepPart, ...]
    layers: tuple[LayerProducts, ...]
    programs: Mapping[str, ProgramCost]
    micro_batch_size: int
    micro_batches: int

    def to_dict(self) -> dict[str, Any]:
        return {
            "micro_batch_size": self.micro_batch_size,
            "micro_batches": self.micro_batches,
            "parts": [asdict(part) for part in self.parts],
            "layers": [asdict(layer) for layer in self.layers],
            "programs": {name: cost.to_dict() for name, cost in self.programs.items()},
        }


Split = tuple[int | None, int | None]  # products, other operations
NEWTON_SCHULZ_ITERATIONS = 5


def optimizer_flops(costs: Sequence[LayerCost], recipe: Recipe) -> tuple[int, int]:
    """Arithmetic of an update: in matrix products, and other operations.

    The few operations of the schedule and of counters are left out. Each term is `optax`'s, in
    operations for each parameter. Only Muon has products.
    """
    biases = sum(cost.biases for cost in costs)
    kernels = sum(cost.params for cost in costs) - biases
    each = 2  # times the rate, plus the parameter
    products, other = 0, 0
    if recipe.clip_norm > 0:
        # The norm: square and add; n numbers of an array are added with n - 1 additions, and its
        # sum is added to the others' with one. Then divide by the norm, times the bound, and
        # choose; a bound of 1 is no product.
        each += 4 if recipe.clip_norm == 1 else 5
    if recipe.weight_decay > 0:
        other += 2 * kernels
    # Adam: m = b1 m + (1 - b1) g is 3 and v, with a square, 4. Both corrected: 2. Then v's root,
    # plus epsilon, and the quotient: 2, the root itself being a transcendental.
    adam = 3 + 4 + 2 + 2
    match recipe.optimizer:
        case "sgd" if recipe.momentum:
            each += 4 if recipe.nesterov else 2  # g + momentum m, once or twice
        case "adam":
            each += adam
        case "muon":
            # The average m as Adam's, where a factor of 1 - 0 is no product; corrected. Nesterov
            # corrects g too: 1, and averages again: 3.
            each += 4 if recipe.nesterov else 0
            other += (4 if recipe.momentum else 3) * kernels + adam * biases
            for cost in costs:
                if cost.params:
                    found = _orthogonalising_flops(cost.params // cost.biases - 1, cost.biases)
                    products, other = products + found[0], other + found[1]
    return products, other + each * (kernels + biases)


def _orthogonalising_flops(inputs: int, outputs: int) -> tuple[int, int]:
    """Of one kernel as a matrix [inputs, outputs], or [outputs, inputs] where that is wide.

    Divided by its norm X is [m, n], m <= n. An iteration is A = X X^T, B = b A + (c A) A and
    a X + B X (Jordan et al. 2024).

    Returns:
        FLOPs in matrix products, and other ones.
    """
    m, n = sorted((inputs, outputs))
    products = 2 * m * m * n + 2 * m * m * m + 2 * m * m * n
    iteration = 3 * m * m + 2 * m * n
    norm = 3 * m * n  # square, add up with epsilon, divide
    shape = m * n if outputs > inputs else 0  # times sqrt(outputs / inputs)
    return (
        NEWTON_SCHULZ_ITERATIONS * products,
        norm + NEWTON_SCHULZ_ITERATIONS * iteration + shape,
    )


def loss_flops(batch_size: int, classes: int, label_smoothing: float) -> tuple[int, int]:
    """Of the batch's summed cross-entropy: forward, and going back to the logits.

    Each is `optax`'s. Without smoothing, forward: each logit is compared for the largest, which is
    subtracted, and the exponentials, which XLA counts apart, are added: 3 a class; the rest looks
    up the label's logit within bounds. With smoothing all classes have a share, and one-hot labels
    are made first.
    """
    if label_smoothing == 0:
        return batch_size * (3 * classes + 13) + 5, batch_size * (2 * classes + 8)
    return 10 * batch_size * classes - 1, 5 * batch_size * classes


def _paper(programs: Programs, costs: Sequence[LayerCost]) -> dict[str, Split]:
    """By formula: the parts of the step of XLA's own operations, the whole batch at once."""
    batch, recipe = programs.batch_size, programs.recipe
    forward = 2 * batch * sum(cost.macs_on_pixels for cost in costs)
    first = next(cost for cost in costs if cost.macs)
    loss, loss_back = loss_flops(batch, programs.model.num_classes, recipe.label_smoothing)
    # Dropout chooses and divides for each element; its draws are a part of their own.
    each = sum(cost.elementwise_flops() + 2 * cost.mask_elements for cost in costs)
    back = sum(cost.elementwise_flops_back(batch) for cost in costs)
    params = sum(cost.params for cost in costs)
    return {
        "forward and loss": (forward, batch * each + loss),
        DRAWS: (0, None),
        "gradients to inputs": (forward - 2 * batch * first.macs_on_pixels, 0),
        "gradients to weights": (forward, 0),
        "masks, pools and biases, going back": (0, back + loss_back),
        "optimiser": optimizer_flops(costs, recipe),
        # Three conversions from a byte to its place in a table; each gradient is divided by the
        # number of images, and squared and added for the norm.
        "images, random keys and sums": (0, 3 * batch * costs[0].inputs + 3 * params),
    }


def training_cost(programs: Programs, costs: Sequence[LayerCost]) -> TrainingCost:
    """Lowers and counts the step and its parts; nothing is compiled."""
    ways = {"plain": _Way(programs.plain()), "as_run": _Way(programs)}
    parts = []
    for name, paper in _paper(programs, costs).items():
        plain = ways["plain"].parts[name]
        rest = _minus(_sum(plain), _sum(paper))
        parts.append(StepPart(name, *paper, *plain, rest, *ways["as_run"].parts[name]))
    parts.append(_whole(parts, ways["plain"].whole, ways["as_run"].whole))
    counted = {
        f"{way}: {name}": cost for way, found in ways.items() for name, cost in found.costs.items()
    }
    layers = _layers(costs, ways["as_run"])
    return TrainingCost(tuple(parts), layers, counted, programs.micro, programs.micro_batches)


def _whole(parts: Sequence[StepPart], plain: Split, as_run: Split) -> StepPart:
    """The sum of the parts; what has no formula is in no sum on paper, and not unexplained."""
    products = sum(part.paper_products or 0 for part in parts)
    other = sum(part.paper_other or 0 for part in parts)
    by_formula = [part for part in parts if part.paper_other is not None]
    rest = _sum(part.plain_unexplained for part in by_formula)
    return StepPart("whole step", products, other, *plain, rest, *as_run)


DRAWS = "dropout's random numbers"


class _Way:
    """One way to state the step: its programs, and its parts for the whole batch."""

    def __init__(self, programs: Programs):
        self.images = programs.micro
        self.costs = {
            "loss": program_cost(programs.loss()),
            "gradient": program_cost(programs.gradient()),
            "optimiser": program_cost(programs.optimizer()),
            "step of one micro-batch": program_cost(programs.micro_step()),
        }
        cost_of = cache(program_cost)  # layers of one shape share their programs
        self.layers = [
            (
                layer.name,
                cost_of(layer.to_input) if layer.to_input else None,
                cost_of(layer.to_weights),
            )
            for layer in programs.layer_gradients()
        ]
        loss, gradient, optimizer, step = map(_split, self.costs.values())
        drawing = programs.draws()
        if drawing is not None:
            self.costs[DRAWS] = program_cost(drawing)
        draws = (0, 0) if drawing is None else _split(self.costs[DRAWS])
        to_inputs = _sum(_split(cost)[0] for _, cost, _ in self.layers if cost)
        to_weights = _sum(_split(cost)[0] for _, _, cost in self.layers)
        other = _minus(gradient[1], loss[1])
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
            "masks, pools and biases, going back": _times((0, other), times),
            "optimiser": optimizer,
            "images, random keys and sums": _times(rest, times),
        }
        self.whole: Split = (
            _sum(part[0] for part in self.parts.values()),
            _sum(part[1] for part in self.parts.values()),
        )


def _split(cost: ProgramCost) -> Split:
    if cost.flops is None or cost.flops_products is None:
        return None, None
    return cost.flops_products, cost.flops - cost.flops_products


def _minus(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a - b


def _sum(numbers: Any) -> int | None:
    numbers = list(numbers)
    return None if any(n is None for n in numbers) else sum(numbers)


def _times(split: Split, times: int) -> Split:
    a, b = (None if n is None else times * n for n in split)
    return a, b


def _layers(costs: Sequence[LayerCost], way: _Way) -> tuple[LayerProducts, ...]:
    forward = {cost.name: 2 * cost.macs_on_pixels for cost in costs}

    def each(cost: ProgramCost | None) -> float | None:
        if cost is None or cost.flops_products is None:
            return None
        return cost.flops_products / way.images

    return tuple(
        LayerProducts(name, forward[name], each(to_input), each(to_weights))
        for name, to_input, to_weights in way.layers
    )
