"""An account as tables: totals, conventions, layers, XLA's programs, the training step."""

from collections.abc import Mapping, Sequence

from nin_jax.accounting.account import Account
from nin_jax.accounting.conventions import CONVENTIONS
from nin_jax.accounting.memory_tables import Measured, largest_table, measured_table, memory_table
from nin_jax.accounting.xla import ProgramCost
from nin_jax.tables import Bytes, Cell, Table


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
    tables += [memory_table(account, task) for task in account.memory]
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
        "nothing for the image's own gradient; Muon's iterations. Other: biases, ReLUs, pools, "
        "means, dropout and the loss, forward and back; the rest of the optimiser; images to "
        "floats, and the gradients' division and norm. Plain: XLA's own operations, of which "
        "random keys and the counting of right answers are left unexplained. As run: "
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
        "shapes alone, the whole batch at once: parameters, gradients, optimizer state and every "
        "activation kept; in prediction the largest layer's input and output.",
    )
