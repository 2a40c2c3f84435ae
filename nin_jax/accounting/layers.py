"""The costs of each layer of a network, by formula ("on paper").

Counts are exact, of one image, and depend on the layer's shapes alone. The tests require that they
equal the counts of PyTorch's tools and of XLA. This file imports no framework.

A new kind of layer needs a rule in `RULES`, and a term in the rule of each convention of
`nin_jax.accounting.conventions` whose tool does not count it as zero.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nin_jax.models.geometry import Layer


@dataclass(frozen=True)
class LayerCost:
    """One layer's costs for one image.

    Attributes:
        name, kind, detail, in_shape, out_shape, params: as in `models.geometry.Layer`.
        macs: multiply-adds of the products, including taps on padding.
        macs_on_pixels: the same without taps on padding, which multiply zeros.
        bias_additions: one for each output of a convolution or linear layer.
        relu_comparisons: one for each output, if a ReLU follows.
        pool_comparisons: for each output of a max pool, the window's elements minus one.
        pool_additions: the same for an average pool, whose padding XLA adds too.
        pool_divisions: of an average pool, one for each output.
        mean_additions: of the global mean, H W - 1 for each map.
        mean_divisions: of the global mean, one for each map.
        macs_input_gradient: of the gradient to the layer's input; 0 for the first layer with
            parameters, because training does not need the gradient to the image.
        macs_weight_gradient: of the gradient to the layer's weights.
        kept_elements: of the output, if the backward pass needs it: for the mask of its ReLU, or
            as the input of the next layer's product.
        mask_elements: of the dropout mask, which the backward pass needs too; 0 before the first
            layer with parameters.
        maxima: outputs of a max pool. The backward pass needs to know which element each was.
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
    pool_additions: int = 0
    pool_divisions: int = 0
    mean_additions: int = 0
    mean_divisions: int = 0
    macs_input_gradient: int = 0
    macs_weight_gradient: int = 0
    kept_elements: int = 0
    mask_elements: int = 0
    maxima: int = 0

    @property
    def inputs(self) -> int:
        """Number of elements of the input."""
        return math.prod(self.in_shape)

    @property
    def outputs(self) -> int:
        """Number of elements of the output."""
        return math.prod(self.out_shape)

    @property
    def biases(self) -> int:
        """Number of biases: one for each output channel of a layer with parameters."""
        return self.out_shape[-1] if self.params else 0

    def flops(self) -> int:
        """Count two for a multiply-add, one for an addition, a comparison or a division."""
        return (
            2 * self.macs
            + self.bias_additions
            + self.relu_comparisons
            + self.pool_comparisons
            + self.pool_additions
            + self.pool_divisions
            + self.mean_additions
            + self.mean_divisions
        )

    def elementwise_flops_back(self, batch_size: int) -> int:
        """Count the backward pass of a batch in XLA's own operations, without the products.

        A ReLU compares and selects for each output. A bias gradient is a sum over the batch and
        the map. A max pool repeats the comparisons of its forward pass and adds the gradient to
        the maximum. An average pool divides for each output, and adds up for each input as many
        elements as a window has. A mean divides for each map. Dropout selects and divides for each
        element.
        """
        biases = batch_size * self.bias_additions - self.biases
        each = 2 * self.relu_comparisons + self.mean_divisions + 2 * self.mask_elements
        each += self.pool_comparisons + self.maxima + self.pool_divisions
        each += self.pool_additions // self.outputs * self.inputs
        return biases + batch_size * each

    def moved_bytes(self, batch_size: int, itemsize: int) -> int:
        """Return the least bytes to move for a batch: input and parameters read, output written.

        Args:
            batch_size: number of images.
            itemsize: bytes of a number.
        """
        return itemsize * (batch_size * (self.inputs + self.outputs) + self.params)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON and CSV."""
        return asdict(self) | {"flops": self.flops()}


def _convolution(layer: Layer) -> dict[str, int]:
    conv = layer.convolution
    assert conv is not None
    taps = [
        taps_on_pixels(side, out_side, conv.kernel, conv.stride, conv.padding)
        for side, out_side in zip(layer.in_shape[:2], layer.out_shape[:2], strict=True)
    ]
    return _product(layer, math.prod(taps) * conv.in_channels * conv.out_channels)


def _linear(layer: Layer) -> dict[str, int]:
    return _product(layer, layer.macs)


def _product(layer: Layer, macs_on_pixels: int) -> dict[str, int]:
    return {
        "macs": layer.macs,
        "macs_on_pixels": macs_on_pixels,
        "bias_additions": math.prod(layer.out_shape),
        "macs_weight_gradient": layer.macs,
    }


def _pool(layer: Layer) -> dict[str, int]:
    assert layer.pool is not None
    outputs = math.prod(layer.out_shape)
    steps = (layer.pool.size**2 - 1) * outputs
    if layer.pool.kind == "max":
        return {"pool_comparisons": steps, "maxima": outputs}
    return {"pool_additions": steps, "pool_divisions": outputs}


def _mean(layer: Layer) -> dict[str, int]:
    (maps,) = layer.out_shape
    return {"mean_additions": math.prod(layer.in_shape) - maps, "mean_divisions": maps}


# For each kind of layer: its counts, by field of `LayerCost`.
RULES: Mapping[str, Callable[[Layer], dict[str, int]]] = {
    "conv": _convolution,
    "pool": _pool,
    "dropout": lambda layer: {"mask_elements": math.prod(layer.out_shape)},
    "mean": _mean,
    "linear": _linear,
}


def taps_on_pixels(side: int, out_side: int, kernel: int, stride: int, padding: int) -> int:
    """Count the pairs of an output and a kernel tap, along one axis, that read a pixel."""
    starts = (stride * output - padding for output in range(out_side))
    return sum(max(0, min(start + kernel, side) - max(start, 0)) for start in starts)


def layer_costs(layers: Sequence[Layer], logit_relu: bool = True) -> list[LayerCost]:
    """Return the costs of the layers that `nin_jax.models.geometry.trace` returns.

    Args:
        layers: of one network, in the order they run; dropouts with a rate of 0 are left out.
        logit_relu: whether a ReLU follows the last convolution.

    Raises:
        ValueError: there is no rule for the kind of a layer.
    """
    layers = [layer for layer in layers if layer.kind != "dropout" or layer.dropout]
    *_, last_convolution = (layer for layer in layers if layer.kind == "conv")
    costs = []
    before_first = True
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        if layer.kind not in RULES:
            raise ValueError(f"no rule counts layer {layer.name} of kind {layer.kind!r}")
        counts = RULES[layer.kind](layer)
        relu = layer.kind == "conv" and (logit_relu or layer is not last_convolution)
        if relu:
            counts["relu_comparisons"] = math.prod(layer.out_shape)
        if before_first:  # no gradient to the image
            counts.pop("mask_elements", None)
        elif layer.macs:
            counts["macs_input_gradient"] = layer.macs
        before_first &= layer.params == 0
        if relu or (following is not None and following.macs):
            counts["kept_elements"] = math.prod(layer.out_shape)
        shapes = layer.in_shape, layer.out_shape
        costs.append(
            LayerCost(layer.name, layer.kind, layer.detail, *shapes, layer.params, **counts)
        )
    return costs
