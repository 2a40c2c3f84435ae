"""A derivation of a network's costs, layer by layer, with all numbers, for students."""

import math

from nin_jax.accounting.account import Account
from nin_jax.accounting.account_tables import title
from nin_jax.accounting.layers import LayerCost
from nin_jax.accounting.step_parts import NEWTON_SCHULZ_ITERATIONS
from nin_jax.models.geometry import Layer, trace
from nin_jax.models.stages import Pool
from nin_jax.models.variants import Variant


def derivation(account: Account, variant: Variant) -> str:
    """Return Markdown that derives each layer's map, parameters and operations.

    Args:
        account: of the variant.
        variant: the network.
    """
    layers = trace(variant, account.in_channels, account.num_classes, account.image_size)
    parts = [
        f"# {title(account)}",
        "A convolution with a k x k kernel from C to O channels has k * k * C * O weights and O "
        "biases. Each of its H' x W' output positions uses every weight once, so it needs "
        "H' * W' * k * k * C * O multiply-adds (MACs). The side of its output is "
        "floor((side + 2 * padding - k) / stride) + 1. Counts are of one image.",
    ]
    costs = {cost.name: cost for cost in account.layers}
    for layer in layers:
        if (cost := costs.get(layer.name)) is not None:  # None: dropout with a rate of 0
            steps = "\n".join(f"- {step}" for step in _steps(layer, cost))
            parts.append(f"**{layer.name}** ({_what(layer, cost)})\n\n{steps}")
    return "\n\n".join([*parts, *_sums(account)]) + "\n"


def _what(layer: Layer, cost: LayerCost) -> str:
    conv = layer.convolution
    if conv is None:
        return f"{layer.kind} {layer.detail}"
    relu = ", then ReLU" if cost.relu_comparisons else ""
    return (
        f"{conv.kernel}x{conv.kernel} convolution, {conv.in_channels} -> {conv.out_channels}{relu}"
    )


def _steps(layer: Layer, cost: LayerCost) -> list[str]:
    match layer.kind:
        case "conv":
            return _convolution(layer)
        case "pool":
            assert layer.pool is not None
            return _pool(layer.pool, layer, cost)
        case "dropout":
            return ["no parameters and, in prediction, no operations"]
        case "mean":
            height, width, maps = layer.in_shape
            return [
                "parameters: none",
                f"additions: {maps} maps x ({height} x {width} - 1) = {cost.mean_additions:,}; "
                f"divisions: {cost.mean_divisions:,}",
            ]
        case "linear":
            inputs = math.prod(layer.in_shape)
            (outputs,) = layer.out_shape
            shape = " x ".join(map(str, layer.in_shape))
            return [
                f"inputs: {shape} = {inputs:,}",
                f"parameters: {inputs:,} x {outputs} + {outputs} = {layer.params:,}",
                f"MACs: {inputs:,} x {outputs} = {layer.macs:,}",
            ]


def _convolution(layer: Layer) -> list[str]:
    conv = layer.convolution
    assert conv is not None
    k, c, o = conv.kernel, conv.in_channels, conv.out_channels
    height, width, _ = layer.out_shape
    weights = f"{k} x {k} x {c} x {o}"
    return [
        f"map: {_side(layer, k, conv.stride, conv.padding)}",
        f"parameters: {weights} + {o} = {layer.params:,}",
        f"MACs: {height} x {width} x {weights} = {layer.macs:,}",
    ]


def _pool(pool: Pool, layer: Layer, cost: LayerCost) -> list[str]:
    outputs = " x ".join(map(str, layer.out_shape))
    each = f"{outputs} outputs x ({pool.size} x {pool.size} - 1)"
    side = f"map: {_side(layer, pool.size, pool.stride, pool.padding, pool.round_up)}"
    if pool.kind == "max":
        return [side, f"comparisons: {each} = {cost.pool_comparisons:,}"]
    return [
        side,
        f"additions: {each} = {cost.pool_additions:,}; divisions: {cost.pool_divisions:,}",
    ]


def _side(layer: Layer, kernel: int, stride: int, padding: int, round_up: bool = False) -> str:
    def one(side: int, out_side: int) -> str:
        padded = f"{side} + 2 x {padding}" if padding else str(side)
        room = side + 2 * padding - kernel
        if not round_up:
            return f"floor(({padded} - {kernel}) / {stride}) + 1 = {out_side}"
        windows = -(-room // stride) + 1
        steps = f"ceil(({padded} - {kernel}) / {stride}) + 1 = {windows}"
        dropped = f", without the last, which starts behind the map: {out_side}"
        return steps + dropped * (out_side < windows)

    sides = list(zip(layer.in_shape[:2], layer.out_shape[:2], strict=True))
    if sides[0] == sides[1]:
        return one(*sides[0])
    return f"height {one(*sides[0])}, width {one(*sides[1])}"


def _sums(account: Account) -> list[str]:
    products = [cost for cost in account.layers if cost.macs]
    params = " + ".join(f"{cost.params:,}" for cost in products)
    macs = " + ".join(f"{cost.macs:,}" for cost in products)
    counts, batch = account.counts, account.batch_size
    backward = counts["flop_counter_mode_backward"]
    memory = account.memory["train"].paper
    lines = [
        f"parameters: {params} = **{account.params:,}**",
        f"MACs: {macs} = **{account.macs:,}**",
        f"FLOPs, two for each MAC: 2 x {account.macs:,} = **{counts['flops']:,}**",
    ]
    added = [
        f"{cost.pool_divisions:,} for {cost.name}" for cost in account.layers if cost.pool_divisions
    ]
    last = account.layers[-1]
    if last.kind == "mean":
        height, width, maps = last.in_shape
        terms = f"{maps} x ({height} x {width} + 1) = {last.inputs + last.outputs:,}"
        added.append(f"{terms} for the mean")
    if added:
        lines.append(
            f"thop adds {', '.join(added)} and prints **{counts['thop']:,}**, which is often "
            "published as FLOPs"
        )
    step = f"{batch} x ({counts['flops']:,} + {backward:,})"
    if account.optimizer_products:
        step += f" + {account.optimizer_products:,} for Muon"
        lines.append(
            "Muon orthogonalizes the update of each kernel, a matrix of sides m <= n, in "
            f"{NEWTON_SCHULZ_ITERATIONS} iterations of 4 m m n + 2 m m m FLOPs in products: "
            f"{account.optimizer_products:,} FLOPs a step for any batch size"
        )
    lines += [
        "in the backward pass each layer needs its MACs twice, for the gradients to its weights "
        "and to its input; the first layer once, because training does not need the gradient to "
        f"the image: 2 x (2 x {account.macs:,} - {products[0].macs:,}) = **{backward:,}** FLOPs",
        f"a training step of {batch} images: {step} = "
        f"**{account.flops_per_training_step:,}** FLOPs",
        f"memory of that step, in bytes: parameters {memory.params_bytes:,} + gradients "
        f"{memory.gradients_bytes:,} + optimizer state {memory.optimizer_bytes:,} + images "
        f"{memory.images_bytes:,} + activations kept {memory.activations_bytes:,} = "
        f"**{memory.total_bytes:,}**",
    ]
    return ["## Totals", "\n".join(f"- {line}" for line in lines)]
