"""A program's operations one by one, by the rules of XLA's own cost analysis.

XLA's cost analysis gives one number a program, summed in float32, so a billion operations are
known to the hundred. Here the same rules are applied to each instruction of the same program, as
it stands before XLA's optimisation, in whole numbers: the sum is exact, it says where the
operations are, and added up in float32 it must be XLA's number again.

The rules are those of XLA's ``hlo_cost_analysis.cc``: two operations for a multiply-add, taps of a
convolution that fall on padding or between spread-out elements left out; one for each element of an
elementwise result, also of whole numbers and of comparisons; exponentials and the like counted
apart, as transcendentals; nothing for moving data. The body of a loop is counted once, and of
branches the one with the most operations.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

# Opcodes, by what XLA counts for them: one for each element, none, none.
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


@dataclass(frozen=True)
class Instruction:
    """One line of HLO text: what it computes, from what, and the rest of the line."""

    name: str
    opcode: str
    shape: tuple[int, ...]
    operands: tuple[str, ...]
    attributes: str

    def attribute(self, name: str) -> str:
        """The value of ``name=...``, without braces; "" where there is none."""
        found = re.search(rf"\b{name}=(?:\{{([^}}]*)\}}|([^\s,]+))", self.attributes)
        return "" if found is None else (found[1] if found[1] is not None else found[2])

    def numbers(self, name: str) -> list[int]:
        return [int(n) for n in self.attribute(name).split(",") if n]


@dataclass
class Operations:
    """What a program computes.

    Attributes:
        flops: exact number of operations, by opcode.
        flops_float32: their sum as XLA adds it up.
        unknown: opcodes that no rule here counts, and computations that are called but not there;
            their operations are missing from the sums.
        loops: number of loops; their bodies are counted once.
    """

    flops: Counter[str] = field(default_factory=Counter)
    flops_float32: float = 0.0
    unknown: set[str] = field(default_factory=set)
    loops: int = 0

    @property
    def total(self) -> int:
        return sum(self.flops.values())

    @property
    def products(self) -> int:
        """Those of convolutions and matrix products."""
        return self.flops["convolution"] + self.flops["dot"]

    def add(self, other: "Operations", times: int) -> None:
        for opcode, count in other.flops.items():
            self.flops[opcode] += times * count
        self.unknown |= other.unknown
        self.loops += other.loops


Program = Mapping[str, Sequence[Instruction]]

_HEAD = re.compile(r"^(ENTRY )?%?([\w.-]+) .*\{$|^(ENTRY )?%?([\w.-]+) \{$")
_LINE = re.compile(
    r"^\s+(?:ROOT )?%?(?P<name>[\w.-]+) = "
    r"(?P<shape>\(.*?\)|\w+\[[\d,]*\](?:\{[^}]*\})?) "
    r"(?P<opcode>[\w-]+)\((?P<operands>[^)]*)\)(?P<attributes>.*)$"
)
_ANY_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.-]+ = ")


def parse(text: str) -> tuple[Program, str]:
    """Computations by name, and the entry's name.

    Raises:
        ValueError: there is no entry computation in the text, or an instruction cannot be read.
    """
    program: dict[str, list[Instruction]] = {}
    current, entry = "", ""
    for line in text.splitlines():
        if head := _HEAD.match(line):
            current = head[2] or head[4]
            entry = current if line.startswith("ENTRY") else entry
            program[current] = []
        elif (found := _LINE.match(line)) and current:
            program[current].append(
                Instruction(
                    found["name"],
                    found["opcode"],
                    _dimensions(found["shape"]),
                    tuple(re.findall(r"%?([\w.-]+)(?:,|$)", found["operands"])),
                    found["attributes"],
                )
            )
        elif _ANY_INSTRUCTION.match(line):
            raise ValueError(f"cannot read the HLO instruction {line.strip()!r}")
    if not entry:
        raise ValueError("no entry computation in the HLO text")
    return program, entry


def _dimensions(shape: str) -> tuple[int, ...]:
    """Of an array; a tuple's are not asked for."""
    found = re.match(r"\w+\[([\d,]*)\]", shape)
    return tuple(int(side) for side in found[1].split(",") if side) if found else ()


def count(text: str) -> Operations:
    """All operations of the program whose HLO text this is.

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
        if flops := _own_flops(instruction, operands):
            total.flops[instruction.opcode] += flops
        sum32 += np.float32(flops32 + flops)
        total.loops += instruction.opcode == "while"
        total.unknown |= _unknown(instruction)
    total.flops_float32 = float(sum32)
    done[name] = total
    return total


# Custom calls that compute nothing: notes on where arrays are.
_NOTES = ("Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape", "annotate_device_placement")
_CALLING = ("call", "conditional", "map", "reduce", "reduce-window", "scatter")
_KNOWN = (
    ELEMENTWISE
    | TRANSCENDENTAL
    | MOVES
    | {"convolution", "custom-call", "dot", "select-and-scatter", "while"}
)


def _unknown(instruction: Instruction) -> set[str]:
    """What of an instruction no rule counts."""
    opcode = instruction.opcode
    if opcode == "custom-call":
        target = instruction.attribute("custom_call_target").strip('"')
        return set() if target in _NOTES else {f"custom-call {target}"}
    if opcode == "conditional" and not _branches(instruction):
        return {opcode}
    return set() if opcode in _KNOWN or opcode in _CALLING else {opcode}


def _branches(instruction: Instruction) -> list[str]:
    """The computations of which an instruction applies one."""
    if instruction.opcode != "conditional":
        return []
    names = ("branch_computations", "true_computation", "false_computation")
    listed = ",".join(instruction.attribute(name) for name in names)
    return re.findall(r"[\w.-]+", listed)


def _calls(instruction: Instruction, operands: Sequence[tuple[int, ...]]) -> list[tuple[str, int]]:
    """The computations that an instruction applies, and how often each."""
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
            window = math.prod(_window(instruction, "size"))
            return [(instruction.attribute("to_apply"), (window - 1) * outputs)]
        case "scatter":
            return [(instruction.attribute("to_apply"), math.prod(operands[-1]))]
        case "select-and-scatter":
            sources = math.prod(operands[1])
            window = math.prod(_window(instruction, "size"))
            return [
                (instruction.attribute("select"), (window - 1) * sources),
                (instruction.attribute("scatter"), sources),
            ]
        case _:
            return []


def _reduced(shape: tuple[int, ...], instruction: Instruction) -> list[int]:
    axes = instruction.numbers("dimensions")
    return [side for axis, side in enumerate(shape) if axis not in axes]


def _own_flops(instruction: Instruction, operands: Sequence[tuple[int, ...]]) -> int:
    if instruction.opcode in ELEMENTWISE:
        return math.prod(instruction.shape)
    if instruction.opcode == "dot":
        contracted = instruction.numbers("lhs_contracting_dims")
        return 2 * math.prod(instruction.shape) * math.prod(operands[0][i] for i in contracted)
    if instruction.opcode == "convolution":
        return 2 * _convolution_macs(instruction, *operands)
    if instruction.opcode == "custom-call":
        return -1  # XLA's mark for what it cannot know; before its optimisation, a note on sharding
    return 0


def _window(instruction: Instruction, name: str) -> list[int]:
    """A field of ``window={size=3x3 stride=2x2 ...}``; of ``pad=1_2x1_2`` the lower ones."""
    found = re.search(rf"\b{name}=([\dx_-]+)", instruction.attribute("window"))
    if found is None:
        return []
    return [int(side.split("_")[0]) for side in found[1].split("x")]


def _convolution_macs(
    instruction: Instruction, image: tuple[int, ...], kernel: tuple[int, ...]
) -> int:
    """Multiply-adds of which both factors are elements of the arrays."""
    images, kernels, outputs = re.split("_|->", instruction.attribute("dim_labels"))
    sizes = _window(instruction, "size")
    axes = len(sizes)
    ones = [1] * axes
    strides = _window(instruction, "stride") or ones
    pads = _window(instruction, "pad") or [0] * axes
    image_spread = _window(instruction, "lhs_dilate") or ones
    kernel_spread = _window(instruction, "rhs_dilate") or ones
    macs = instruction.shape[outputs.index("b")] * instruction.shape[outputs.index("f")]
    macs *= kernel[kernels.index("i")]
    for axis in range(axes):
        macs *= _valid_positions(
            image[images.index(str(axis))],
            sizes[axis],
            instruction.shape[outputs.index(str(axis))],
            strides[axis],
            pads[axis],
            image_spread[axis],
            kernel_spread[axis],
        )
    return macs


def _valid_positions(
    side: int, size: int, out_side: int, stride: int, pad: int, spread: int, kernel_spread: int
) -> int:
    """Pairs of an output and a tap that meet an element, along one axis."""
    outputs = stride * np.arange(out_side)[:, None]
    at = outputs + kernel_spread * np.arange(size) - pad  # [outputs, taps]
    return int(((at >= 0) & (at % spread == 0) & (at // spread < side)).sum())
