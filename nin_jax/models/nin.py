"""The network in Flax.

Images are float [B, H, W, C]; logits are [B, num_classes], float32 or float64. Parameters are the
only state, because dropout gets its random numbers at the call: ``nnx.split(model, nnx.Param)``
gives the graph definition and the parameters, and nothing else remains.
"""

import math
from dataclasses import replace
from typing import get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from nin_jax.errors import UserError, unknown_name
from nin_jax.models import ops
from nin_jax.models.block import Conv, Linear, NiNBlock, convolutions_of, drop
from nin_jax.models.geometry import Layer, as_height_width, check_image_size, trace, trace_blocks
from nin_jax.models.init import Init
from nin_jax.models.preprocessing import Preprocessing
from nin_jax.models.stages import Convolution, ImageSize
from nin_jax.models.variants import Variant, get_variant
from nin_jax.reading import shown


class NiN(nnx.Module):
    """A Network in Network: blocks with pools between them, dropout, the head, the mean.

    Make one with `create_model`. The call takes float images [B, H, W, C] in [0, 1] and returns
    logits [B, num_classes]. It raises a `UserError` for integers, which only `Predictor` scales,
    and for images that are too small or have another number of channels. Dropout is on if ``rngs``
    is given: ``nnx.Rngs(dropout=key)``, or an array [B] of keys, one for each example, which makes
    its mask independent of the batch.

    Attributes:
        blocks: the NiN blocks before the head.
        pool_dropouts: after the pools of the blocks; most have a rate of 0 and do nothing.
        head: the last block, which ends with one channel for each class.
        linear: the linear layer of a "linear" classifier, else None.
        variant: as for `create_model`; it gives the pools and the kind of classifier.
        in_channels, num_classes: read from the parameters, so they follow a change of layers.
        image_size: (height, width).
        preprocessing: what the model does to its images first.
        frozen: if True, no gradient reaches the blocks, so that only the head is trained.
    """

    def __init__(
        self,
        variant: Variant,
        in_channels: int,
        num_classes: int,
        image_size: ImageSize,
        *,
        init: Init,
        logit_relu: bool,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
        preprocessing: Preprocessing,
        rngs: nnx.Rngs,
    ):
        layers = trace(variant, in_channels, num_classes, image_size)  # raises UserError
        preprocessing.check(in_channels)
        self.variant, self.preprocessing = variant, preprocessing
        self.image_size = as_height_width(image_size)
        self.dtype, self.operations, self.frozen = dtype, ops.FAST, False
        kw = {"init": init, "dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.blocks = nnx.List([])
        channels = in_channels
        for stage in variant.stages:
            self.blocks.append(NiNBlock(stage, channels, num_classes, **kw))
            channels = stage.widths(num_classes)[-1]
        self.pool_dropouts = nnx.List([nnx.Dropout(stage.dropout) for stage in variant.stages])
        self.dropout = nnx.Dropout(variant.dropout)
        self.head = NiNBlock(variant.head, channels, num_classes, last_relu=logit_relu, **kw)
        if init == "identity":  # every class's own channel has a gradient at the start
            widths = [conv.kernel.shape[2:] for conv in self.head.convs]
            changing = [i for i, (inputs, outputs) in enumerate(widths) if inputs != outputs]
            bias = self.head.convs[max(changing, default=0)].bias
            bias[...] = jnp.ones_like(bias[...])
        features = math.prod(layers[-2].out_shape)  # of the head's maps
        is_linear = variant.classifier == "linear"
        self.linear = Linear(features, num_classes, **kw) if is_linear else None

    def class_maps(self, x: jax.Array, rngs: nnx.Rngs | jax.Array | None = None) -> jax.Array:
        """Return the head's output, one map for each class: [B, H', W', num_classes]."""
        self._check(x)
        height, width = jnp.shape(x)[1:3]
        x = ops.cast(self.preprocessing.apply(x), self.dtype)
        stages = zip(self.variant.stages, self.blocks, self.pool_dropouts, strict=True)
        for i, (stage, block, dropout) in enumerate(stages):
            x = block(x)  # [B, H, W, C]
            x = self.operations.pool(x, stage.pool) if stage.pool else x
            x = drop(dropout, x, rngs, i + 1) if dropout.rate else x
        x = jax.lax.stop_gradient(x) if self.frozen else x
        maps = self.head(drop(self.dropout, x, rngs))  # [B, H, W, num_classes]
        if 0 in maps.shape[1:3]:  # only if other modules hid their geometry from the check
            raise UserError(f"images of {height}x{width} are too small for the model")
        return maps

    @property
    def in_channels(self) -> int:
        """The number of channels of the images.

        Raises:
            UserError: the model has no nnx.Conv.
        """
        for block in (*self.blocks, self.head):
            for _, module in nnx.iter_modules(block):
                if isinstance(module, nnx.Conv):
                    return module.kernel.shape[-2] * module.feature_group_count
        raise UserError("the model has no nnx.Conv, so its number of channels is unknown")

    @property
    def num_classes(self) -> int:
        """The number of logits."""
        last = self.linear or (self.head.convs[-1] if isinstance(self.head, NiNBlock) else None)
        if isinstance(last, nnx.Conv | nnx.Linear):
            return last.kernel.shape[-1]
        graphdef, state = nnx.split(self)  # another module: its call gives the number
        image = jax.ShapeDtypeStruct((1, *self.image_size, self.in_channels), jnp.float32)
        return jax.eval_shape(lambda s, x: nnx.merge(graphdef, s)(x), state, image).shape[-1]

    @property
    def logit_dtype(self) -> jnp.dtype:
        """The dtype of the logits: float32, or float64 if the last block has such parameters."""
        # nnx.state would fail inside nnx.capture.
        graph = nnx.iter_graph(self.linear or self.head)
        dtypes = [node.dtype for _, node in graph if isinstance(node, nnx.Param)]
        return jnp.result_type(jnp.float32, *dtypes)

    # Properties, because nnx.tabulate takes every public method for a layer that returns arrays.
    @property
    def convolutions(self) -> list[list[Convolution]] | None:
        """The convolutions of each block, the head last, as their parameters say.

        None if a block or a layer is another kind of module, which hides its geometry.
        """
        blocks = [convolutions_of(block) for block in (*self.blocks, self.head)]
        known = [block for block in blocks if block]
        return known if len(known) == len(blocks) else None

    @property
    def layers(self) -> list[Layer]:
        """The layers at the model's image size.

        Raises:
            UserError: a layer was replaced by another kind of module, or blocks were added or
                removed.
        """
        check_blocks(self)
        if (blocks := self.convolutions) is None:
            raise UserError("no rule describes the model: a layer is another kind of module")
        classifier = "mean" if self.linear is None else "linear"
        stages = tuple(
            replace(stage, dropout=float(dropout.rate))
            for stage, dropout in zip(self.variant.stages, self.pool_dropouts, strict=True)
        )
        rates = {"stages": stages, "dropout": float(self.dropout.rate)}
        variant = replace(self.variant, classifier=classifier, **rates)
        return trace_blocks(variant, blocks, self.num_classes, self.image_size)

    def _check(self, x: jax.Array) -> None:
        """Check the images: the mean of a map without pixels would be NaN."""
        check_blocks(self)
        shape = jnp.shape(x)
        if len(shape) != 4 or shape[3] != self.in_channels:
            raise UserError(f"images must be [B, H, W, {self.in_channels}], got {list(shape)}")
        if not jnp.issubdtype(dtype := jnp.result_type(x), jnp.floating):
            raise UserError(
                f"images must be floating, in [0, 1], got {dtype}: divide by 255, or use "
                "Predictor, which scales uint8 images"
            )
        self.preprocessing.check(self.in_channels)
        if (blocks := self.convolutions) is not None:
            check_image_size(self.variant, shape[1:3], blocks)
        if self.linear is not None and shape[1:3] != self.image_size:
            raise UserError(
                f"{self.variant.name} takes images of {self.image_size[0]}x{self.image_size[1]} "
                f"only, because its classifier is a linear layer; got {shape[1]}x{shape[2]}"
            )

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | jax.Array | None = None) -> jax.Array:
        maps = self.class_maps(x, rngs)  # [B, H, W, num_classes]
        if self.linear is None:
            return ops.cast(maps, self.logit_dtype).mean((1, 2))
        # C, H, W order, as in PyTorch. Nothing is left to -1: the batch may be empty, or symbolic.
        features = math.prod(maps.shape[1:])
        flat = maps.transpose(0, 3, 1, 2).reshape(maps.shape[0], features)
        return ops.cast(self.linear(flat), self.logit_dtype)


def new_model(
    variant: str | Variant = "nin",
    *,
    in_channels: int = 1,
    num_classes: int = 10,
    image_size: ImageSize | None = None,
    seed: int = 0,
    init: Init = "xavier",
    logit_relu: bool = True,
    preprocessing: Preprocessing | None = None,
    dtype: DTypeLike = jnp.float32,
    param_dtype: DTypeLike = jnp.float32,
) -> NiN:
    """Return a newly initialized NiN; arguments and errors as for `pretrained.create_model`."""
    if init not in get_args(Init):
        raise unknown_name("initialization", str(init), get_args(Init))
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise UserError(f"seed must be a whole number in [0, 2**32), got {shown(seed)}")
    for name, value in (("dtype", dtype), ("param_dtype", param_dtype)):
        check_dtype(name, value)
    if not isinstance(preprocessing, Preprocessing | None):
        raise UserError(f"preprocessing must be a Preprocessing, got {shown(preprocessing)}")
    variant = get_variant(variant)
    return NiN(
        variant,
        in_channels,
        num_classes,
        variant.image_size if image_size is None else image_size,
        init=init,
        logit_relu=logit_relu,
        dtype=dtype,
        param_dtype=param_dtype,
        preprocessing=preprocessing or Preprocessing(),
        rngs=nnx.Rngs(params=seed),
    )


def check_dtype(name: str, dtype: DTypeLike) -> None:
    """Raise a `UserError` that begins with ``name`` if a dtype is not a floating one."""
    try:
        is_floating = jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        is_floating = False
    if not is_floating:
        raise UserError(f"{name} must be a floating type such as float32, got {shown(dtype)}")


def check_blocks(model: NiN) -> None:
    """Raise a `UserError` if blocks were added to the model, or removed."""
    blocks, stages = len(model.blocks), len(model.variant.stages)
    if blocks != stages:
        raise UserError(
            f"the model has {blocks} blocks before the head, where {model.variant.name} has "
            f"{stages}; make a Variant with other stages"
        )


def class_maps(model: NiN, x: jax.Array) -> jax.Array:
    """Return a confidence map for each class (Lin et al. 2013, section 4.6 and figure 4).

    The mean of a map is the class's logit, so the map shows where in the image the class is seen.

    Args:
        model: with a "mean" classifier.
        x: float [B, H, W, C] in [0, 1].

    Returns:
        [B, H', W', num_classes] in the model's `logit_dtype`.

    Raises:
        UserError: the model has a linear classifier, or the images have another shape or are too
            small.
    """
    if not isinstance(model, NiN):
        raise UserError(f"the model must be a NiN from create_model, got {shown(model)}")
    if model.linear is not None:
        raise UserError(
            f"{model.variant.name} has no class maps: its classifier is a linear layer, not the "
            "mean of a map for each class"
        )
    return ops.cast(model.class_maps(x), model.logit_dtype)


def count_params(model: nnx.Module) -> int:
    """Return the number of weights and biases of a model."""
    return sum(param.size for param in jax.tree.leaves(nnx.state(model, nnx.Param)))


def with_dtype(model: NiN, dtype: DTypeLike) -> NiN:
    """Return a copy that computes in another dtype; parameters and logits keep theirs."""
    copy = nnx.clone(model)
    for _, module in nnx.iter_modules(copy):
        if isinstance(module, NiN | Conv | Linear):
            module.dtype = dtype
    return copy


def with_operations(model: NiN, operations: ops.Operations) -> NiN:
    """Return a copy that computes with other operations, such as `ops.PLAIN`."""
    copy = nnx.clone(model)
    for _, module in nnx.iter_modules(copy):
        if isinstance(module, NiN):
            module.operations = operations
        elif isinstance(module, Conv):
            module.conv_general_dilated = operations.conv_general_dilated
    return copy
