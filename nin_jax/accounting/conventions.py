"""What "FLOPs" means to whom: one rule for each tool and kind of layer.

Published figures for one network differ by factors of two and more, because tools count different
things under one name. Each convention below is a table from the kind of layer to a formula in
`LayerCost`; the tests run the tools themselves on the PyTorch reference and demand the same number,
to the unit. Counts are of one image.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nin_jax.accounting.layers import LayerCost

Rule = Callable[[LayerCost], int]


def _nothing(cost: LayerCost) -> int:
    del cost
    return 0


def _macs(cost: LayerCost) -> int:
    return cost.macs


def _twice_macs(cost: LayerCost) -> int:
    return 2 * cost.macs


def _macs_and_bias(cost: LayerCost) -> int:
    return cost.macs + cost.bias_additions


def _with_bias_and_relu_twice(cost: LayerCost) -> int:
    return cost.macs + cost.bias_additions + 2 * cost.relu_comparisons


def _inputs(cost: LayerCost) -> int:
    return cost.inputs


def _inputs_twice(cost: LayerCost) -> int:
    return 2 * cost.inputs


def _inputs_and_outputs(cost: LayerCost) -> int:
    return cost.inputs + cost.outputs


def _gradients(cost: LayerCost) -> int:
    return 2 * (cost.macs_input_gradient + cost.macs_weight_gradient)


def _xla(cost: LayerCost) -> int:
    return cost.flops() - 2 * (cost.macs - cost.macs_on_pixels)


def _rules(**changes: Rule) -> Mapping[str, Rule]:
    """A rule for each kind of layer; nothing, unless it is said otherwise."""
    kinds = ("conv", "pool", "dropout", "mean", "linear")
    return dict.fromkeys(kinds, _nothing) | changes


@dataclass(frozen=True)
class Convention:
    """One way to count a network's computation.

    Attributes:
        key: its name in JSON and CSV.
        title: its name for people.
        unit: what it counts, which is not always what it says it counts.
        note: what is in it, in a sentence.
        source: where the rule can be read.
        rules: from the kind of layer to its count.
    """

    key: str
    title: str
    unit: str
    note: str
    source: str
    rules: Mapping[str, Rule]

    def count(self, costs: Sequence[LayerCost]) -> int:
        """For one image.

        Raises:
            ValueError: a layer is of a kind that this convention has no rule for.
        """
        return sum(self.count_layer(cost) for cost in costs)

    def count_layer(self, cost: LayerCost) -> int:
        if cost.kind not in self.rules:
            raise ValueError(f"{self.title} has no rule for {cost.name} of kind {cost.kind!r}")
        return self.rules[cost.kind](cost)


CONVENTIONS: tuple[Convention, ...] = (
    Convention(
        "macs",
        "MACs",
        "multiply-adds",
        "products of convolutions and linear layers; no biases",
        "the definition",
        _rules(conv=_macs, linear=_macs),
    ),
    Convention(
        "flops",
        "FLOPs = 2 x MACs",
        "multiplications and additions",
        "two for each multiply-add; no biases",
        "the definition",
        _rules(conv=_twice_macs, linear=_twice_macs),
    ),
    Convention(
        "thop",
        "thop",
        "multiply-adds, published as FLOPs",
        "MACs, and k*k + 1 for each output of a mean over k x k",
        "thop 0.1.1, vision/calc_func.py: calculate_conv2d_flops, calculate_adaptive_avg",
        _rules(conv=_macs, mean=_inputs_and_outputs, linear=_macs),
    ),
    Convention(
        "fvcore",
        "fvcore",
        "multiply-adds, called flops",
        "MACs, and one for each input of the mean",
        "fvcore 0.1.5, nn/flop_count.py: _DEFAULT_SUPPORTED_OPS",
        _rules(conv=_macs, mean=_inputs, linear=_macs),
    ),
    Convention(
        "ptflops_pytorch",
        "ptflops, backend pytorch",
        "multiply-adds and other operations mixed, called MACs",
        "MACs, biases, and two for each output of a ReLU and input of a pool or mean: it counts "
        "the module, and again the function that the module calls",
        "ptflops 0.7.5, pytorch_ops.py: MODULES_MAPPING, FUNCTIONAL_MAPPING",
        _rules(
            conv=_with_bias_and_relu_twice,
            pool=_inputs_twice,
            mean=_inputs_twice,
            linear=_macs_and_bias,
        ),
    ),
    Convention(
        "ptflops_aten",
        "ptflops, backend aten",
        "multiply-adds and bias additions mixed, called MACs",
        "MACs and biases",
        "ptflops 0.7.5, aten_ops.py: conv_flop_count, addmm_flop",
        _rules(conv=_macs_and_bias, linear=_macs_and_bias),
    ),
    Convention(
        "flop_counter_mode",
        "FlopCounterMode, forward",
        "multiplications and additions",
        "2 x MACs; no biases",
        "torch 2.13, utils/flop_counter.py: conv_flop_count, addmm_flop",
        _rules(conv=_twice_macs, linear=_twice_macs),
    ),
    Convention(
        "flop_counter_mode_backward",
        "FlopCounterMode, backward",
        "multiplications and additions",
        "2 x MACs for each gradient to weights, and to inputs but for the first layer's",
        "torch 2.13, utils/flop_counter.py: conv_backward_flop",
        _rules(conv=_gradients, linear=_gradients),
    ),
    Convention(
        "xla",
        "XLA, forward, plain operations",
        "operations",
        "2 x MACs without taps on padding, and every addition, comparison and division",
        "XLA, hlo_cost_analysis.cc: HandleConvolution, HandleElementwiseOp, HandleReduceWindow",
        _rules(conv=_xla, pool=_xla, mean=_xla, linear=_xla),
    ),
)


def all_counts(costs: Sequence[LayerCost]) -> dict[str, int]:
    """Every convention's count of one image, by its key."""
    return {convention.key: convention.count(costs) for convention in CONVENTIONS}
