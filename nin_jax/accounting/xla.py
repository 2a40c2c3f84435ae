"""What XLA says of a program: its cost analysis and its memory.

Back ends differ in what they tell. What one does not is None here, and is printed as "not
available"; nothing is ever 0 because it is unknown.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import jax

from nin_jax.accounting import operations


@dataclass(frozen=True)
class ProgramCost:
    """Operations of one program, for all of its images.

    Attributes:
        flops_xla: as XLA's cost analysis has it, before XLA's optimisation.
        flops: the same, counted instruction by instruction in whole numbers.
        flops_products: those of them in convolutions and matrix products.
        flops_rounding: what XLA's float32 sum is above the exact one.
        flops_unexplained: what is left: ``flops_xla - flops - flops_rounding``.
        flops_by_opcode: ``flops``, by XLA's name of the operation.
        loops: number of loops in the program; a loop's body is counted once.
        unknown: what no rule of ours counts; ``flops`` is then a lower bound.
        flops_optimised, transcendentals, bytes_accessed: of the program after XLA's optimisation.
            Bytes count each operand of each fused operation, whether from a cache or not.
    """

    flops_xla: float | None
    flops: int | None
    flops_products: int | None
    flops_rounding: float | None
    flops_unexplained: float | None
    flops_by_opcode: Mapping[str, int]
    loops: int | None
    unknown: tuple[str, ...]
    flops_optimised: float | None = None
    transcendentals: float | None = None
    bytes_accessed: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def program_cost(
    lowered: jax.stages.Lowered, compiled: jax.stages.Compiled | None = None
) -> ProgramCost:
    """The operations of a program; with ``compiled``, also of what XLA made of it."""
    flops_xla = cost_entry(lowered, "flops")
    after = {
        "flops_optimised": cost_entry(compiled, "flops"),
        "transcendentals": cost_entry(compiled, "transcendentals"),
        "bytes_accessed": cost_entry(compiled, "bytes accessed"),
    }
    found = _counted(lowered)
    if found is None:
        return ProgramCost(flops_xla, None, None, None, None, {}, None, (), **after)
    rounding = found.flops_float32 - found.total
    return ProgramCost(
        flops_xla,
        found.total,
        found.products,
        rounding,
        None if flops_xla is None else flops_xla - found.flops_float32,
        dict(found.flops.most_common()),
        found.loops,
        tuple(sorted(found.unknown)),
        **after,
    )


def _counted(lowered: Any) -> operations.Operations | None:
    """The program's operations one by one; None if its text is not to be had, or to be read."""
    try:
        text = lowered.as_text(dialect="hlo")
        return operations.count(text) if isinstance(text, str) else None
    except (AttributeError, ValueError, NotImplementedError, jax.errors.JaxRuntimeError):
        return None


def cost_entry(stage: Any, key: str) -> float | None:
    """An entry of ``stage.cost_analysis()``, or None: it may be a dictionary, a list of one, None,
    lack the entry, or not exist."""
    try:
        analysis = stage.cost_analysis()
    except (AttributeError, NotImplementedError, jax.errors.JaxRuntimeError):
        return None
    if isinstance(analysis, list | tuple):
        analysis = analysis[0] if analysis else None
    value = analysis.get(key) if isinstance(analysis, Mapping) else None
    # XLA marks what it cannot know by -1.
    return value if isinstance(value, int | float) and value >= 0 else None


@dataclass(frozen=True)
class XlaMemory:
    """Memory of a compiled program, in bytes, as XLA planned it.

    Attributes:
        argument_bytes: of what goes in: parameters, optimiser state, images.
        output_bytes: of what comes out.
        alias_bytes: of outputs that take the place of donated arguments.
        temp_bytes: of everything in between.
        code_bytes: of the program itself.
        peak_bytes: XLA's own figure for the most that is held at once; what it includes differs
            between back ends, and on the CPU it leaves out temporaries.
    """

    argument_bytes: int | None
    output_bytes: int | None
    alias_bytes: int | None
    temp_bytes: int | None
    code_bytes: int | None
    peak_bytes: int | None

    @property
    def total_bytes(self) -> int | None:
        """What the program needs: arguments, temporaries, and outputs with a place of their own."""
        parts = (self.argument_bytes, self.output_bytes, self.alias_bytes, self.temp_bytes)
        if any(part is None for part in parts):
            return None
        argument, output, alias, temp = (part or 0 for part in parts)
        return argument + output - alias + temp

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"total_bytes": self.total_bytes}


def xla_memory(compiled: Any) -> XlaMemory:
    """What ``compiled.memory_analysis()`` tells."""
    try:
        analysis = compiled.memory_analysis()
    except (AttributeError, NotImplementedError, jax.errors.JaxRuntimeError):
        analysis = None
    if isinstance(analysis, list | tuple):
        analysis = analysis[0] if analysis else None

    def entry(name: str) -> int | None:
        value = getattr(analysis, name, None)
        return value if isinstance(value, int) and value >= 0 else None

    return XlaMemory(
        entry("argument_size_in_bytes"),
        entry("output_size_in_bytes"),
        entry("alias_size_in_bytes"),
        entry("temp_size_in_bytes"),
        # A back end that says 0 has not counted: there is no program without code.
        entry("generated_code_size_in_bytes") or None,
        entry("peak_memory_in_bytes") or None,
    )
