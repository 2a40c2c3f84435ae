"""What devices send each other in a compiled program, read from its HLO text.

Only the text is read: the numbers are those of the program as XLA will run it, after it has put
together, split or added collectives of its own.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "collective-permute",
    "all-to-all",
    "collective-broadcast",
)


@dataclass(frozen=True)
class Collective:
    """One collective operation.

    Attributes:
        kind: one of `KINDS`.
        bytes: of its operands together, on one device.
    """

    kind: str
    bytes: int


def collectives(hlo_text: str) -> list[Collective]:
    """The collectives of a program, each as often as it stands in the text: in a loop, once.

    An asynchronous one is a pair of instructions; it is counted where it starts.

    Args:
        hlo_text: ``compiled.as_text()``.

    Raises:
        ValueError: an operand of a collective, or its type, is not known.
    """
    found = []
    shapes: dict[str, str] = {}  # of the instructions of one computation, by name
    for line in hlo_text.splitlines():
        if not line.startswith(" "):
            shapes = {}
        elif instruction := _LINE.match(line):
            shape, opcode, operands = _parts(instruction["rest"])
            shapes[instruction["name"]] = shape
            kind = opcode.removesuffix("-start")
            if kind in KINDS:
                found.append(Collective(kind, sum(_operand_bytes(operands, shapes))))
    return found


_LINE = re.compile(r"^\s+(?:ROOT )?%?(?P<name>[\w.-]+) = (?P<rest>.*)$")
_OPERAND = re.compile(r"(?<![\w.%-])%?([A-Za-z_][\w.-]*)\s*(?:,|$)")
_ARRAY = re.compile(r"([a-z]\w*)\[([^\]]*)\]")


def _parts(rest: str) -> tuple[str, str, str]:
    """``SHAPE OPCODE(OPERANDS), ATTRIBUTES`` -> shape, opcode and operands."""
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.find(" ")
    opcode, _, tail = rest[end:].strip().partition("(")
    return rest[:end], opcode, tail[: _closing("(" + tail, 0) - 1]


def _closing(text: str, start: int) -> int:
    """Where the parenthesis closes that opens at ``start``; the text's end if it does not."""
    depth = 0
    for at in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if depth == 0:
            return at
    return len(text)


def _operand_bytes(operands: str, shapes: dict[str, str]) -> Iterator[int]:
    for name in _OPERAND.findall(operands):
        if name not in shapes:
            raise ValueError(f"the operand {name!r} of a collective is not in the HLO text")
        yield _bytes(shapes[name])


def _bytes(shape: str) -> int:
    """Of an array, as ``bf16[8,4]{1,0}``, or of all arrays of a tuple."""
    total = 0
    for dtype, sides in _ARRAY.findall(shape):
        count = math.prod(int(side.strip("<= ")) for side in sides.split(",") if side)
        total += -(-count * _bits(dtype) // 8)
    return total


def _bits(dtype: str) -> int:
    """Of one element: 32 of ``s32``, 8 of ``f8e4m3fn``; tokens have none."""
    if dtype in ("token", "opaque"):
        return 0
    if dtype == "pred":
        return 8
    if (digits := re.match(r"(?:bf|f|s|u|c)(\d+)", dtype)) is None:
        raise ValueError(f"the HLO type {dtype!r} is not known")
    return int(digits[1])
