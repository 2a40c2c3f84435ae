"""Read HLO text: computations, their instructions, and the shapes and sizes of their results.

Reads what ``lowered.as_text(dialect="hlo")`` and ``compiled.as_text()`` print.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Instruction:
    """One line of HLO text.

    Attributes:
        name: of the instruction, unique in its computation.
        type: of the result, such as ``f32[8,4]{1,0}``, or a tuple of types in parentheses.
        opcode: what it computes, such as ``add``.
        operands: names of the instructions whose results it takes.
        attributes: the rest of the line.
    """

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str

    def attribute(self, name: str) -> str:
        """Return the value of ``name=...`` without braces, or "" if there is none."""
        found = re.search(rf"\b{name}=(?:\{{([^}}]*)\}}|([^\s,]+))", self.attributes)
        return "" if found is None else (found[1] if found[1] is not None else found[2])

    def numbers(self, name: str) -> list[int]:
        """Return the numbers of an attribute such as ``dimensions={0,2}``."""
        return [int(n) for n in self.attribute(name).split(",") if n]

    def window(self, name: str) -> list[int]:
        """Return a field of ``window={size=3x3 pad=1_2x1_2 ...}``; of ``pad`` the lower ones."""
        found = re.search(rf"\b{name}=([\dx_-]+)", self.attribute("window"))
        return [int(side.split("_")[0]) for side in found[1].split("x")] if found else []

    @property
    def shape(self) -> tuple[int, ...]:
        """The result's dimensions; () for a tuple of results.

        Raises:
            ValueError: a dimension is not a fixed number.
        """
        found = _ARRAY.match(self.type)
        try:
            return tuple(int(side) for side in found[2].split(",") if side) if found else ()
        except ValueError:
            raise ValueError(f"cannot read the shape of {self.name}: {self.type!r}") from None

    @property
    def bytes(self) -> int:
        """The result's size on one device; for a tuple, the sum over its arrays.

        A dimension with a bound, such as ``<=8``, counts as the bound.

        Raises:
            ValueError: an element type is not known.
        """
        total = 0
        for dtype, sides in _ARRAY.findall(self.type):
            count = math.prod(int(side.strip("<= ")) for side in sides.split(",") if side)
            total += -(-count * _bits(dtype) // 8)
        return total


_ARRAY = re.compile(r"([a-z]\w*)\[([^\]]*)\]")


def _bits(dtype: str) -> int:
    """Return the bits of one element: 32 for ``s32``, 8 for ``f8e4m3fn``, 0 for a token."""
    if dtype in ("token", "opaque"):
        return 0
    if dtype == "pred":
        return 8
    if (digits := re.match(r"(?:bf|f|s|u|c)(\d+)", dtype)) is None:
        raise ValueError(f"unknown HLO type {dtype!r}")
    return int(digits[1])


Program = Mapping[str, Sequence[Instruction]]

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?(?P<name>[\w.-]+) (?:.* )?\{$")
_START = re.compile(r"^\s+(?:ROOT )?%?(?P<name>[\w.-]+) = ")
# The opcode is the first word that stands before a parenthesis, with a space before it.
_REST = re.compile(r"(?P<type>.+?) (?P<opcode>[a-z][\w-]*)\((?P<tail>.*)$")
_OPERAND = re.compile(r"(?<![\w.%-])%?([A-Za-z_][\w.-]*)\s*(?:,|$)")


def parse(text: str) -> tuple[Program, str]:
    """Return the computations by name, and the name of the entry computation.

    Raises:
        ValueError: the text has no entry computation, or an instruction cannot be read.
    """
    program: dict[str, list[Instruction]] = {}
    current, entry = "", ""
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            current = head["name"]
            entry = current if line.startswith("ENTRY") else entry
            program[current] = []
        elif start := _START.match(line):
            rest = _REST.match(line[start.end() :])
            if rest is None or not current:
                raise ValueError(f"cannot read the HLO instruction {line.strip()!r}")
            operands, attributes = _split_at_closing(rest["tail"])
            names = tuple(_OPERAND.findall(operands))
            program[current].append(
                Instruction(start["name"], rest["type"], rest["opcode"], names, attributes)
            )
    if not entry:
        raise ValueError("the HLO text has no entry computation")
    return program, entry


def _split_at_closing(text: str) -> tuple[str, str]:
    """Split at the parenthesis that closes one which was opened before the text."""
    depth = 1
    for at, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return text[:at], text[at + 1 :]
    return text, ""
