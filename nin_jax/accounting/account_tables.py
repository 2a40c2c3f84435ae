"""Tables of an account: totals, conventions, layers, XLA's programs, the training step."""

from collections.abc import Mapping, Sequence

from nin_jax.accounting.account import Account
from nin_jax.accounting.conventions import CONVENTIONS
from nin_jax.accounting.memory_tables import Measured, largest_table, measured_table, memory_table
from nin_jax.accounting.xla import ProgramCost
from nin_jax.tables import Bytes, Cell, Table

TOTALS = {
    "macs": ("MACs", "multiply-adds of convolutions and linear layers, with taps on padding"),
    "macs_on_pixels": ("MACs on pixels", "the same without taps on padding"),
    "bias_additions": ("bias additions", "one for each output"),
    "relu_comparisons": ("ReLU comparisons", "one for each output"),
    "pool_comparisons": ("pool comparisons", "k k - 1 for each output of a k x k max pool"),
    "pool_additions": ("pool additions", "k k - 1 for each output of a k x k average pool"),
    "pool_divisions": ("pool divisions", "one for each output of an average pool"),
    "mean_additions": ("mean additions", "H W - 1 for each map"),
    "mean_divisions": ("mean divisions", "one for each map"),
    "kept_elements": ("kept elements", "activations that the backward pass needs"),
    "mask_elements": ("mask elements", "of dropout masks, which the backward pass needs too"),
}
LAYER_COUNTS = {
    "parameters": "params",
    "MACs": "macs",
    "MACs on pixels": "macs_on_pixels",
    "bias additions": "bias_additions",
    "ReLU comparisons": "relu_comparisons",
    "pool comparisons": "pool_comparisons",
    "pool additions": "pool_additions",
    "mean additions": "mean_additions",
    "kept": "kept_elements",
}


def title(account: Account) -> str:
    """Return one line that names what was counted."""
    height, width = account.image_size
    return (
        f"{account.variant}: {height}x{width}x{account.in_channels} -> "
        f"{account.num_classes} classes"
    )


def account_tables(
    account: Account, *, per_layer: bool = False, measured: Sequence[Measured] = ()
) -> list[Table]:
    """Return all tables of one network that have figures."""
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
    rows += [(name, account.total(field), what) for field, (name, what) in TOTALS.items()]
    return Table(f"{title(account)}, one image", ("", "count", ""), rows)


def _conventions(account: Account) -> Table:
    counts, note = account.counts, ""
    if extra := counts["thop"] - counts["macs"]:
        note = (
            f"thop's {counts['thop']:,} = {counts['macs']:,} MACs + {extra:,} for averages. "
            'It is often published as "FLOPs", but counts multiply-adds: about half of the '
            "operations."
        )
    return Table(
        "Operations of the forward pass by convention, one image",
        ("convention", "count", "unit", "what it includes", "source"),
        [(c.title, counts[c.key], c.unit, c.note, c.source) for c in CONVENTIONS],
        note,
    )


def layer_table(account: Account, *, named: bool = False) -> Table:
    """Return a row for each layer; with ``named``, the network's name comes first in each."""
    rows: list[tuple[Cell, ...]] = [
        (
            cost.name,
            f"{cost.kind} {cost.detail}",
            "x".join(map(str, cost.out_shape)),
            *(getattr(cost, field) for field in LAYER_COUNTS.values()),
            round(account.intensity(cost), 2),
        )
        for cost in account.layers
    ]
    totals = (account.total(field) for field in LAYER_COUNTS.values())
    rows.append(("total", "", "", *totals, round(account.intensity(), 2)))
    headings = ("layer", "kind", "output", *LAYER_COUNTS, "FLOP/byte")
    if named:
        headings = ("variant", *headings)
        rows = [(account.variant, *row) for row in rows]
    return Table(
        f"Layers of {account.variant}, one image",
        headings,
        rows,
        "kept: elements of the output that the backward pass needs. FLOP/byte: operations per byte "
        f"moved for a batch of {account.batch_size}, each layer on its own.",
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
            cost.flops_other,
            cost.flops_optimized,
            cost.bytes_accessed,
        )
        for way, cost in account.forward.items()
    ]
    plain, as_run = account.forward["plain"], account.forward["as_run"]
    note, paper = "Rounding: XLA adds up in float32.", account.counts["xla"]
    if plain.flops is not None:
        note += f" On paper the first row is {paper:,}; the difference is {plain.flops - paper:,}."
    if _less(as_run.flops_products, plain.flops_products):
        note += " As it runs there are fewer products and more additions (Winograd filtering)."
    return Table(
        f"XLA's cost analysis ({account.platform})",
        (
            *("forward pass, one image", "FLOPs by XLA", "exact", "rounding", "unexplained"),
            *("in products", "elsewhere", "after XLA's optimization", "bytes accessed"),
        ),
        rows,
        note + _not_counted(account.forward),
    )


def _less(a: int | None, b: int | None) -> bool:
    """Return whether a number is less than another; False if one is not known."""
    return a is not None and b is not None and a < b


def _not_counted(programs: Mapping[str, ProgramCost]) -> str:
    """Name the operations that the exact counts leave out, if there are any."""
    names = sorted({name for cost in programs.values() for name in cost.unknown})
    return f" No rule counts {', '.join(names)}: exact counts leave it out." if names else ""


def _training(account: Account) -> Table:
    training = account.training
    assert training is not None
    return Table(
        f"Training step of {account.batch_size} images, recipe {account.recipe}: FLOPs",
        (
            *("part", "on paper: products", "on paper: other", "plain: products"),
            *("plain: other", "plain: unexplained", "as run: products", "as run: other"),
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
        "On paper, products: twice the MACs on pixels, for the forward pass and for each gradient "
        "except that to the image, and Muon's iterations. On paper, other: biases, ReLUs, pools, "
        "means, dropout and the loss, forward and backward; the rest of the optimizer; conversion "
        "of images to floats; division and norm of the gradients. Plain: XLA's own operations; "
        "unexplained are random keys and the count of correct predictions. As run: "
        f"{training.micro_batches} x {training.micro_batch_size} images. Winograd filtering takes "
        "m + k - 1 products for m outputs instead of m k, along both axes, for gradients to "
        "weights along the rows only. Its transforms take additions. Products on padding, and in "
        "tiles that reach over the edge, count.",
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
    """Return a row for each layer with a product: the products of its gradients."""
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
    """Return a row for each network, with figures by formula."""
    first, batch = accounts[0], accounts[0].batch_size
    return Table(
        f"{first.num_classes} classes, {first.precision}, recipe {first.recipe}",
        (
            *("variant", "images", "parameters", "MACs", "FLOPs, forward"),
            f"FLOPs, training step of {batch}",
            *(f"MiB, training, {batch} images", f"MiB, prediction, {batch} images"),
        ),
        [
            (
                account.variant,
                "x".join(map(str, (*account.image_size, account.in_channels))),
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
