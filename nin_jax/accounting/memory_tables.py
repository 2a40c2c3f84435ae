"""Memory as tables: on paper, as XLA plans it, and as it was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nin_jax.accounting.account import Account, Task
from nin_jax.accounting.memory import torch_kept_bytes
from nin_jax.tables import Bytes, Cell, Table

OURS = "nin_jax"  # the contender whose memory XLA plans


@dataclass(frozen=True)
class Measured:
    """What a process of its own was seen to take, in bytes; None where the system does not tell.

    Attributes:
        contender: whose process.
        task: "train" or "predict".
        peak_resident_bytes: the most that the process ever held.
        between_steps_bytes: what it holds between two steps: libraries, network, data.
        step_bytes: by how much it grows within a step.
        peak_device_bytes: of a GPU's memory.
        predicted_step_bytes: what was predicted for ``step_bytes``.
        error: why there is nothing.
    """

    contender: str
    task: str
    peak_resident_bytes: int | None = None
    between_steps_bytes: int | None = None
    step_bytes: int | None = None
    peak_device_bytes: int | None = None
    predicted_step_bytes: int | None = None
    error: str | None = None


PAPER = {
    "params_bytes": "parameters",
    "gradients_bytes": "gradients",
    "optimizer_bytes": "optimiser state",
    "images_bytes": "images",
    "activations_bytes": "activations that live at the same time",
    "total_bytes": "total",
}
PLANNED = {
    "argument_bytes": "arguments: parameters, optimiser state, images",
    "output_bytes": "outputs",
    "alias_bytes": "outputs in place of arguments",
    "temp_bytes": "temporaries",
    "total_bytes": "total",
    "code_bytes": "the program's code",
    "peak_bytes": "peak, as XLA says",
}


def memory_table(account: Account, task: Task) -> Table:
    """What a task takes: on paper, and by XLA's plans."""
    memory = account.memory[task]
    rows: list[tuple[Cell | Bytes, ...]] = [
        ("on paper", name, Bytes(getattr(memory.paper, field)))
        for field, name in PAPER.items()
        if task == "train" or field not in ("gradients_bytes", "optimizer_bytes")
    ]
    if task == "train" and account.precision == "float32":
        kept = account.batch_size * torch_kept_bytes(account.layers)
        rows.append(("on paper", "activations that PyTorch's autograd keeps", Bytes(kept)))
    plans = {"XLA, its own operations, all at once": memory.plain, "XLA, as it runs": memory.as_run}
    for provenance, plan in plans.items():
        if plan is not None:
            rows += [
                (provenance, name, Bytes(getattr(plan, field))) for field, name in PLANNED.items()
            ]
    what = "training step" if task == "train" else "prediction"
    images = f"{account.batch_size} image{'s' if account.batch_size > 1 else ''}"
    note = "On paper the whole batch is computed at once."
    if memory.as_run:
        note += (
            " XLA's total: arguments + outputs - outputs in place of arguments + temporaries. Its "
            "own peak leaves temporaries out on a CPU."
        )
    headings = ("provenance", "figure", "MiB")
    return Table(f"Memory of a {what}, {images}, {account.precision}", headings, rows, note)


NEAR = 0.15  # measured over planned, off by more, is explained
ABOVE = (
    "On a CPU XLA's convolutions of several channels unfold their input outside its plan, "
    "batch x height x width x kernel x kernel x channels floats at most: 16 MiB for nin's first "
    "layer, of three channels and four images. What is above that differs from run to run and is "
    "unexplained; benchmarks/results/README.md has figures."
)
BELOW = "A plan's memory counts as resident only where it is touched."


def _ratio(measured: int | None, predicted: int | None) -> float | None:
    return round(measured / predicted, 3) if measured is not None and predicted else None


def _explained(ratios: Mapping[str, float | None]) -> str:
    """Why our processes take more or less than XLA plans, where the two are not near."""
    known = {name: ratio for name, ratio in ratios.items() if ratio is not None}
    parts = []
    for off, word, why in (
        ({n: r for n, r in known.items() if r > 1 + NEAR}, "above", ABOVE),
        ({n: r for n, r in known.items() if r < 1 - NEAR}, "below", BELOW),
    ):
        if off:
            listed = ", ".join(f"{name} {ratio:.2f}" for name, ratio in off.items())
            parts.append(f" More than {NEAR:.0%} {word} what is planned: {listed}. {why}")
    return "".join(parts)


def measured_table(measured: Sequence[Measured], batch_size: int) -> Table:
    """What processes were seen to take, beside what was predicted for a step."""
    ratios: dict[str, float | None] = {}
    rows: list[tuple[Cell | Bytes, ...]] = []
    for row in measured:
        ratio = _ratio(row.step_bytes, row.predicted_step_bytes)
        if row.contender == OURS:
            ratios[row.task] = ratio
        rows.append(
            (
                row.task,
                row.contender,
                Bytes(row.peak_resident_bytes),
                Bytes(row.between_steps_bytes),
                Bytes(row.step_bytes),
                Bytes(row.predicted_step_bytes),
                ratio,
                Bytes(row.peak_device_bytes),
                row.error or "",
            )
        )
    return Table(
        f"Memory measured, batch {batch_size}, each in a process of its own, MiB",
        (
            *("task", "contender", "process, peak", "between steps", "within a step"),
            *("predicted", "measured / predicted", "GPU, peak", "error"),
        ),
        rows,
        "Predicted: for nin_jax what XLA plans for temporaries and new outputs; for PyTorch what "
        "autograd keeps, or the largest layer's input and output. Between steps a process holds "
        "its libraries, network and data." + _explained(ratios),
    )


def largest_table(accounts: Sequence[Account]) -> Table:
    """A row for each network and task: the largest batch that fits into the memory asked about."""
    return Table(
        "Largest batch, computed at once",
        ("variant", "task", "memory, MiB", "images", "needed, MiB"),
        [
            (
                account.variant,
                batch.task,
                Bytes(batch.memory_bytes),
                batch.images,
                Bytes(batch.needed_bytes),
            )
            for account in accounts
            for batch in account.largest_batches
        ],
        "By what XLA plans for the program; what the process holds besides is not in it.",
    )


def variant_memory_table(
    accounts: Sequence[Account], measured: Mapping[str, Sequence[Measured]]
) -> Table:
    """A row for each network and task: what XLA plans, and what was measured."""
    ratios: dict[str, float | None] = {}
    rows: list[tuple[Cell | Bytes, ...]] = []
    for account in accounts:
        for task in ("train", "predict"):
            found = [row for row in measured.get(account.variant, ()) if row.task == task]
            ours, theirs, *_ = *found, None, None
            predicted = account.predicted_step_bytes(task)
            step = ours.step_bytes if ours else None
            ratio = ratios[f"{account.variant}, {task}"] = _ratio(step, predicted)
            plain = account.memory[task].plain
            rows.append(
                (
                    account.variant,
                    task,
                    Bytes(plain.total_bytes if plain else None),
                    Bytes(predicted),
                    Bytes(step),
                    ratio,
                    Bytes(theirs.step_bytes if theirs else None),
                    Bytes(ours.peak_resident_bytes if ours else None),
                    Bytes(theirs.peak_resident_bytes if theirs else None),
                    "; ".join(f"{row.contender}: {row.error}" for row in found if row.error),
                )
            )
    return Table(
        f"Memory of a batch of {accounts[0].batch_size}, MiB",
        (
            *("variant", "task", "XLA, plain operations", "a step of ours, predicted", "measured"),
            *("measured / predicted", "a step of PyTorch's", "our process", "PyTorch's process"),
            "error",
        ),
        rows,
        "Predicted: what XLA plans for the program as it runs, for temporaries and new outputs. "
        "PyTorch is eager, channels_last. A process holds its libraries besides."
        + _explained(ratios),
    )
