"""`account`: everything that a network costs, as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal

import jax
from flax import nnx

from nin_jax.accounting.conventions import CONVENTIONS, all_counts
from nin_jax.accounting.layers import LayerCost, layer_costs
from nin_jax.accounting.memory import (
    ITEMSIZE,
    MOST_IMAGES,
    LargestBatch,
    PaperMemory,
    kept_bytes,
    largest_batch,
    prediction_memory,
    torch_kept_bytes,
    training_memory,
)
from nin_jax.accounting.programs import Programs, abstract_model
from nin_jax.accounting.step_parts import TrainingCost, optimizer_flops, training_cost
from nin_jax.accounting.xla import ProgramCost, XlaMemory, program_cost, xla_memory
from nin_jax.errors import UserError, unknown_name
from nin_jax.models.geometry import as_height_width, trace
from nin_jax.models.nin import Conv, Linear, NiN, NiNBlock, count_params
from nin_jax.models.variants import Convolution, ImageSize, Variant, get_variant
from nin_jax.training.config import RECIPES, Precision, Recipe

Task = Literal["train", "predict"]


@dataclass(frozen=True)
class TaskMemory:
    """Memory of one task, by where the figure comes from.

    Attributes:
        paper: by the shapes alone, the whole batch at once.
        plain: what XLA plans for XLA's own operations, the whole batch at once; None where it was
            not asked.
        as_run: what XLA plans for the program that really runs.
    """

    paper: PaperMemory
    plain: XlaMemory | None = None
    as_run: XlaMemory | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "paper": self.paper.to_dict(),
            "xla_plain": self.plain and self.plain.to_dict(),
            "xla_as_run": self.as_run and self.as_run.to_dict(),
        }


@dataclass(frozen=True)
class Account:
    """What a network costs. Counts are of one image, memory is of a batch.

    Attributes:
        variant, in_channels, num_classes, image_size, batch_size, precision, recipe: what was
            counted; the size is (height, width), the recipe decides about optimiser and loss.
        platform: on which XLA was asked.
        layers: each layer's costs.
        counts: the computation of the forward pass by each convention, by its key.
        forward: programs of one image's forward pass: "plain" and "as_run".
        optimizer_products: FLOPs of the optimiser's matrix products in a step; only Muon has any.
        training: the training step in parts; None if it was not asked for.
        memory: of a prediction and, if it was asked for, of a training step.
        largest_batches: that fit into the memory asked about.
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

    @property
    def itemsize(self) -> int:
        """Bytes of a number of the computation."""
        return ITEMSIZE[self.precision]

    def total(self, field: str) -> int:
        """Sum of a field of `LayerCost` over all layers."""
        return sum(getattr(layer, field) for layer in self.layers)

    @property
    def params(self) -> int:
        return self.total("params")

    @property
    def macs(self) -> int:
        """Multiply-adds of one image's forward pass."""
        return self.total("macs")

    @property
    def flops_per_training_step(self) -> int:
        """Of the products: 2 x MACs forward and for each gradient, and the optimiser's.

        Elementwise work is left out.
        """
        going_back = self.counts["flop_counter_mode_backward"]
        return self.batch_size * (2 * self.macs + going_back) + self.optimizer_products

    def predicted_step_bytes(self, task: Task) -> int | None:
        """By how much our process should grow within a step: temporaries and new outputs.

        None if XLA was not asked, or does not tell.
        """
        plan = self.memory[task].as_run
        if plan is None or plan.total_bytes is None or plan.argument_bytes is None:
            return None
        return plan.total_bytes - plan.argument_bytes

    def predicted_torch_step_bytes(self, with_gradients: bool) -> int | None:
        """The same for PyTorch in float32: what autograd keeps, or the largest layer's maps."""
        if self.precision != "float32":
            return None
        if with_gradients:
            return self.batch_size * torch_kept_bytes(self.layers)
        return self.memory["predict"].paper.activations_bytes

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON; keys say their units."""
        largest = [batch.to_dict() for batch in self.largest_batches]
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
            "flops_per_byte": round(self.total_intensity, 3),
            "flops_per_training_step": self.flops_per_training_step,
            "flops_of_optimizer_products": self.optimizer_products,
            "activations_kept_bytes": kept_bytes(self.layers, self.precision),
            "activations_kept_by_torch_bytes": torch_kept_bytes(self.layers),
            "conventions": {
                c.key: {"count": self.counts[c.key], "unit": c.unit, "source": c.source}
                for c in CONVENTIONS
            },
            "layers": [layer.to_dict() | self._more(layer) for layer in self.layers],
            "forward": {name: cost.to_dict() for name, cost in self.forward.items()},
            "training": self.training and self.training.to_dict(),
            "memory": {task: memory.to_dict() for task, memory in self.memory.items()},
            "largest_batches": largest,
        }

    def _more(self, layer: LayerCost) -> dict[str, Any]:
        return {"flops_per_byte": round(self.intensity(layer), 3)}

    def intensity(self, layer: LayerCost) -> float:
        """FLOPs for each byte that the layer has to move for a batch."""
        return layer.intensity(self.batch_size, self.itemsize)

    @property
    def total_intensity(self) -> float:
        """FLOPs of all layers for each byte that they move, each layer on its own."""
        flops = self.batch_size * sum(layer.flops() for layer in self.layers)
        moved = (layer.moved_bytes(self.batch_size, self.itemsize) for layer in self.layers)
        return flops / sum(moved)


def account(
    variant: str | Variant | NiN = "nin",
    *,
    image_size: ImageSize = 224,
    in_channels: int = 1,
    num_classes: int = 10,
    batch_size: int = 1,
    precision: Precision = "float32",
    recipe: str | Recipe = "d2l",
    train: bool = False,
    xla: bool = True,
    memory_bytes: int | None = None,
) -> Account:
    """What a network costs: parameters, computation and memory, on paper and from XLA.

    Nothing is computed and no parameter is made; XLA is asked about programs on shapes.

    Args:
        variant: a name, a file, a `Variant`, or a model, whose own channels, classes, image size,
            precision, dropout and last ReLU then count.
        image_size: side in pixels, or (height, width).
        in_channels, num_classes: as for `create_model`.
        batch_size: of the memory and of the training step; counts are of one image.
        precision: of the computation.
        recipe: "d2l", "modern" or a `Recipe`: the optimiser, the loss and the last ReLU.
        train: count and compile the training step too, in a few seconds.
        xla: False leaves XLA out: figures on paper only, at once.
        memory_bytes: if given, also find the largest batches that fit into it.

    Raises:
        UserError: as `create_model`; the batch is empty or has 2**31 images or more, or the memory
            is smaller than the parameters.
        ValueError: the model has a layer that no rule counts, or that its variant has not.

    Example:
        >>> account("nin", in_channels=3, xla=False).counts["thop"]
        830042124
    """
    model = variant if isinstance(variant, NiN) else None
    if model is not None:
        precision = _check_model(model)
        in_channels, num_classes = model.in_channels, model.num_classes
        image_size = model.image_size
    _check(batch_size, precision)
    variant = variant.variant if isinstance(variant, NiN) else get_variant(variant)
    name = recipe if isinstance(recipe, str) else "custom"
    if isinstance(recipe, str):
        if recipe not in RECIPES:
            raise unknown_name("recipe", recipe, RECIPES)
        recipe = RECIPES[recipe](variant)
    sides = as_height_width(image_size)
    layers = trace(variant, in_channels, num_classes, sides)
    logit_relu = recipe.logit_relu if model is None else model.head.last_relu
    dropout = variant.dropout if model is None else model.dropout.rate
    costs = layer_costs(layers, logit_relu, dropout)
    paper: dict[Task, PaperMemory] = {
        "predict": prediction_memory(costs, batch_size, precision),
        "train": training_memory(costs, batch_size, precision, recipe),
    }
    memory: dict[Task, TaskMemory] = {task: TaskMemory(figures) for task, figures in paper.items()}
    forward: dict[str, ProgramCost] = {}
    training, largest = None, ()
    if xla or train or memory_bytes is not None:
        if model is None:
            model = abstract_model(variant, in_channels, num_classes, sides, precision, logit_relu)
        programs = Programs(model, recipe, batch_size)
    if xla or train:
        forward = _forward_costs(programs)
        memory["predict"] = _prediction_memory(programs, paper["predict"])
    if train:
        training = training_cost(programs, costs)
        memory["train"] = _training_memory(programs, paper["train"])
    if memory_bytes is not None:
        largest = _largest_batches(programs, memory_bytes, paper["predict"].params_bytes)
    return Account(
        variant=variant.name,
        in_channels=in_channels,
        num_classes=num_classes,
        image_size=sides,
        batch_size=batch_size,
        precision=precision,
        recipe=name,
        platform=jax.default_backend() if xla or train or memory_bytes is not None else None,
        layers=tuple(costs),
        counts=all_counts(costs),
        forward=forward,
        optimizer_products=optimizer_flops(costs, recipe)[0],
        training=training,
        memory=memory,
        largest_batches=largest,
    )


def _check(batch_size: int, precision: str) -> None:
    if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
        raise UserError(f"batch size must be a whole number >= 1, got {batch_size!r}")
    if batch_size > MOST_IMAGES:
        raise UserError(f"batch size must be at most {MOST_IMAGES}, 2**31 - 1, got {batch_size}")
    if precision not in ("float32", "bfloat16"):
        raise unknown_name("precision", str(precision), ("float32", "bfloat16"))


def _check_model(model: NiN) -> Precision:
    """That the model is what its variant says: someone may have put other layers into it.

    Returns:
        What it computes in.
    """
    for path, module in nnx.iter_modules(model):
        if not isinstance(module, NiN | NiNBlock | Conv | Linear | nnx.Dropout | nnx.List):
            where = ".".join(map(str, path))
            raise ValueError(f"no rule counts {where}, a {type(module).__name__}")
    layers = trace(model.variant, model.in_channels, model.num_classes, model.image_size)
    specs = [layer.convolution for layer in layers if layer.convolution is not None]
    blocks = [*model.blocks, model.head]
    found = [_spec(conv) for block in blocks for conv in block.convs]
    for spec, expected in zip_longest(found, specs):
        if spec != expected:
            raise ValueError(f"the model has {spec}, where {model.variant.name} has {expected}")
    if not all(block.last_relu for block in model.blocks):
        raise ValueError("the model has a block without its last ReLU; only the head may lack it")
    params, counted = count_params(model), sum(layer.params for layer in layers)
    if params != counted:
        raise ValueError(
            f"the model has {params:,} parameters, where {model.variant.name} has {counted:,}"
        )
    return _precision(model)


def _spec(conv: Conv) -> Convolution:
    kernel, _, in_channels, out_channels = conv.kernel.shape
    return Convolution(in_channels, out_channels, kernel, conv.stride, conv.padding)


def _precision(model: NiN) -> Precision:
    """What the model computes in; there is no rule for anything else than the two precisions."""
    layers = [m for _, m in nnx.iter_modules(model) if isinstance(m, NiN | Conv | Linear)]
    found = {jax.numpy.dtype(layer.dtype).name for layer in layers}
    params = {leaf.dtype.name for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))}
    for precision in ITEMSIZE:
        if found == {precision} and params == {"float32"}:
            return precision
    raise ValueError(
        f"no rule counts a model that computes in {' and '.join(sorted(found))} with parameters "
        f"in {' and '.join(sorted(params))}; only float32 or bfloat16 with float32 parameters"
    )


def _forward_costs(programs: Programs) -> dict[str, ProgramCost]:
    lowered = {"plain": programs.plain().forward(1), "as_run": programs.forward(1)}
    return {name: program_cost(stage, stage.compile()) for name, stage in lowered.items()}


def _prediction_memory(programs: Programs, paper: PaperMemory) -> TaskMemory:
    plain, as_run = programs.plain().forward(programs.batch_size), programs.predict()
    return TaskMemory(paper, xla_memory(plain.compile()), xla_memory(as_run.compile()))


def _training_memory(programs: Programs, paper: PaperMemory) -> TaskMemory:
    plain, as_run = programs.plain().train_step(), programs.train_step()
    return TaskMemory(paper, xla_memory(plain.compile()), xla_memory(as_run.compile()))


def _largest_batches(
    programs: Programs, memory_bytes: int, params_bytes: int
) -> tuple[LargestBatch, ...]:
    def at_once(batch: int) -> Programs:
        return Programs(programs.model, programs.recipe, batch, micro_batch_size=batch)

    def predict(batch: int) -> int | None:
        return xla_memory(at_once(batch).forward(batch).compile()).total_bytes

    def train(batch: int) -> int | None:
        return xla_memory(at_once(batch).train_step().compile()).total_bytes

    return (
        largest_batch("predict", memory_bytes, params_bytes, predict),
        largest_batch("train", memory_bytes, params_bytes, train),
    )
