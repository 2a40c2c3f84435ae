"""Tables of memory: by formula, as planned by XLA, and as measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nin_jax.accounting.account import Account, Task
from nin_jax.tables import Bytes, Cell, Table

OURS = "nin_jax"  # the contender with a plan by XLA


@dataclass(frozen=True)
class Measured:
    """Memory measured in a separate process, in bytes; None if the system does not report it.

    Attributes:
        contender: the implementation.
        task: "train" or "predict".
        peak_resident_bytes: the peak of resident memory.
        between_steps_bytes: resident memory between two steps: libraries, network, data.
        step_bytes: growth of resident memory within a step.
        peak_device_bytes: the peak of a GPU's memory.
        predicted_step_bytes: the prediction for ``step_bytes``.
        error: why there are no figures.
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
    "optimizer_bytes": "optimizer state",
    "images_bytes": "images",
    "activations_bytes": "activations held at the same time",
    "total_bytes": "total",
}
PLANNED = {
    "argument_bytes": "arguments: parameters, optimizer state, images",
    "output_bytes": "outputs",
    "alias_bytes": "outputs that reuse arguments",
    "temp_bytes": "temporaries",
    "total_bytes": "total",
    "code_bytes": "code of the program",
    "peak_bytes": "peak, by XLA",
}


def memory_table(account: Account, task: Task) -> Table:
    """Return the memory of a task: by formula and as planned by XLA."""
    memory = account.memory[task]
    rows: list[tuple[Cell | Bytes, ...]] = [
        ("on paper", name, Bytes(getattr(memory.paper, field)))
        for field, name in PAPER.items()
        if task == "train" or field not in ("gradients_bytes", "optimizer_bytes")
    ]
    kept = account.predicted_torch_step_bytes(with_gradients=True)
    if task == "train" and kept is not None:
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
            " XLA's total: arguments + outputs - outputs that reuse arguments + temporaries. Its "
            "own peak does not include temporaries on a CPU."
        )
    headings = ("provenance", "figure", "MiB")
    return Table(f"Memory of a {what}, {images}, {account.precision}", headings, rows, note)


NEAR = 0.15  # a larger difference between measured and planned memory gets an explanation
ABOVE = (
    "On a CPU, XLA's convolution of several channels first copies its input into a larger array "
    "that is not in the plan: at most batch x height x width x kernel x kernel x channels floats, "
    "16 MiB for nin's first layer with three channels and four images. Growth above that differs "
    "from run to run and is unexplained; benchmarks/results/README.md has figures."
)
BELOW = "Planned memory is resident only after it is touched."


def _ratio(measured: int | None, predicted: int | None) -> float | None:
    return round(measured / predicted, 3) if measured is not None and predicted else None


def _explained(ratios: Mapping[str, float | None]) -> str:
    """Explain ratios of measured to planned memory that are not near 1."""
    known = {name: ratio for name, ratio in ratios.items() if ratio is not None}
    parts = []
    for far, word, why in (
        ({n: r for n, r in known.items() if r > 1 + NEAR}, "above", ABOVE),
        ({n: r for n, r in known.items() if r < 1 - NEAR}, "below", BELOW),
    ):
        if far:
            listed = ", ".join(f"{name} {ratio:.2f}" for name, ratio in far.items())
            parts.append(f" More than {NEAR:.0%} {word} the plan: {listed}. {why}")
    return "".join(parts)


def measured_table(measured: Sequence[Measured], batch_size: int) -> Table:
    """Return the memory measured in each process, beside the prediction for a step."""
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
        f"Memory measured, batch {batch_size}, each in a separate process, MiB",
        (
            *("task", "contender", "process, peak", "between steps", "within a step"),
            *("predicted", "measured / predicted", "GPU, peak", "error"),
        ),
        rows,
        "Predicted: for nin_jax the temporaries and new outputs that XLA plans; for PyTorch what "
        "autograd keeps, or the largest layer's input and output. Between steps a process holds "
        "libraries, network and data." + _explained(ratios),
    )


def largest_table(accounts: Sequence[Account]) -> Table:
    """Return a row for each network and task: the largest batch that fits into the memory."""
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
        "By the memory that XLA plans for the program. The process needs more for its libraries.",
    )


def variant_memory_table(
    accounts: Sequence[Account], measured: Mapping[str, Sequence[Measured]]
) -> Table:
    """Return a row for each network and task: memory planned by XLA and measured."""
    ratios: dict[str, float | None] = {}
    rows: list[tuple[Cell | Bytes, ...]] = []
    for account in accounts:
        for task in ("train", "predict"):
            found = [row for row in measured.get(account.variant, ()) if row.task == task]
            ours, theirs, *_ = *found, None, None
            predicted = account.memory[task].step_bytes
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
            *("variant", "task", "XLA, plain operations", "nin_jax, step, predicted", "measured"),
            *("measured / predicted", "PyTorch, step", "nin_jax, process", "PyTorch, process"),
            "error",
        ),
        rows,
        "Predicted: temporaries and new outputs that XLA plans for the program as it runs. "
        "PyTorch is eager, channels_last. A process also holds its libraries." + _explained(ratios),
    )
