"""What each tool counts as "FLOPs": for each convention, a rule from a layer's costs to its count.

Published figures for one network differ by factors of two and more, because tools count different
operations under one name. The tests run the tools on the PyTorch reference and require the same
numbers. Counts are of one image.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nin_jax.accounting.layers import RULES, LayerCost


@dataclass(frozen=True)
class Convention:
    """One way to count a network's computation.

    Attributes:
        key: its name in JSON and CSV.
        title: its name for people.
        unit: what it counts, which may differ from what the tool says it counts.
        note: what the count includes.
        source: where the tool defines it.
        rule: counts a layer. The costs of a layer are zero for what it does not compute.
    """

    key: str
    title: str
    unit: str
    note: str
    source: str
    rule: Callable[[LayerCost], int]

    def count(self, costs: Sequence[LayerCost]) -> int:
        """Return the count of one image.

        Raises:
            ValueError: the convention has no rule for the kind of a layer.
        """
        for cost in costs:
            if cost.kind not in RULES:
                raise ValueError(f"{self.title} has no rule for {cost.name} of kind {cost.kind!r}")
        return sum(map(self.rule, costs))


CONVENTIONS: tuple[Convention, ...] = (
    Convention(
        "macs",
        "MACs",
        "multiply-adds",
        "products of convolutions and linear layers; no biases",
        "the definition",
        lambda cost: cost.macs,
    ),
    Convention(
        "flops",
        "FLOPs = 2 x MACs",
        "multiplications and additions",
        "two for each multiply-add; no biases",
        "the definition",
        lambda cost: 2 * cost.macs,
    ),
    Convention(
        "thop",
        "thop",
        "multiply-adds, published as FLOPs",
        "MACs, one for each output of an average pool, and k*k + 1 for each output of a mean over "
        "k x k",
        "thop 0.1.1, vision/calc_func.py: calculate_conv2d_flops, calculate_avgpool, "
        "calculate_adaptive_avg",
        lambda cost: (
            cost.macs
            + cost.pool_divisions
            + (cost.inputs + cost.outputs if cost.kind == "mean" else 0)
        ),
    ),
    Convention(
        "fvcore",
        "fvcore",
        "multiply-adds, called flops",
        "MACs, and one for each input of the mean",
        "fvcore 0.1.5, nn/flop_count.py: _DEFAULT_SUPPORTED_OPS",
        lambda cost: cost.macs + (cost.inputs if cost.kind == "mean" else 0),
    ),
    Convention(
        "ptflops_pytorch",
        "ptflops, backend pytorch",
        "multiply-adds and other operations mixed, called MACs",
        "MACs, biases, and two for each output of a ReLU and input of a pool or mean: it counts "
        "the module, and again the function that the module calls",
        "ptflops 0.7.5, pytorch_ops.py: MODULES_MAPPING, FUNCTIONAL_MAPPING",
        lambda cost: (
            cost.macs
            + cost.bias_additions
            + 2 * cost.relu_comparisons
            + (2 * cost.inputs if cost.kind in ("pool", "mean") else 0)
        ),
    ),
    Convention(
        "ptflops_aten",
        "ptflops, backend aten",
        "multiply-adds and bias additions mixed, called MACs",
        "MACs and biases",
        "ptflops 0.7.5, aten_ops.py: conv_flop_count, addmm_flop",
        lambda cost: cost.macs + cost.bias_additions,
    ),
    Convention(
        "flop_counter_mode",
        "FlopCounterMode, forward",
        "multiplications and additions",
        "2 x MACs; no biases",
        "torch 2.13, utils/flop_counter.py: conv_flop_count, addmm_flop",
        lambda cost: 2 * cost.macs,
    ),
    Convention(
        "flop_counter_mode_backward",
        "FlopCounterMode, backward",
        "multiplications and additions",
        "2 x MACs for each gradient to weights, and to inputs but for the first layer's",
        "torch 2.13, utils/flop_counter.py: conv_backward_flop",
        lambda cost: 2 * (cost.macs_input_gradient + cost.macs_weight_gradient),
    ),
    Convention(
        "xla",
        "XLA, forward, plain operations",
        "operations",
        "2 x MACs without taps on padding, and every addition, comparison and division",
        "XLA, hlo_cost_analysis.cc: HandleConvolution, HandleElementwiseOp, HandleReduceWindow",
        lambda cost: cost.flops() - 2 * (cost.macs - cost.macs_on_pixels),
    ),
)


def all_counts(costs: Sequence[LayerCost]) -> dict[str, int]:
    """Return the count of one image by each convention, by its key."""
    return {convention.key: convention.count(costs) for convention in CONVENTIONS}
