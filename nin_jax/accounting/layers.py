"""What each layer of a network costs, counted on paper.

All counts are of one image. They are exact: each is a formula in the layer's shapes, and the
tests hold them to PyTorch's counters and to XLA's, to the unit. This file imports no framework.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nin_jax.models.geometry import Layer
from nin_jax.models.variants import POOL_SIZE


@dataclass(frozen=True)
class LayerCost:
    """One layer's costs for one image.

    Attributes:
        name, kind, detail, in_shape, out_shape, params: as `models.geometry.Layer` has them.
        macs: multiply-adds of the products; taps that fall on padding are included.
        macs_on_pixels: the same without the taps on padding, which multiply zeros.
        bias_additions: one for each output of a convolution or linear layer.
        relu_comparisons: one for each output that a ReLU follows.
        pool_comparisons: one less than a window has elements, for each output of a max pool.
        mean_additions, mean_divisions: of the global mean, H W - 1 and 1 for each map.
        macs_input_gradient: going back, of the gradient to the layer's input. The first layer with
            parameters has none: no one asks how to change the image.
        macs_weight_gradient: of the gradient to its weights.
        kept_elements: of its output, if the backward pass asks for it again: as the mask of its
            ReLU, or as the input of the next layer's weights.
        mask_elements: dropout's draws, which the backward pass has to find again too.
    """

    name: str
    kind: str
    detail: str
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    params: int
    macs: int = 0
    macs_on_pixels: int = 0
    bias_additions: int = 0
    relu_comparisons: int = 0
    pool_comparisons: int = 0
    mean_additions: int = 0
    mean_divisions: int = 0
    macs_input_gradient: int = 0
    macs_weight_gradient: int = 0
    kept_elements: int = 0
    mask_elements: int = 0

    @property
    def inputs(self) -> int:
        """Elements of the input."""
        return math.prod(self.in_shape)

    @property
    def outputs(self) -> int:
        """Elements of the output."""
        return math.prod(self.out_shape)

    @property
    def biases(self) -> int:
        """Parameters that are biases: one for each map, or output of a linear layer."""
        return self.out_shape[-1] if self.params else 0

    def flops(self) -> int:
        """Two for a multiply-add, and one for each addition, comparison and division."""
        return (
            2 * self.macs
            + self.bias_additions
            + self.relu_comparisons
            + self.pool_comparisons
            + self.mean_additions
            + self.mean_divisions
        )

    def elementwise_flops(self) -> int:
        """`flops` without the products."""
        return self.flops() - 2 * self.macs

    def elementwise_flops_back(self, batch_size: int) -> int:
        """Going back, of XLA's own operations on a whole batch, besides the products.

        A ReLU compares and chooses for each output; a bias adds up its map's gradients over the
        batch; a max pool searches each window again, eight comparisons, and adds to its winner; a
        mean divides for each map; dropout chooses and divides for each element.
        """
        biases = batch_size * self.bias_additions - self.biases
        each = 2 * self.relu_comparisons + self.mean_divisions + 2 * self.mask_elements
        if self.pool_comparisons:
            each += self.pool_comparisons + self.outputs
        return biases + batch_size * each

    def intensity(self, batch_size: int, itemsize: int) -> float:
        """FLOPs over the least bytes moved: input and parameters read, output written, once.

        Williams, Waterman and Patterson, "Roofline" (2009). Parameters are read once a batch.
        """
        return batch_size * self.flops() / self.moved_bytes(batch_size, itemsize)

    def moved_bytes(self, batch_size: int, itemsize: int) -> int:
        """The least that a batch moves: input and parameters read, output written, once."""
        return itemsize * (batch_size * (self.inputs + self.outputs) + self.params)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON and CSV."""
        return asdict(self) | {"flops": self.flops()}


def _convolution(layer: Layer, relu: bool) -> dict[str, int]:
    conv = layer.convolution
    assert conv is not None
    taps = [
        taps_on_pixels(side, out_side, conv.kernel, conv.stride, conv.padding)
        for side, out_side in zip(layer.in_shape[:2], layer.out_shape[:2], strict=True)
    ]
    outputs = math.prod(layer.out_shape)
    return {
        "macs": layer.macs,
        "macs_on_pixels": math.prod(taps) * conv.in_channels * conv.out_channels,
        "bias_additions": outputs,
        "relu_comparisons": outputs if relu else 0,
        "macs_weight_gradient": layer.macs,
    }


def _pool(layer: Layer, relu: bool) -> dict[str, int]:
    del relu
    outputs = math.prod(layer.out_shape)
    return {"pool_comparisons": (POOL_SIZE**2 - 1) * outputs}


def _dropout(layer: Layer, relu: bool) -> dict[str, int]:
    del relu
    return {"mask_elements": math.prod(layer.out_shape)}


def _mean(layer: Layer, relu: bool) -> dict[str, int]:
    del relu
    (maps,) = layer.out_shape
    return {"mean_additions": math.prod(layer.in_shape) - maps, "mean_divisions": maps}


def _linear(layer: Layer, relu: bool) -> dict[str, int]:
    del relu
    return {
        "macs": layer.macs,
        "macs_on_pixels": layer.macs,
        "bias_additions": math.prod(layer.out_shape),
        "macs_weight_gradient": layer.macs,
    }


RULES: Mapping[str, Callable[[Layer, bool], dict[str, int]]] = {
    "conv": _convolution,
    "pool": _pool,
    "dropout": _dropout,
    "mean": _mean,
    "linear": _linear,
}


def taps_on_pixels(side: int, out_side: int, kernel: int, stride: int, padding: int) -> int:
    """Pairs of an output and a kernel's tap, along one axis, that meet a pixel, not padding."""
    starts = (stride * output - padding for output in range(out_side))
    return sum(max(0, min(start + kernel, side) - max(start, 0)) for start in starts)


def layer_costs(
    layers: Sequence[Layer], logit_relu: bool = True, dropout: float = 0.5
) -> list[LayerCost]:
    """The cost of each layer that `nin_jax.models.geometry.trace` found.

    Args:
        layers: of one network, in the order they run.
        logit_relu: whether the last convolution is followed by ReLU.
        dropout: its rate; at 0 the layer is left out.

    Raises:
        ValueError: a layer is of a kind that no rule counts.
    """
    if dropout == 0:
        layers = [layer for layer in layers if layer.kind != "dropout"]
    *_, last_convolution = (layer for layer in layers if layer.kind == "conv")
    first = next(layer for layer in layers if layer.params)
    costs = []
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        if layer.kind not in RULES:
            raise ValueError(f"no rule counts layer {layer.name} of kind {layer.kind!r}")
        relu = layer.kind == "conv" and (logit_relu or layer is not last_convolution)
        counts = RULES[layer.kind](layer, relu)
        if layer.macs and layer is not first:
            counts["macs_input_gradient"] = layer.macs
        # For the mask of the ReLU, or as the input that the next layer's weights were applied to.
        if relu or (following is not None and following.macs):
            counts["kept_elements"] = math.prod(layer.out_shape)
        shapes = layer.in_shape, layer.out_shape
        costs.append(
            LayerCost(layer.name, layer.kind, layer.detail, *shapes, layer.params, **counts)
        )
    return costs
