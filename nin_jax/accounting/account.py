"""`account`: the parameters, computation and memory of a network, as plain data."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import jax

from nin_jax.accounting.conventions import CONVENTIONS, all_counts
from nin_jax.accounting.layers import LayerCost, layer_costs
from nin_jax.accounting.memory import (
    ITEMSIZE,
    MAX_BATCH_SIZE,
    LargestBatch,
    kept_bytes,
    largest_batch,
    prediction_memory,
    torch_kept_bytes,
    training_memory,
)
from nin_jax.accounting.model_check import check_model
from nin_jax.accounting.programs import Programs, abstract_model
from nin_jax.accounting.step_parts import TrainingCost, optimizer_flops, training_cost
from nin_jax.accounting.xla import (
    ProgramCost,
    TaskMemory,
    plan_memory,
    program_cost,
    xla_memory,
)
from nin_jax.errors import UserError, unknown_name
from nin_jax.models.geometry import as_height_width, trace
from nin_jax.models.nin import NiN
from nin_jax.models.stages import ImageSize
from nin_jax.models.variants import Variant, get_variant
from nin_jax.training.config import Precision
from nin_jax.training.recipes import RECIPES, Recipe

Task = Literal["train", "predict"]


@dataclass(frozen=True)
class Account:
    """The costs of a network. Counts are of one image, memory is of a batch.

    Attributes:
        variant, in_channels, num_classes, batch_size, precision: what was counted.
        image_size: (height, width) in pixels.
        recipe: name of the recipe, which sets the optimizer, loss and last ReLU.
        platform: that of XLA's analysis; None without one.
        layers: costs of each layer.
        counts: operations of the forward pass by each convention, by its key.
        forward: programs of the forward pass of one image: "plain" and "as_run".
        optimizer_products: FLOPs of the optimizer's matrix products in a step; only Muon has any.
        training: the training step in parts; None if not requested.
        memory: of a prediction and of a training step.
        largest_batches: that fit into a given memory, if requested.
    """

    variant: str
    in_channels: int
    num_classes: int
    image_size: tuple[int, int]
    batch_size: int
    precision: Precision
    recipe: str
    platform: str | None
    layers: tuple[LayerCost, ...]
    counts: Mapping[str, int]
    forward: Mapping[str, ProgramCost]
    optimizer_products: int
    training: TrainingCost | None
    memory: Mapping[Task, TaskMemory]
    largest_batches: tuple[LargestBatch, ...] = ()

    def total(self, field: str) -> int:
        """Return the sum of a field of `LayerCost` over all layers."""
        return sum(getattr(layer, field) for layer in self.layers)

    @property
    def params(self) -> int:
        """Number of parameters."""
        return self.total("params")

    @property
    def macs(self) -> int:
        """Multiply-adds of the forward pass of one image."""
        return self.total("macs")

    @property
    def flops_per_training_step(self) -> int:
        """FLOPs in products: 2 x MACs forward and for each gradient, and the optimizer's.

        Elementwise operations are left out.
        """
        backward = self.counts["flop_counter_mode_backward"]
        return self.batch_size * (2 * self.macs + backward) + self.optimizer_products

    def predicted_torch_step_bytes(self, with_gradients: bool) -> int | None:
        """Return the bytes of a step of PyTorch in float32; None for another precision.

        They are what autograd keeps or, without gradients, the input and output of the largest
        layer.
        """
        if self.precision != "float32":
            return None
        if with_gradients:
            return self.batch_size * torch_kept_bytes(self.layers)
        return self.memory["predict"].paper.activations_bytes

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON; keys name their units."""
        layers = [
            layer.to_dict() | {"flops_per_byte": round(self.intensity(layer), 3)}
            for layer in self.layers
        ]
        return {
            "variant": self.variant,
            "in_channels": self.in_channels,
            "num_classes": self.num_classes,
            "image_size": list(self.image_size),
            "batch_size": self.batch_size,
            "precision": self.precision,
            "recipe": self.recipe,
            "platform": self.platform,
            "params": self.params,
            "macs": self.macs,
            "flops_per_byte": round(self.intensity(), 3),
            "flops_per_training_step": self.flops_per_training_step,
            "flops_of_optimizer_products": self.optimizer_products,
            "activations_kept_bytes": kept_bytes(self.layers, self.precision),
            "activations_kept_by_torch_bytes": torch_kept_bytes(self.layers),
            "conventions": {
                c.key: {"count": self.counts[c.key], "unit": c.unit, "source": c.source}
                for c in CONVENTIONS
            },
            "layers": layers,
            "forward": {name: asdict(cost) for name, cost in self.forward.items()},
            "training": self.training and asdict(self.training),
            "memory": {task: memory.to_dict() for task, memory in self.memory.items()},
            "largest_batches": [asdict(batch) for batch in self.largest_batches],
        }

    def intensity(self, *layers: LayerCost) -> float:
        """Return FLOPs per byte that layers move for a batch, each on its own; of all if none.

        Source: Williams, Waterman and Patterson, "Roofline" (2009).
        """
        layers, itemsize = layers or tuple(self.layers), ITEMSIZE[self.precision]
        flops = self.batch_size * sum(layer.flops() for layer in layers)
        return flops / sum(layer.moved_bytes(self.batch_size, itemsize) for layer in layers)


def account(
    variant: str | Variant | NiN = "nin",
    *,
    image_size: ImageSize | None = None,
    in_channels: int = 1,
    num_classes: int = 10,
    batch_size: int = 1,
    precision: Precision = "float32",
    recipe: str | Recipe = "d2l",
    train: bool = False,
    xla: bool = True,
    memory_bytes: int | None = None,
) -> Account:
    """Count the parameters, computation and memory of a network, by formula and by XLA.

    No parameter is initialized and nothing is computed: XLA analyzes programs on shapes.

    Args:
        variant: a name, a file, a `Variant`, or a model. A model's own channels, classes, image
            size, precision, dropout rates and last ReLU replace the arguments.
        image_size: side in pixels, or (height, width); None for the variant's.
        in_channels, num_classes: as for `create_model`.
        batch_size: for memory and for the training step; counts are of one image.
        precision: of the computation.
        recipe: "d2l", "modern", "paper" or a `Recipe`, for the optimizer, the loss and the last
            ReLU.
        train: also count and compile the training step, which takes a few seconds.
        xla: whether to add XLA's analysis. If False, all figures are by formula, unless `train` or
            `memory_bytes` needs XLA.
        memory_bytes: if given, also find the largest batches that fit into it.

    Raises:
        UserError: as `create_model`; the precision or the recipe is unknown; the batch size is not
            from 1 to 2**31 - 1; or the memory is smaller than the parameters.
        ValueError: the model has a layer or a setting without a rule.

    Example:
        >>> account("nin", in_channels=3, xla=False).counts["thop"]
        830042124
    """
    model = variant if isinstance(variant, NiN) else None
    if model is not None:
        precision, layers = check_model(model)
        in_channels, num_classes = model.in_channels, model.num_classes
        image_size = model.image_size
    _check(batch_size, precision)
    variant = get_variant(variant) if not isinstance(variant, NiN) else variant.variant
    name = recipe if isinstance(recipe, str) else "custom"
    if isinstance(recipe, str):
        if recipe not in RECIPES:
            raise unknown_name("recipe", recipe, RECIPES)
        recipe = RECIPES[recipe](variant)
    sides = as_height_width(variant.image_size if image_size is None else image_size)
    if model is None:
        layers = trace(variant, in_channels, num_classes, sides)
    logit_relu = recipe.logit_relu if model is None else model.head.last_relu
    costs = layer_costs(layers, logit_relu)
    memory: dict[Task, TaskMemory] = {
        "predict": TaskMemory(prediction_memory(costs, batch_size, precision)),
        "train": TaskMemory(training_memory(costs, batch_size, precision, recipe)),
    }
    found = Account(
        variant=variant.name,
        in_channels=in_channels,
        num_classes=num_classes,
        image_size=sides,
        batch_size=batch_size,
        precision=precision,
        recipe=name,
        platform=None,
        layers=tuple(costs),
        counts=all_counts(costs),
        forward={},
        optimizer_products=optimizer_flops(costs, recipe)[0],
        training=None,
        memory=memory,
    )
    if not xla and not train and memory_bytes is None:
        return found
    if model is None:
        model = abstract_model(variant, in_channels, num_classes, sides, precision, logit_relu)
    programs = Programs(model, recipe, batch_size)
    return _with_xla(found, programs, xla=xla, train=train, memory_bytes=memory_bytes)


def _check(batch_size: int, precision: str) -> None:
    if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
        raise UserError(f"batch size must be a whole number >= 1, got {batch_size!r}")
    if batch_size > MAX_BATCH_SIZE:
        raise UserError(f"batch size must be at most {MAX_BATCH_SIZE}, 2**31 - 1, got {batch_size}")
    if precision not in ITEMSIZE:
        raise unknown_name("precision", str(precision), ITEMSIZE)


def _with_xla(
    found: Account, programs: Programs, *, xla: bool, train: bool, memory_bytes: int | None
) -> Account:
    """Add what XLA reports to an account by formula."""
    plain, memory = programs.plain(), dict(found.memory)
    forward: dict[str, ProgramCost] = {}
    training, largest = None, ()
    if xla or train:
        lowered = {"plain": plain.forward(1), "as_run": programs.forward(1)}
        forward = {name: program_cost(each, each.compile()) for name, each in lowered.items()}
        memory["predict"] = plan_memory(
            memory["predict"].paper, plain.forward(found.batch_size), programs.predict()
        )
    if train:
        training = training_cost(programs, found.layers)
        memory["train"] = plan_memory(
            memory["train"].paper, plain.train_step(), programs.train_step()
        )
    if memory_bytes is not None:
        params_bytes = memory["predict"].paper.params_bytes
        largest = _largest_batches(programs, memory_bytes, params_bytes)
    return replace(
        found,
        platform=jax.default_backend(),
        forward=forward,
        training=training,
        memory=memory,
        largest_batches=largest,
    )


def _largest_batches(
    programs: Programs, memory_bytes: int, params_bytes: int
) -> tuple[LargestBatch, ...]:
    def predict(batch: int) -> int | None:
        return xla_memory(programs.at_once(batch).forward(batch).compile()).total_bytes

    def train(batch: int) -> int | None:
        return xla_memory(programs.at_once(batch).train_step().compile()).total_bytes

    return (
        largest_batch("predict", memory_bytes, params_bytes, predict),
        largest_batch("train", memory_bytes, params_bytes, train),
    )
