"""Count the operations of a program, instruction by instruction, by XLA's own rules.

XLA's cost analysis returns one sum for a program, in float32, which has about seven digits. This
file applies the same rules to each instruction of the same program, before XLA's optimization, in
whole numbers. The result is exact and is known for each opcode; added up in float32 it must equal
XLA's sum.

The rules are those of XLA's ``hlo_cost_analysis.cc``. A multiply-add is two operations; taps of a
convolution on padding, or between the elements of a dilated array, are left out. An elementwise
instruction is one operation for each element of its result, integers and comparisons included.
Transcendentals, such as exponentials, and data movement count as none. The body of a loop is
counted once; of the branches of a conditional, the one with the most operations is counted.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from nin_jax.accounting.hlo import Instruction, Program, parse

# Opcodes by their operations: one for each element, none, none.
ELEMENTWISE = frozenset(
    {"abs", "add", "and", "bitcast-convert", "ceil", "clamp", "compare", "convert", "divide"}
    | {"floor", "is-finite", "maximum", "minimum", "multiply", "negate", "not", "or", "popcnt"}
    | {"remainder", "round-nearest-afz", "round-nearest-even", "select", "sign", "subtract", "xor"}
    | {"shift-left", "shift-right-arithmetic", "shift-right-logical"}
)
TRANSCENDENTAL = frozenset(
    {"cbrt", "cosine", "exponential", "exponential-minus-one", "log", "log-plus-one", "logistic"}
    | {"power", "rsqrt", "sine", "sqrt", "tan", "tanh"}
)
MOVES = frozenset(
    {"bitcast", "broadcast", "concatenate", "constant", "copy", "dynamic-slice", "gather", "iota"}
    | {"dynamic-update-slice", "get-tuple-element", "opt-barrier", "pad", "parameter", "reshape"}
    | {"reverse", "slice", "transpose", "tuple"}
)


@dataclass
class Operations:
    """The operations of a program.

    Attributes:
        flops: exact number of operations by opcode.
        flops_float32: their sum in float32, in XLA's order.
        unknown: opcodes without a rule, and called computations that are missing from the text.
            The sums do not include them.
        loops: number of loops; their bodies are counted once.
    """

    flops: Counter[str] = field(default_factory=Counter)
    flops_float32: float = 0.0
    unknown: set[str] = field(default_factory=set)
    loops: int = 0

    @property
    def total(self) -> int:
        """The FLOPs of all kinds together."""
        return sum(self.flops.values())

    @property
    def products(self) -> int:
        """Operations of convolutions and matrix products."""
        return self.flops["convolution"] + self.flops["dot"]

    def add(self, other: "Operations", times: int) -> None:
        """Add the operations of a computation that is called ``times`` times."""
        for opcode, count in other.flops.items():
            self.flops[opcode] += times * count
        self.unknown |= other.unknown
        self.loops += other.loops


def count(text: str) -> Operations:
    """Count the operations of the program in an HLO text.

    Raises:
        ValueError: the text cannot be read.
    """
    program, entry = parse(text)
    return _count_computation(program, entry, {})


def _count_computation(program: Program, name: str, done: dict[str, Operations]) -> Operations:
    if name in done:
        return done[name]
    if name not in program:
        return Operations(unknown={f"computation {name!r}"})
    total = Operations()
    shapes = {instruction.name: instruction.shape for instruction in program[name]}
    sum32 = np.float32(0)
    for instruction in program[name]:
        operands = [shapes.get(operand, ()) for operand in instruction.operands]
        flops32 = 0.0
        for called, times in _calls(instruction, operands):
            inside = _count_computation(program, called, done)
            total.add(inside, times)
            flops32 += inside.flops_float32 * times
        if branches := [_count_computation(program, b, done) for b in _branches(instruction)]:
            largest = max(branches, key=lambda branch: branch.total)
            total.add(largest, 1)
            total.unknown |= {name for branch in branches for name in branch.unknown}
            flops32 += largest.flops_float32
        if flops := own_flops(instruction, operands):
            total.flops[instruction.opcode] += flops
        sum32 += np.float32(flops32 + flops)
        total.loops += instruction.opcode == "while"
        total.unknown |= _unknown(instruction)
    total.flops_float32 = float(sum32)
    done[name] = total
    return total


# Custom calls that compute nothing: they annotate where arrays are placed.
_ANNOTATIONS = (
    "Sharding",
    "SPMDFullToShardShape",
    "SPMDShardToFullShape",
    "annotate_device_placement",
)
_CALLING = ("call", "conditional", "map", "reduce", "reduce-window", "scatter")
_KNOWN = (
    ELEMENTWISE
    | TRANSCENDENTAL
    | MOVES
    | {"convolution", "custom-call", "dot", "select-and-scatter", "while"}
)


def _unknown(instruction: Instruction) -> set[str]:
    """Name the part of an instruction that has no rule."""
    opcode = instruction.opcode
    if opcode == "custom-call":
        target = instruction.attribute("custom_call_target").strip('"')
        return set() if target in _ANNOTATIONS else {f"custom-call {target}"}
    if opcode == "conditional" and not _branches(instruction):
        return {opcode}
    return set() if opcode in _KNOWN or opcode in _CALLING else {opcode}


def _branches(instruction: Instruction) -> list[str]:
    """Return the computations of a conditional, which applies one of them."""
    if instruction.opcode != "conditional":
        return []
    names = ("branch_computations", "true_computation", "false_computation")
    listed = ",".join(instruction.attribute(name) for name in names)
    return re.findall(r"[\w.-]+", listed)


def _calls(instruction: Instruction, operands: Sequence[tuple[int, ...]]) -> list[tuple[str, int]]:
    """Return the computations that an instruction applies, and how many times."""
    outputs = math.prod(instruction.shape)
    match instruction.opcode:
        case "call":
            return [(instruction.attribute("to_apply"), 1)]
        case "while":
            return [(instruction.attribute("body"), 1), (instruction.attribute("condition"), 1)]
        case "map":
            return [(instruction.attribute("to_apply"), outputs)]
        case "reduce":
            arrays = operands[: len(operands) // 2]
            times = math.prod(arrays[0]) - math.prod(_reduced(arrays[0], instruction))
            return [(instruction.attribute("to_apply"), times)]
        case "reduce-window":
            window = math.prod(instruction.window("size"))
            return [(instruction.attribute("to_apply"), (window - 1) * outputs)]
        case "scatter":
            return [(instruction.attribute("to_apply"), math.prod(operands[-1]))]
        case "select-and-scatter":
            sources = math.prod(operands[1])
            window = math.prod(instruction.window("size"))
            return [
                (instruction.attribute("select"), (window - 1) * sources),
                (instruction.attribute("scatter"), sources),
            ]
        case _:
            return []


def _reduced(shape: tuple[int, ...], instruction: Instruction) -> list[int]:
    axes = instruction.numbers("dimensions")
    return [side for axis, side in enumerate(shape) if axis not in axes]


def own_flops(instruction: Instruction, operands: Sequence[tuple[int, ...]]) -> int:
    """Count the operations of an instruction itself, without those of computations it calls.

    Args:
        instruction: of a program.
        operands: their shapes.
    """
    if instruction.opcode in ELEMENTWISE:
        return math.prod(instruction.shape)
    if instruction.opcode == "dot":
        contracted = instruction.numbers("lhs_contracting_dims")
        return 2 * math.prod(instruction.shape) * math.prod(operands[0][i] for i in contracted)
    if instruction.opcode == "convolution":
        return 2 * _convolution_macs(instruction, *operands)
    if instruction.opcode == "custom-call":
        return -1  # XLA's value for an unknown cost; without optimization, these are annotations
    return 0


def _convolution_macs(
    instruction: Instruction, image: tuple[int, ...], kernel: tuple[int, ...]
) -> int:
    """Count multiply-adds whose two factors are both elements of the arrays."""
    images, kernels, outputs = re.split("_|->", instruction.attribute("dim_labels"))
    sizes = instruction.window("size")
    axes = len(sizes)
    ones = [1] * axes
    strides = instruction.window("stride") or ones
    paddings = instruction.window("pad") or [0] * axes
    image_dilations = instruction.window("lhs_dilate") or ones
    kernel_dilations = instruction.window("rhs_dilate") or ones
    macs = instruction.shape[outputs.index("b")] * instruction.shape[outputs.index("f")]
    macs *= kernel[kernels.index("i")]
    for axis in range(axes):
        macs *= _valid_positions(
            image[images.index(str(axis))],
            sizes[axis],
            instruction.shape[outputs.index(str(axis))],
            strides[axis],
            paddings[axis],
            image_dilations[axis],
            kernel_dilations[axis],
        )
    return macs


def _valid_positions(
    side: int,
    size: int,
    out_side: int,
    stride: int,
    padding: int,
    dilation: int,
    kernel_dilation: int,
) -> int:
    """Count the pairs of an output and a tap that read an element, along one axis."""
    outputs = stride * np.arange(out_side)[:, None]
    at = outputs + kernel_dilation * np.arange(size) - padding  # [outputs, taps]
    return int(((at >= 0) & (at % dilation == 0) & (at // dilation < side)).sum())
