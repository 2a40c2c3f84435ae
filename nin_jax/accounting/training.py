"""A training step in parts: forward, both kinds of gradients, the optimiser, and what is left.

Each part is counted on paper where a formula exists, and instruction by instruction in the program
that XLA is given: once as XLA's own operations, once as it really runs, with fewer products where
`nin_jax.winograd` applies and with more additions around them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nin_jax.accounting.layers import LayerCost
from nin_jax.accounting.programs import Programs
from nin_jax.accounting.xla import ProgramCost, program_cost
from nin_jax.config import Recipe


@dataclass(frozen=True)
class StepPart:
    """Operations of one part of the step, for the whole batch; None where it is not known.

    Attributes:
        name: of the part.
        flops_paper: by formula: twice the MACs that meet pixels, or the optimiser's arithmetic.
        plain_products, plain_other: of XLA's own operations: in convolutions and matrix products,
            and everything else.
        as_run_products, as_run_other: of the operations that run.
    """

    name: str
    flops_paper: int | None
    plain_products: int | None
    plain_other: int | None
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


def optimizer_flops(costs: Sequence[LayerCost], recipe: Recipe) -> int:
    """Arithmetic of an update, the few operations of the schedule left out.

    Each term is `optax`'s, in operations for each parameter.
    """
    params = sum(cost.params for cost in costs)
    biases = sum(cost.out_shape[-1] for cost in costs if cost.params)
    kernels = params - biases
    each = 2  # times the rate, plus the parameter
    total = 0
    if recipe.clip_norm > 0:
        # The norm: square and add; n numbers of an array are added with n - 1 additions, and its
        # sum is added to the others' with one. Then divide by the norm, times the bound, and
        # choose; a bound of 1 is no product.
        each += 4 if recipe.clip_norm == 1 else 5
    if recipe.weight_decay > 0:
        total += 2 * kernels
    if recipe.optimizer == "adam":
        # m = b1 m + (1 - b1) g is 3 and v, with a square, 4. Both corrected: 2. Then v's root,
        # plus epsilon, and the quotient: 2, the root itself being a transcendental.
        each += 3 + 4 + 2 + 2
    elif recipe.momentum:
        each += 4 if recipe.nesterov else 2  # g + momentum m, once or twice
    return total + each * params


def training_cost(programs: Programs, costs: Sequence[LayerCost]) -> TrainingCost:
    """Lowers and counts the step and its parts; nothing is compiled."""
    ways = {"plain": _Way(programs.plain()), "as_run": _Way(programs)}
    batch = programs.batch_size
    forward = 2 * batch * sum(cost.macs_on_pixels for cost in costs)
    first = next(cost for cost in costs if cost.macs)
    paper = {
        "forward and loss": forward,
        "gradients to inputs": forward - 2 * batch * first.macs_on_pixels,
        "gradients to weights": forward,
        "optimiser": optimizer_flops(costs, programs.recipe),
    }
    names = list(ways["plain"].parts)
    parts = [
        StepPart(name, paper.get(name), *ways["plain"].parts[name], *ways["as_run"].parts[name])
        for name in names
    ]
    whole = sum(paper.values())
    parts.append(StepPart("whole step", whole, *ways["plain"].whole, *ways["as_run"].whole))
    counted = {
        f"{way}: {name}": cost for way, found in ways.items() for name, cost in found.costs.items()
    }
    layers = _layers(costs, ways["as_run"])
    return TrainingCost(tuple(parts), layers, counted, programs.micro, programs.micro_batches)


Split = tuple[int | None, int | None]  # products, other operations


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
        self.layers = [
            (
                layer.name,
                program_cost(layer.to_input) if layer.to_input else None,
                program_cost(layer.to_weights),
            )
            for layer in programs.layer_gradients()
        ]
        loss, gradient, optimizer, step = map(_split, self.costs.values())
        to_inputs = _sum(_split(cost)[0] for _, cost, _ in self.layers if cost)
        to_weights = _sum(_split(cost)[0] for _, _, cost in self.layers)
        other = _minus(gradient[1], loss[1])
        rest = (
            _minus(_minus(step[0], gradient[0]), optimizer[0]),
            _minus(_minus(step[1], gradient[1]), optimizer[1]),
        )
        times = programs.micro_batches
        self.parts: dict[str, Split] = {
            "forward and loss": _times(loss, times),
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
