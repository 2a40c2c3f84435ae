"""The parts of the network in Flax: convolution, linear layer, NiN block and dropout."""

from typing import Any

import jax
from flax import nnx

from nin_jax.models import ops
from nin_jax.models.init import Init, bias_init, identity_kernel, kernel_init
from nin_jax.models.stages import Convolution, Stage


class Conv(nnx.Conv):
    """A square convolution with bias: [B, H, W, C] -> [B, H', W', O].

    With ``init="identity"``, a convolution that ``follows`` another in its block and keeps the
    number of channels starts as the identity.
    """

    strides: int
    padding: int
    bias: nnx.Param

    def __init__(self, spec: Convolution, *, follows: bool = False, init: Init, **kw: Any):
        keeps_channels = spec.in_channels == spec.out_channels
        is_identity = init == "identity" and follows and keeps_channels
        super().__init__(
            spec.in_channels,
            spec.out_channels,
            (spec.kernel, spec.kernel),
            strides=spec.stride,
            padding=spec.padding,
            kernel_init=identity_kernel if is_identity else kernel_init(init),
            bias_init=bias_init(init, fan_in=spec.kernel**2 * spec.in_channels),
            conv_general_dilated=ops.FAST.conv_general_dilated,
            promote_dtype=ops.promote,
            **kw,
        )


class Linear(nnx.Linear):
    """A linear layer with bias: [B, N] -> [B, M]."""

    def __init__(self, in_features: int, out_features: int, *, init: Init, **kw: Any):
        super().__init__(
            in_features,
            out_features,
            kernel_init=kernel_init(init),
            bias_init=bias_init(init, fan_in=in_features),
            promote_dtype=ops.promote,
            **kw,
        )


class NiNBlock(nnx.Module):
    """A convolution, then the perceptron's convolutions, each with ReLU (Lin et al., section 3.1).

    [B, H, W, C] -> [B, H', W', channels].
    """

    def __init__(
        self, stage: Stage, in_channels: int, num_classes: int, *, last_relu: bool = True, **kw
    ):
        first, *rest = stage.convolutions(in_channels, num_classes)
        self.convs = nnx.List(
            [Conv(first, **kw), *(Conv(spec, follows=True, **kw) for spec in rest)]
        )
        self.last_relu = last_relu

    def __call__(self, x: jax.Array) -> jax.Array:
        *inner, last = self.convs
        for conv in inner:
            x = nnx.relu(conv(x))
        x = last(x)
        return nnx.relu(x) if self.last_relu else x


def convolutions_of(block: nnx.Module) -> list[Convolution] | None:
    """Return a block's convolutions as their parameters say.

    None if `Convolution` cannot describe them: the block or a layer is another kind of module, or
    has another setting, such as a dilation.
    """
    if not isinstance(block, NiNBlock):
        return None
    found = [_convolution(layer) for layer in block.convs]
    known = [convolution for convolution in found if convolution is not None]
    return known if len(known) == len(found) else None


def _convolution(layer: nnx.Module) -> Convolution | None:
    if not isinstance(layer, Conv):
        return None
    height, width, in_channels, out_channels = layer.kernel.shape
    settings = layer.input_dilation, layer.kernel_dilation, layer.feature_group_count
    numbers = isinstance(layer.strides, int) and isinstance(layer.padding, int)
    if height != width or settings != (1, 1, 1) or not numbers:
        return None
    return Convolution(in_channels, out_channels, height, layer.strides, layer.padding)


def drop(
    dropout: nnx.Dropout, x: jax.Array, rngs: nnx.Rngs | jax.Array | None, stage: int = 0
) -> jax.Array:
    """Apply dropout to [B, ...].

    ``rngs`` is a source of keys, an array [B] with one key for each example, or None for no
    dropout. Dropouts of several stages fold their number into the keys, so that their masks differ.
    """
    if not isinstance(rngs, jax.Array):
        return dropout(x, deterministic=rngs is None, rngs=rngs)
    if stage:
        rngs = jax.vmap(lambda key: jax.random.fold_in(key, stage))(rngs)
    # The mask of a flat array has the same bits, and its program compiles faster.
    elementwise = type(dropout) is nnx.Dropout and not dropout.broadcast_dims
    examples = x.reshape(x.shape[0], -1) if elementwise else x
    dropped = jax.vmap(lambda x, key: dropout(x, deterministic=False, rngs=key))(examples, rngs)
    return dropped.reshape(x.shape)
