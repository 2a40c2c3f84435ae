"""An account as tables, and tables as text, Markdown or CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nin_jax.accounting.account import Account, Task
from nin_jax.accounting.conventions import CONVENTIONS
from nin_jax.accounting.memory import torch_kept_bytes
from nin_jax.accounting.xla import ProgramCost

Cell = int | float | str | None
UNKNOWN = "not available"
OURS = "nin_jax"  # the contender whose memory XLA plans


@dataclass(frozen=True)
class Bytes:
    """A cell that people read in MiB, and programs in bytes."""

    bytes: int | None


@dataclass(frozen=True)
class Table:
    """A title, headings and rows of raw values, and what is to be said below."""

    title: str
    headings: tuple[str, ...]
    rows: Sequence[Sequence[Cell | Bytes]]
    note: str = ""


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


def title(account: Account) -> str:
    """What was counted, on one line."""
    height, width = account.image_size
    return (
        f"{account.variant}: {height}x{width}x{account.in_channels} -> "
        f"{account.num_classes} classes"
    )


def account_tables(
    account: Account, *, per_layer: bool = False, measured: Sequence[Measured] = ()
) -> list[Table]:
    """Every table about one network, those without figures left out."""
    tables = [_totals(account), _conventions(account)]
    if per_layer:
        tables.append(layer_table(account))
    if account.forward:
        tables.append(_forward(account))
    if account.training:
        tables += [_training(account), _training_programs(account)]
        if per_layer:
            tables.append(training_layer_table(account))
    tables += [_memory(account, task) for task in account.memory]
    if measured:
        tables.append(measured_table(measured, account.batch_size))
    if account.largest_batches:
        tables.append(largest_table([account]))
    return tables


def _totals(account: Account) -> Table:
    rows: list[tuple[Cell, ...]] = [("parameters", account.params, "")]
    for field, what in {
        "macs": "multiply-adds of convolutions and linear layers, taps on padding included",
        "macs_on_pixels": "the same without the taps on padding",
        "bias_additions": "one for each output",
        "relu_comparisons": "one for each output",
        "pool_comparisons": "eight for each output of a max pool",
        "mean_additions": "H W - 1 for each map",
        "mean_divisions": "one for each map",
        "kept_elements": "activations that the backward pass asks for again",
        "mask_elements": "dropout's draws, asked for again too",
    }.items():
        name = field.replace("_", " ").replace("macs", "MACs").replace("relu", "ReLU")
        rows.append((name, account.total(field), what))
    return Table(f"{title(account)}, one image", ("", "count", ""), rows)


def _conventions(account: Account) -> Table:
    return Table(
        "Computation of the forward pass, by who counts, one image",
        ("convention", "count", "unit", "what is in it", "source"),
        [(c.title, account.counts[c.key], c.unit, c.note, c.source) for c in CONVENTIONS],
        _published(account),
    )


def _published(account: Account) -> str:
    if account.counts["thop"] == account.counts["macs"]:
        return ""
    extra = account.counts["thop"] - account.counts["macs"]
    return (
        f"thop's {account.counts['thop']:,} = {account.counts['macs']:,} MACs + {extra:,} for the "
        'global mean. Published as "FLOPs", it is multiply-adds: about half of the operations.'
    )


def layer_table(account: Account, *, named: bool = False) -> Table:
    """A row for each layer; ``named`` puts the network's name before each."""
    headings = (
        *("layer", "kind", "output", "parameters", "MACs", "MACs on pixels", "bias additions"),
        *("ReLU comparisons", "pool comparisons", "mean additions", "kept", "FLOP/byte"),
    )
    rows: list[tuple[Cell, ...]] = [
        (
            cost.name,
            f"{cost.kind} {cost.detail}",
            "x".join(map(str, cost.out_shape)),
            cost.params,
            cost.macs,
            cost.macs_on_pixels,
            cost.bias_additions,
            cost.relu_comparisons,
            cost.pool_comparisons,
            cost.mean_additions,
            cost.kept_elements,
            round(account.intensity(cost), 2),
        )
        for cost in account.layers
    ]
    fields = ("params", "macs", "macs_on_pixels", "bias_additions", "relu_comparisons")
    fields += ("pool_comparisons", "mean_additions", "kept_elements")
    rows.append(("total", "", "", *(account.total(field) for field in fields)))
    rows[-1] += (round(account.total_intensity, 2),)
    if named:
        headings = ("variant", *headings)
        rows = [(account.variant, *row) for row in rows]
    return Table(
        f"Layers of {account.variant}, one image",
        headings,
        rows,
        "kept: elements of the output that the backward pass asks for again. FLOP/byte: operations "
        f"for each byte that a batch of {account.batch_size} has to move, each layer on its own.",
    )


def _forward(account: Account) -> Table:
    names = {"plain": "XLA's own operations", "as_run": "as it runs"}
    rows = [
        (
            names[way],
            cost.flops_xla,
            cost.flops,
            cost.flops_rounding,
            cost.flops_unexplained,
            cost.flops_products,
            _minus(cost.flops, cost.flops_products),
            cost.flops_optimised,
            cost.bytes_accessed,
        )
        for way, cost in account.forward.items()
    ]
    plain = account.forward["plain"].flops
    note = "XLA adds up in float32, which is the rounding. "
    if plain is not None:
        note += (
            f"On paper the first is {account.counts['xla']:,}: "
            f"{plain - account.counts['xla']:,} operations differ. "
        )
    note += "As it runs there are fewer products and more additions (Winograd along the rows)."
    note += _not_counted(account.forward)
    headings = (
        *("forward pass, one image", "FLOPs by XLA", "exact", "rounding", "unexplained"),
        *("in products", "elsewhere", "after XLA's optimisation", "bytes accessed"),
    )
    return Table(f"XLA's cost analysis ({account.platform})", headings, rows, note)


def _not_counted(programs: Mapping[str, ProgramCost]) -> str:
    """What is missing from the exact counts, if anything is."""
    names = sorted({name for cost in programs.values() for name in cost.unknown})
    return f" No rule counts {', '.join(names)}: exact counts are without them." if names else ""


def _minus(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a - b


def _training(account: Account) -> Table:
    training = account.training
    assert training is not None
    return Table(
        f"Training step of {account.batch_size} images, recipe {account.recipe}: FLOPs",
        (
            "part",
            "on paper: products",
            "on paper: other",
            "plain: products",
            "plain: other",
            "plain: unexplained",
            "as run: products",
            "as run: other",
        ),
        [
            (
                part.name,
                part.paper_products,
                part.paper_other if part.paper_other is not None else "no formula",
                part.plain_products,
                part.plain_other,
                part.plain_unexplained if part.paper_other is not None else "",
                part.as_run_products,
                part.as_run_other,
            )
            for part in training.parts
        ],
        "On paper, products: twice the MACs that meet pixels, forward and for each gradient; "
        "nothing for the image's own gradient. Other: biases, ReLUs, pools, means, dropout and the "
        "loss, forward and back; the optimiser; images to floats, and the gradients' division and "
        "norm. Plain: XLA's own operations, of which random keys and the counting of right answers "
        "are left unexplained. As run: "
        f"{training.micro_batches} x {training.micro_batch_size} images. It has fewer products "
        "where Winograd's filtering takes m + k - 1 of them for m outputs instead of m k, and "
        "additions for its transforms; gradients written as products over padded rows count the "
        "padding.",
    )


def _training_programs(account: Account) -> Table:
    assert account.training is not None
    return Table(
        "XLA's cost analysis of the step's programs, FLOPs",
        ("program", "by XLA", "exact", "rounding", "unexplained", "loops"),
        [
            (
                name.replace("as_run", "as run"),
                cost.flops_xla,
                cost.flops,
                cost.flops_rounding,
                cost.flops_unexplained,
                cost.loops,
            )
            for name, cost in account.training.programs.items()
        ],
        "Plain programs take the whole batch, those as run one micro-batch. The loops are those of "
        "dropout's random numbers on a CPU; XLA counts their bodies once."
        + _not_counted(account.training.programs),
    )


def training_layer_table(account: Account) -> Table:
    """A row for each layer with products: those of its gradients."""
    assert account.training is not None
    return Table(
        "Products of each layer's gradients, FLOPs for one image",
        ("layer", "on paper, each", "to its input, as run", "to its weights, as run"),
        [
            (
                layer.name,
                layer.forward_paper,
                "none" if i == 0 else layer.input_gradient_as_run,
                layer.weight_gradient_as_run,
            )
            for i, layer in enumerate(account.training.layers)
        ],
    )


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


def _memory(account: Account, task: Task) -> Table:
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
    "unexplained; benchmarks/README.md has figures."
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


def variant_table(accounts: Sequence[Account]) -> Table:
    """A row for each network, figures on paper."""
    first = accounts[0]
    batch = first.batch_size
    return Table(
        f"{first.image_size[0]}x{first.image_size[1]}x{first.in_channels}, "
        f"{first.num_classes} classes, {first.precision}, recipe {first.recipe}",
        (
            *(
                "variant",
                "parameters",
                "MACs",
                "FLOPs, forward",
                f"FLOPs, training step of {batch}",
            ),
            *(f"MiB, training, {batch} images", f"MiB, prediction, {batch} images"),
        ),
        [
            (
                account.variant,
                account.params,
                account.macs,
                account.counts["flops"],
                account.flops_per_training_step,
                Bytes(account.memory["train"].paper.total_bytes),
                Bytes(account.memory["predict"].paper.total_bytes),
            )
            for account in accounts
        ],
        "MACs and FLOPs, forward, of one image; FLOPs are two for each multiply-add. Memory by the "
        "shapes alone, the whole batch at once: parameters, gradients, optimiser state and every "
        "activation kept; in prediction the largest layer's input and output.",
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


def text_of(cell: Cell | Bytes) -> str:
    """A cell for people: digits in groups, bytes in MiB, what is not known said so."""
    if isinstance(cell, Bytes):
        return UNKNOWN if cell.bytes is None else f"{cell.bytes / 2**20:,.1f}"
    if cell is None:
        return UNKNOWN
    if isinstance(cell, float) and not cell.is_integer():
        return f"{cell:,.2f}" if abs(cell) >= 0.01 else f"{cell:.3g}"
    if isinstance(cell, int | float):
        return f"{int(cell):,}"
    return cell


def raw(cell: Cell | Bytes) -> Cell:
    """A cell for programs; bytes in bytes, what is not known said so."""
    value = cell.bytes if isinstance(cell, Bytes) else cell
    return UNKNOWN if value is None else value


def markdown(table: Table, *, heading: bool = True) -> str:
    """The table in GitHub's Markdown."""
    columns = range(len(table.headings))
    rule = ["---:" if _is_number(table, i) else "---" for i in columns]
    lines = [table.headings, rule, *([text_of(cell) for cell in row] for row in table.rows)]
    parts = [f"### {table.title}"] if heading else []
    parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    parts += [table.note] if table.note else []
    return "\n\n".join(parts) + "\n"


def as_csv(table: Table) -> str:
    """The table with raw values; bytes in bytes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heading.replace("MiB", "bytes") for heading in table.headings)
    writer.writerows([raw(cell) for cell in row] for row in table.rows)
    return text.getvalue()


def flat_csv(data: Mapping[str, Any]) -> str:
    """Nested plain data as lines of key and value, keys joined by dots."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("key", "value"))
    writer.writerows(_flatten(data, ""))
    return text.getvalue()


def _flatten(data: Any, prefix: str) -> list[tuple[str, Cell]]:
    if isinstance(data, Mapping):
        items = [(str(key), value) for key, value in data.items()]
    elif isinstance(data, list | tuple):
        items = [(str(i), value) for i, value in enumerate(data)]
    else:
        return [(prefix, UNKNOWN if data is None else data)]
    return [
        line
        for key, value in items
        for line in _flatten(value, f"{prefix}.{key}" if prefix else key)
    ]


def _is_number(table: Table, column: int) -> bool:
    return any(isinstance(row[column], int | float | Bytes) for row in table.rows)


def print_table(table: Table, console: Any) -> None:
    """The table on a `rich.console.Console`."""
    from rich.markup import escape
    from rich.table import Table as RichTable

    drawn = RichTable(title=escape(table.title), title_justify="left", caption=table.note or None)
    drawn.caption_justify = "left"
    for i, heading in enumerate(table.headings):
        drawn.add_column(heading, justify="right" if _is_number(table, i) else "left")
    for row in table.rows:
        drawn.add_row(*(escape(text_of(cell)) for cell in row))
    console.print(drawn)
    console.print()
