"""XLA's cost analysis and memory analysis of a program.

Back ends differ in what they report. A value that a back end does not report is None here, never 0,
and is printed as "not available".
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import jax

from nin_jax.accounting import operations
from nin_jax.accounting.memory import PaperMemory


@dataclass(frozen=True)
class ProgramCost:
    """Operations of one program, for all of its images.

    Attributes:
        flops_xla: by XLA's cost analysis, before XLA's optimization.
        flops: the same, counted instruction by instruction in whole numbers.
        flops_products: the part of ``flops`` in convolutions and matrix products.
        flops_rounding: XLA's float32 sum minus the exact sum.
        flops_unexplained: the remainder, ``flops_xla - flops - flops_rounding``.
        flops_by_opcode: ``flops`` by XLA's name of the operation.
        loops: number of loops in the program; a loop's body is counted once.
        unknown: operations without a rule; if there are any, ``flops`` is a lower bound.
        flops_optimized, transcendentals, bytes_accessed: of the program after XLA's optimization.
            Bytes count each operand of each fused operation, also if it comes from a cache.
    """

    flops_xla: float | None
    flops: int | None
    flops_products: int | None
    flops_rounding: float | None
    flops_unexplained: float | None
    flops_by_opcode: Mapping[str, int]
    loops: int | None
    unknown: tuple[str, ...]
    flops_optimized: float | None = None
    transcendentals: float | None = None
    bytes_accessed: float | None = None

    @property
    def flops_other(self) -> int | None:
        """The part of ``flops`` that is not in products."""
        if self.flops is None or self.flops_products is None:
            return None
        return self.flops - self.flops_products


def program_cost(
    lowered: jax.stages.Lowered, compiled: jax.stages.Compiled | None = None
) -> ProgramCost:
    """Return the operations of a program; with ``compiled``, also after XLA's optimization."""
    flops_xla = cost_entry(lowered, "flops")
    after = {
        "flops_optimized": cost_entry(compiled, "flops"),
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
    """Count the program's operations; None if its text is not available or cannot be read."""
    try:
        text = lowered.as_text(dialect="hlo")
        return operations.count(text) if isinstance(text, str) else None
    except (AttributeError, ValueError, NotImplementedError, jax.errors.JaxRuntimeError):
        return None


def cost_entry(stage: Any, key: str) -> float | None:
    """Return an entry of ``stage.cost_analysis()``, or None if it is not reported."""
    analysis = _analysis(stage, "cost_analysis")
    value = analysis.get(key) if isinstance(analysis, Mapping) else None
    # XLA writes -1 for an unknown value.
    return value if isinstance(value, int | float) and value >= 0 else None


def _analysis(stage: Any, kind: str) -> Any:
    """Return what a method of a program reports, alone or in a list; None if it does not exist."""
    try:
        found = getattr(stage, kind)()
    except (AttributeError, NotImplementedError, jax.errors.JaxRuntimeError):
        return None
    return next(iter(found), None) if isinstance(found, list | tuple) else found


@dataclass(frozen=True)
class XlaMemory:
    """Memory of a compiled program, in bytes, as planned by XLA.

    Attributes:
        argument_bytes: inputs: parameters, optimizer state, images.
        output_bytes: outputs.
        alias_bytes: outputs that reuse the memory of donated arguments.
        temp_bytes: temporaries.
        code_bytes: the program itself.
        peak_bytes: XLA's own figure for the peak. Back ends define it differently; on the CPU it
            does not include temporaries.
    """

    argument_bytes: int | None
    output_bytes: int | None
    alias_bytes: int | None
    temp_bytes: int | None
    code_bytes: int | None
    peak_bytes: int | None

    @property
    def total_bytes(self) -> int | None:
        """Arguments, temporaries, and outputs that do not reuse arguments; None if unknown."""
        parts = (self.argument_bytes, self.output_bytes, self.alias_bytes, self.temp_bytes)
        if any(part is None for part in parts):
            return None
        argument, output, alias, temp = (part or 0 for part in parts)
        return argument + output - alias + temp

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and ``total_bytes`` as plain data."""
        return asdict(self) | {"total_bytes": self.total_bytes}


def xla_memory(compiled: Any) -> XlaMemory:
    """Return the memory that ``compiled.memory_analysis()`` reports."""
    analysis = _analysis(compiled, "memory_analysis")

    def entry(name: str) -> int | None:
        value = getattr(analysis, name, None)
        return value if isinstance(value, int) and value >= 0 else None

    return XlaMemory(
        entry("argument_size_in_bytes"),
        entry("output_size_in_bytes"),
        entry("alias_size_in_bytes"),
        entry("temp_size_in_bytes"),
        # 0 means that the back end did not measure: every program has code.
        entry("generated_code_size_in_bytes") or None,
        entry("peak_memory_in_bytes") or None,
    )


@dataclass(frozen=True)
class TaskMemory:
    """Memory of one task, by three methods.

    Attributes:
        paper: by formula from the shapes, the whole batch at once.
        plain: planned by XLA for XLA's own operations, the whole batch at once; None without
            XLA's analysis.
        as_run: planned by XLA for the program that runs; None without XLA's analysis.
    """

    paper: PaperMemory
    plain: XlaMemory | None = None
    as_run: XlaMemory | None = None

    @property
    def step_bytes(self) -> int | None:
        """Bytes of temporaries and new outputs of a step as it runs.

        None without XLA's analysis, or if it does not report them.
        """
        plan = self.as_run
        if plan is None or plan.total_bytes is None or plan.argument_bytes is None:
            return None
        return plan.total_bytes - plan.argument_bytes

    def to_dict(self) -> dict[str, Any]:
        """Return the memory by the three methods as plain data."""
        return {
            "paper": self.paper.to_dict(),
            "xla_plain": self.plain and self.plain.to_dict(),
            "xla_as_run": self.as_run and self.as_run.to_dict(),
        }


def plan_memory(
    paper: PaperMemory, plain: jax.stages.Lowered, as_run: jax.stages.Lowered
) -> TaskMemory:
    """Compile the two programs of a task and return the memory that XLA plans for them."""
    return TaskMemory(paper, xla_memory(plain.compile()), xla_memory(as_run.compile()))
