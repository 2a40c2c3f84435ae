"""What a network costs, every figure with its name and where it is from."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nin_jax import cli

if TYPE_CHECKING:
    from nin_jax.accounting.account import Account
    from nin_jax.accounting.memory_tables import Measured
    from nin_jax.accounting.rendering import Table

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


@dataclass(frozen=True)
class ReportConfig:
    """Count what a network costs: parameters, computation and memory, by everyone's convention.

    Counts are of one image, memory is of a batch. Figures are on paper, from XLA's analysis, or
    measured, and say which.
    """

    variant: str = "nin"
    """Network: a built-in name, or a .json or .toml file."""

    all: bool = False
    """One table that compares all built-in networks, on paper; with --train, a second one of what
    XLA plans and what was measured."""

    in_channels: int = 1
    """Channels of the images."""

    num_classes: int = 10
    """Number of logits."""

    image_size: int | tuple[int, int] = 224
    """Side of the images, or height and width, in pixels."""

    batch_size: int = 128
    """Images of a batch, for memory and the training step."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the computation."""

    recipe: str = "d2l"
    """d2l or modern: the optimiser, the loss and the last ReLU."""

    per_layer: bool = False
    """A row for each layer too."""

    train: bool = False
    """The training step too: in parts, on paper and from XLA, and memory measured."""

    measure: bool = True
    """With --train: run a few steps of ours and PyTorch's, each in a process of its own, and see
    how much memory they take."""

    memory: str | None = None
    """Find the largest batches that fit into that much memory, such as 8GiB or 500MB."""

    explain: bool = False
    """Write a worked derivation in Markdown instead, layer by layer, with the numbers filled in."""

    format: str = "table"
    """table, markdown, csv or json. csv holds with --all the networks, with --per-layer the layers,
    else keys and values; what --train and --memory add to the first two follows after an empty
    line, as tables of their own."""

    plots: Path | None = None
    """Folder for layers.png: parameters and MACs as bars; with --all also variants.png."""


def run(config: ReportConfig) -> None:
    from rich.console import Console

    from nin_jax import UserError, list_variants, workdir
    from nin_jax.accounting import account
    from nin_jax.config import RECIPES
    from nin_jax.errors import unknown_name

    if config.format not in FORMATS:
        raise unknown_name("format", config.format, FORMATS)
    if config.recipe not in RECIPES:
        raise unknown_name("recipe", config.recipe, RECIPES)
    if config.plots is not None:
        workdir.check_folder("--plots", config.plots)
    if config.explain and config.format not in ("table", "markdown"):
        raise UserError("--explain writes Markdown; leave --format out")
    for option in ("train", "memory") if config.explain else ():
        if getattr(config, option):
            raise UserError(f"--explain is on paper alone; leave --{option} out")
    memory_bytes = None if config.memory is None else parse_memory(config.memory)
    variants = list_variants() if config.all else [config.variant]
    on_paper = [account(name, **_options(config), xla=False) for name in variants]
    for each in on_paper if memory_bytes is not None else ():
        _check_memory(each, memory_bytes or 0)
    if config.plots is not None:
        workdir.make_folder("--plots", config.plots)
    console = Console(stderr=True, highlight=False)
    measured: dict[str, list[Measured]] = {}
    accounts = on_paper
    if not config.explain and (not config.all or config.train or memory_bytes is not None):
        with console.status("asking XLA") as status:
            accounts = []
            for name in variants:
                status.update(f"{name}: asking XLA")
                options: dict[str, Any] = _options(config)
                options |= {"train": config.train, "xla": not config.all}
                accounts.append(account(name, **options, memory_bytes=memory_bytes))
                if config.train and config.measure:
                    measured[accounts[-1].variant] = _measure(config, name, accounts[-1], status)
    if config.explain:
        print(_explanation(config, on_paper), end="")
    else:
        FORMATS[config.format](config, accounts, measured)
    if config.plots is not None:
        for path in _plot(config, on_paper):
            console.print(f"wrote {path}")


def parse_memory(text: str) -> int:
    """Bytes of a text such as ``8GiB`` or ``500 MB``."""
    from nin_jax import UserError

    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*((?:[kmgt]i?)?b)?\s*", text, re.IGNORECASE)
    if found is None:
        raise UserError(f"--memory must be a size such as 8GiB or 500MB, got {text!r}")
    size = float(found[1]) * UNITS[(found[2] or "").upper()]
    if size >= 2**63:
        raise UserError(f"--memory {text[:20]}... is more than there is in the world")
    return int(size)


def _check_memory(account: "Account", memory_bytes: int) -> None:
    from nin_jax.accounting.memory import check_memory

    check_memory(memory_bytes, account.memory["predict"].paper.params_bytes)


def _options(config: ReportConfig) -> dict[str, Any]:
    names = ("in_channels", "num_classes", "image_size", "batch_size", "precision", "recipe")
    return {name: getattr(config, name) for name in names}


def _measure(config: ReportConfig, name: str, account: "Account", status: Any) -> list["Measured"]:
    """Ours and PyTorch's best for memory, in training and in prediction."""
    from nin_bench.probe import measure
    from nin_bench.work import OURS, TORCH, TORCH_WITH_GRADIENTS, Task, Work
    from nin_jax.accounting.memory_tables import Measured
    from nin_jax.config import RECIPES
    from nin_jax.variants import get_variant

    momentum = RECIPES[config.recipe](get_variant(name)).momentum
    found = []
    jobs: list[tuple[Task, str, int | None]] = [
        ("train", OURS, account.predicted_step_bytes("train")),
        ("train", TORCH, account.predicted_torch_step_bytes(with_gradients=True)),
        ("predict", OURS, account.predicted_step_bytes("predict")),
        ("predict", TORCH, account.predicted_torch_step_bytes(with_gradients=False)),
        ("predict", TORCH_WITH_GRADIENTS, account.predicted_torch_step_bytes(with_gradients=True)),
    ]
    for task, contender, predicted in jobs:
        status.update(f"{account.variant}: measuring {contender}, {task}")
        work = Work(
            task,
            name,
            account.batch_size,
            account.image_size,
            account.in_channels,
            account.precision,
            momentum,
            account.num_classes,
        )
        row = measure(work, contender)
        found.append(
            Measured(
                contender,
                task,
                row.get("peak_resident_bytes"),
                row.get("before_steps_bytes"),
                row.get("steps_bytes"),
                row.get("peak_device_bytes"),
                predicted,
                row.get("error"),
            )
        )
    return found


def _tables(
    config: ReportConfig, accounts: Sequence["Account"], measured: dict[str, list["Measured"]]
) -> list["Table"]:
    from nin_jax.accounting import memory_tables, tables

    if not config.all:
        (account,) = accounts
        rows = measured.get(account.variant, ())
        return tables.account_tables(account, per_layer=config.per_layer, measured=rows)
    found = [tables.variant_table(accounts)]
    if config.train:
        found.append(memory_tables.variant_memory_table(accounts, measured))
    if config.memory is not None:
        found.append(memory_tables.largest_table(accounts))
    if config.per_layer:
        found += [tables.layer_table(account) for account in accounts]
    return found


def _csv_tables(
    config: ReportConfig, accounts: Sequence["Account"], measured: dict[str, list["Measured"]]
) -> list["Table"]:
    """What CSV holds of many networks, or of the layers of one."""
    from nin_jax.accounting import memory_tables, tables

    if config.all:
        layers = config.per_layer
        found = _tables(replace(config, per_layer=False), accounts, measured)
        return found + [tables.layer_table(a, named=True) for a in accounts if layers]
    (account,) = accounts
    found = [tables.layer_table(account)]
    if config.train:
        rows = measured.get(account.variant, ())
        found.append(tables.training_layer_table(account))
        found += [memory_tables.measured_table(rows, account.batch_size)] if rows else []
    if config.memory is not None:
        found.append(memory_tables.largest_table(accounts))
    return found


def _print_tables(config: ReportConfig, accounts: Any, measured: Any) -> None:
    from rich.console import Console

    from nin_jax.accounting.rendering import print_table

    console = Console()
    if not console.is_terminal:
        console.width = 200
    for table in _tables(config, accounts, measured):
        print_table(table, console)
    if accounts[0].platform:
        console.print(_conditions())


def _print_markdown(config: ReportConfig, accounts: Any, measured: Any) -> None:
    from nin_jax.accounting.rendering import markdown

    print("\n".join(markdown(table) for table in _tables(config, accounts, measured)), end="")
    if accounts[0].platform:
        print(f"\n{_conditions()}")


def _conditions() -> str:
    """What XLA's and the measured figures depend on."""
    from nin_jax.record import device_name, versions

    return ", ".join(f"{name} {version}" for name, version in versions().items()) + (
        f"; on {device_name()}"
    )


def _print_csv(config: ReportConfig, accounts: Any, measured: Any) -> None:
    from nin_jax.accounting import rendering

    if config.all or config.per_layer:
        found = _csv_tables(config, accounts, measured)
        print("\n".join(rendering.as_csv(table) for table in found), end="")
    else:
        print(rendering.flat_csv(_plain(accounts[0], measured)), end="")


def _print_json(config: ReportConfig, accounts: Any, measured: Any) -> None:
    plain = [_plain(account, measured) for account in accounts]
    print(json.dumps(plain if config.all else plain[0], indent=1))


def _plain(account: "Account", measured: dict[str, list["Measured"]]) -> dict[str, Any]:
    from dataclasses import asdict

    from nin_jax.record import device_name, versions

    plain = account.to_dict() | {
        "measured": [asdict(row) for row in measured.get(account.variant, ())]
    }
    if account.platform:
        plain |= {"versions": versions(), "device": device_name()}
    return plain


FORMATS = {
    "table": _print_tables,
    "markdown": _print_markdown,
    "csv": _print_csv,
    "json": _print_json,
}


def _explanation(config: ReportConfig, accounts: Sequence["Account"]) -> str:
    from nin_jax.accounting.derivation import derivation
    from nin_jax.variants import get_variant

    names = [account.variant for account in accounts] if config.all else [config.variant]
    return "\n".join(
        derivation(account, get_variant(name))
        for account, name in zip(accounts, names, strict=True)
    )


def _plot(config: ReportConfig, accounts: Sequence["Account"]) -> list[Path]:
    from nin_jax.plotting import plot_layers, plot_variants

    assert config.plots is not None
    written = []
    for account in accounts:
        name = f"layers-{account.variant}.png" if config.all else "layers.png"
        written.append(config.plots / name)
        plot_layers(account, written[-1])
    if config.all:
        written.append(config.plots / "variants.png")
        plot_variants(accounts, written[-1])
    return written


if __name__ == "__main__":
    cli.main(ReportConfig, run)
