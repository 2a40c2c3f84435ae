"""Data exchanged between devices in a compiled program, read from its HLO text.

The numbers are those of the program that XLA runs, after XLA has merged, split or added collective
operations.
"""

from dataclasses import dataclass

from nin_jax.accounting.hlo import parse

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
        bytes: size of all its operands, on one device.
    """

    kind: str
    bytes: int


def collectives(hlo_text: str) -> list[Collective]:
    """Return each collective operation in the text; one inside a loop is listed once.

    An asynchronous collective is a pair of instructions, of which only the start is listed.

    Args:
        hlo_text: ``compiled.as_text()``.

    Raises:
        ValueError: an instruction, an operand of a collective or its type cannot be read.
    """
    program, _ = parse(hlo_text)
    found = []
    for instructions in program.values():
        by_name = {instruction.name: instruction for instruction in instructions}
        for instruction in instructions:
            kind = instruction.opcode.removesuffix("-start")
            if kind in KINDS:
                sizes = []
                for operand in instruction.operands:
                    if operand not in by_name:
                        raise ValueError(f"operand {operand!r} of {kind} is not in the HLO text")
                    sizes.append(by_name[operand].bytes)
                found.append(Collective(kind, sum(sizes)))
    return found
