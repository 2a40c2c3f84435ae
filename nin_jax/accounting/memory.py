"""Memory by formula, and the largest batch that fits into a given memory."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nin_jax.accounting.layers import LayerCost
from nin_jax.errors import UserError
from nin_jax.training.config import Precision
from nin_jax.training.recipes import Recipe

ITEMSIZE: dict[Precision, int] = {"float32": 4, "bfloat16": 2}
PARAM_BYTES = 4  # parameters, gradients and optimizer state are always float32
MAX_BATCH_SIZE = 2**31 - 1  # indices of images are int32
TORCH_INDEX_BYTES = 8  # torch.nn.MaxPool2d keeps the index of each maximum as int64


@dataclass(frozen=True)
class PaperMemory:
    """Bytes that must be held at the same time, computed from the shapes alone.

    An implementation that does not recompute activations needs at least this. Temporaries and
    libraries come on top.

    Attributes:
        params_bytes: float32 parameters.
        images_bytes: the batch, in the precision of the computation.
        gradients_bytes: one for each parameter; 0 in prediction.
        optimizer_bytes: momenta and similar state; 0 in prediction.
        activations_bytes: in training, all that the backward pass needs, with one byte for each
            element of a dropout mask; in prediction, the largest input and output of one layer.
    """

    params_bytes: int
    images_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int

    @property
    def total_bytes(self) -> int:
        """The sum of all parts."""
        return sum(asdict(self).values())

    def to_dict(self) -> dict[str, Any]:
        """Return the parts and their sum as plain data."""
        return asdict(self) | {"total_bytes": self.total_bytes}


def optimizer_numbers(costs: Sequence[LayerCost], recipe: Recipe) -> int:
    """Count the numbers in the optimizer's state, without its few counters."""
    params = sum(cost.params for cost in costs)
    biases = sum(cost.biases for cost in costs)
    match recipe.optimizer:
        case "adam":
            return 2 * params  # both moments
        case "muon":  # a momentum for kernels, both moments for biases, three coefficients
            return (params - biases) + 2 * biases + 3
        case "sgd":
            return params if recipe.momentum else 0


def training_memory(
    costs: Sequence[LayerCost], batch_size: int, precision: Precision, recipe: Recipe
) -> PaperMemory:
    """Return the memory of a training step that computes the whole batch at once."""
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
    """Return the memory of a prediction that computes the whole batch at once."""
    width = ITEMSIZE[precision]
    # The input of the first layer is the batch, which images_bytes counts. Dropout does nothing.
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
    """Return the bytes of activations and masks that the backward pass needs, for one image."""
    kept = sum(cost.kept_elements for cost in costs)
    return ITEMSIZE[precision] * kept + sum(cost.mask_elements for cost in costs)


def torch_kept_bytes(costs: Sequence[LayerCost]) -> int:
    """Return the bytes that PyTorch's autograd keeps for one float32 image, without the image.

    They are the activations of `kept_bytes`, each dropout mask as float32, and for each window of a
    max pool the int64 index of its maximum. The tests compare them with what
    ``torch.autograd.graph.saved_tensors_hooks`` reports.
    """
    maxima = sum(cost.maxima for cost in costs)
    masks = sum(cost.mask_elements for cost in costs)
    return kept_bytes(costs, "float32") - masks + 4 * masks + TORCH_INDEX_BYTES * maxima


@dataclass(frozen=True)
class LargestBatch:
    """The largest batch whose program fits into a given memory, computed at once.

    Attributes:
        task: "train" or "predict".
        memory_bytes: the given memory.
        images: batch size, at most `MAX_BATCH_SIZE`; 0 if not even one image fits, None if XLA
            does not report memory.
        needed_bytes: the memory that XLA plans for that batch.
    """

    task: str
    memory_bytes: int
    images: int | None
    needed_bytes: int | None


def check_memory(memory_bytes: int, params_bytes: int) -> None:
    """Raise a UserError if the parameters alone do not fit into the memory."""
    if memory_bytes < params_bytes:
        raise UserError(
            f"a memory of {memory_bytes:,} bytes is smaller than the parameters alone: "
            f"{params_bytes:,} bytes"
        )


def largest_batch(
    task: str, memory_bytes: int, params_bytes: int, needed: Callable[[int], int | None]
) -> LargestBatch:
    """Search for the largest batch that fits; every batch size tried is compiled.

    Args:
        task: "train" or "predict".
        memory_bytes: the given memory.
        params_bytes: size of the parameters.
        needed: returns the bytes that XLA plans for a batch size, or None if unknown.

    Raises:
        UserError: the parameters alone do not fit into the memory.
    """
    check_memory(memory_bytes, params_bytes)
    try:
        return LargestBatch(task, memory_bytes, *_search(memory_bytes, needed))
    except _UnknownError:
        return LargestBatch(task, memory_bytes, None, None)


class _UnknownError(Exception):
    """The back end does not report the memory of a program."""


def _search(memory_bytes: int, needed: Callable[[int], int | None]) -> tuple[int, int]:
    """Return the largest batch size that fits and its bytes; (0, bytes of one image) if none."""
    known: dict[int, int] = {}

    def fits(batch: int) -> bool:
        if batch not in known:
            plan = needed(batch)
            if plan is None:
                raise _UnknownError
            known[batch] = plan
        return known[batch] <= memory_bytes

    if not fits(1):
        return 0, known[1]
    low, high = 1, 2  # low fits; high may not
    while fits(high):
        if high == MAX_BATCH_SIZE:
            return high, known[high]
        # Memory is nearly linear in the batch size: extrapolate from the last two.
        slope = max(1, (known[high] - known[low]) // (high - low))
        more = max(high, min(15 * high, (memory_bytes - known[high]) // slope))
        low, high = high, min(high + more, MAX_BATCH_SIZE)
    while high - low > 1:
        slope = max(1, (known[high] - known[low]) / (high - low))
        guess = low + int((memory_bytes - known[low]) / slope)
        middle = min(max(guess, low + 1), high - 1)
        low, high = (middle, high) if fits(middle) else (low, middle)
        if not fits(low + 1):
            break
    return low, known[low]
