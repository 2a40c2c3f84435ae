"""Memory on paper, and the largest batch that fits into a given memory."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nin_jax.accounting.layers import LayerCost
from nin_jax.errors import UserError
from nin_jax.training.config import Precision, Recipe

ITEMSIZE: dict[Precision, int] = {"float32": 4, "bfloat16": 2}
PARAM_BYTES = 4  # parameters, gradients and optimiser state are float32 always
MOST_IMAGES = 2**31 - 1  # of a batch: their indices are int32
TORCH_INDEX_BYTES = 8  # torch.nn.MaxPool2d keeps each window's winner as int64


@dataclass(frozen=True)
class PaperMemory:
    """What has to be held at the same time, in bytes, by the shapes alone.

    No implementation can do with less, short of computing activations again; all need more, for
    temporaries and for what their libraries hold.

    Attributes:
        params_bytes: float32 parameters.
        images_bytes: the batch, in the precision of the computation.
        gradients_bytes: one for each parameter; training only.
        optimizer_bytes: momenta and the like; training only.
        activations_bytes: training: all that the backward pass will ask for, dropout's mask at one
            byte an element; prediction: the largest input and output of one layer.
    """

    params_bytes: int
    images_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int

    @property
    def total_bytes(self) -> int:
        return sum(asdict(self).values())

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"total_bytes": self.total_bytes}


def optimizer_numbers(costs: Sequence[LayerCost], recipe: Recipe) -> int:
    """Numbers that the optimiser keeps, its few counters left out."""
    params = sum(cost.params for cost in costs)
    biases = sum(cost.biases for cost in costs)
    match recipe.optimizer:
        case "adam":
            return 2 * params  # both moments
        case "muon":  # the momentum of kernels, both moments of biases, three coefficients
            return (params - biases) + 2 * biases + 3
        case "sgd":
            return params if recipe.momentum else 0


def training_memory(
    costs: Sequence[LayerCost], batch_size: int, precision: Precision, recipe: Recipe
) -> PaperMemory:
    """Of a training step on so many images at once."""
    params = PARAM_BYTES * sum(cost.params for cost in costs)
    return PaperMemory(
        params,
        batch_size * ITEMSIZE[precision] * costs[0].inputs,
        params,
        PARAM_BYTES * optimizer_numbers(costs, recipe),
        batch_size * kept_bytes(costs, precision),
    )


def prediction_memory(
    costs: Sequence[LayerCost], batch_size: int, precision: Precision
) -> PaperMemory:
    """Of the logits of so many images at once."""
    width = ITEMSIZE[precision]
    # The first layer's input is the batch itself, which is counted already.
    largest = max(
        cost.outputs + (cost.inputs if cost is not costs[0] else 0)
        for cost in costs
        if cost.kind != "dropout"
    )
    return PaperMemory(
        PARAM_BYTES * sum(cost.params for cost in costs),
        batch_size * width * costs[0].inputs,
        0,
        0,
        batch_size * width * largest,
    )


def kept_bytes(costs: Sequence[LayerCost], precision: Precision) -> int:
    """Of one image's activations and masks, for the backward pass."""
    kept = sum(cost.kept_elements for cost in costs)
    return ITEMSIZE[precision] * kept + sum(cost.mask_elements for cost in costs)


def torch_kept_bytes(costs: Sequence[LayerCost]) -> int:
    """What PyTorch's autograd keeps of one image, in float32, the image itself left out.

    The same activations; dropout's mask as float32, and the winner of each pool's window as int64.
    The tests hold it to ``torch.autograd.graph.saved_tensors_hooks``.
    """
    winners = sum(cost.outputs for cost in costs if cost.kind == "pool")
    masks = sum(cost.mask_elements for cost in costs)
    return kept_bytes(costs, "float32") - masks + 4 * masks + TORCH_INDEX_BYTES * winners


@dataclass(frozen=True)
class LargestBatch:
    """The largest batch, computed at once, whose program fits into a memory.

    Attributes:
        task: "train" or "predict".
        memory_bytes: what it has to fit into.
        images: the batch, at most `MOST_IMAGES`; 0 if not even one image fits, None if XLA does
            not tell.
        needed_bytes: what XLA plans for that batch.
    """

    task: str
    memory_bytes: int
    images: int | None
    needed_bytes: int | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def check_memory(memory_bytes: int, params_bytes: int) -> None:
    """Raises a UserError if the memory does not even hold the parameters."""
    if memory_bytes < params_bytes:
        raise UserError(
            f"a memory of {memory_bytes:,} bytes is smaller than the parameters alone: "
            f"{params_bytes:,} bytes"
        )


def largest_batch(
    task: str, memory_bytes: int, params_bytes: int, needed: Callable[[int], int | None]
) -> LargestBatch:
    """Searches for it; every guess is compiled and asked, none is only extrapolated.

    Args:
        task: for the answer.
        memory_bytes: what there is.
        params_bytes: of the parameters alone.
        needed: what XLA plans for a batch, in bytes, or None if it does not tell.

    Raises:
        UserError: the memory does not even hold the parameters.
    """
    check_memory(memory_bytes, params_bytes)
    try:
        images, plan = _search(memory_bytes, needed)
    except _NotToldError:
        return LargestBatch(task, memory_bytes, None, None)
    return LargestBatch(task, memory_bytes, images, plan)


class _NotToldError(Exception):
    """The back end does not say what a program needs."""


def _search(memory_bytes: int, needed: Callable[[int], int | None]) -> tuple[int, int]:
    """The largest batch that fits, and its need; 0 and the need of one image if none does."""
    known: dict[int, int] = {}

    def fits(batch: int) -> bool:
        if batch not in known:
            plan = needed(batch)
            if plan is None:
                raise _NotToldError
            known[batch] = plan
        return known[batch] <= memory_bytes

    if not fits(1):
        return 0, known[1]
    low, high = 1, 2  # low fits; high is not known to
    while fits(high):
        if high == MOST_IMAGES:
            return high, known[high]
        # Nearly proportional: the line through the last two finds it in a few steps.
        slope = max(1, (known[high] - known[low]) // (high - low))
        more = max(high, min(15 * high, (memory_bytes - known[high]) // slope))
        low, high = high, min(high + more, MOST_IMAGES)
    while high - low > 1:
        slope = max(1, (known[high] - known[low]) / (high - low))
        guess = low + int((memory_bytes - known[low]) / slope)
        middle = min(max(guess, low + 1), high - 1)
        low, high = (middle, high) if fits(middle) else (low, middle)
        if not fits(low + 1):
            break
    return low, known[low]
