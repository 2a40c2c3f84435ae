"""Print a report as tables, Markdown, CSV, JSON or a derivation, and draw its figures."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from nin_jax.accounting.account import Account
from nin_jax.accounting.account_tables import (
    account_tables,
    layer_table,
    training_layer_table,
    variant_table,
)
from nin_jax.accounting.memory_tables import (
    Measured,
    largest_table,
    measured_table,
    variant_memory_table,
)
from nin_jax.accounting.request import ReportConfig
from nin_jax.errors import one_line
from nin_jax.runs.environment import device_name, versions
from nin_jax.tables import Table, as_csv, flat_csv, markdown_section, print_table

Measurements = Mapping[str, Sequence[Measured]]  # of each network, by its name


def _tables(
    config: ReportConfig,
    accounts: Sequence[Account],
    measured: Measurements,
    *,
    for_csv: bool = False,
) -> list[Table]:
    """Return the tables to print; CSV has those of all networks, or of the layers of one."""
    if config.all:
        tables = [variant_table(accounts)]
        if config.train:
            tables.append(variant_memory_table(accounts, measured))
        if config.memory is not None:
            tables.append(largest_table(accounts))
        layers = accounts if config.per_layer else ()
        return tables + [layer_table(account, named=for_csv) for account in layers]
    (account,) = accounts
    rows = measured.get(account.variant, ())
    if not for_csv:
        return account_tables(account, per_layer=config.per_layer, measured=rows)
    tables = [layer_table(account)]
    if config.train:
        tables.append(training_layer_table(account))
        if rows:
            tables.append(measured_table(rows, account.batch_size))
    if config.memory is not None:
        tables.append(largest_table(accounts))
    return tables


def print_report(config: ReportConfig, accounts: Sequence[Account], measured: Measurements) -> None:
    """Print accounts and the memory measured for each network, in the format of the options."""
    match config.format:
        case "table":
            console = Console(emoji=False)
            if not console.is_terminal:
                console.width = 200
            for table in _tables(config, accounts, measured):
                print_table(table, console)
            if accounts[0].platform:
                console.print(_conditions())
        case "markdown":
            sections = [markdown_section(table) for table in _tables(config, accounts, measured)]
            if accounts[0].platform:
                sections.append(f"{_conditions()}\n")
            print("\n".join(sections), end="")
        case "csv" if config.all or config.per_layer:
            tables = _tables(config, accounts, measured, for_csv=True)
            print("\n".join(map(as_csv, tables)), end="")
        case "csv":
            print(flat_csv(_plain(accounts[0], measured)), end="")
        case "json":
            plain = [_plain(account, measured) for account in accounts]
            print(json.dumps(plain if config.all else plain[0], indent=1))


def _conditions() -> str:
    """Return what XLA's and the measured figures depend on: versions and device."""
    listed = ", ".join(f"{name} {version}" for name, version in versions().items())
    return f"{listed}; on {device_name()}"


def _plain(account: Account, measured: Measurements) -> dict[str, Any]:
    rows = [asdict(row) for row in measured.get(account.variant, ())]
    plain = account.to_dict() | {"measured": rows}
    if account.platform:
        plain |= {"versions": versions(), "device": device_name()}
    return plain


def draw(folder: Path, accounts: Sequence[Account], *, compare: bool) -> list[Path]:
    """Draw the layers of each network and, with ``compare``, all networks; return the files.

    Raises:
        UserError: a file cannot be written.
    """
    from nin_jax.accounting.figures import plot_layers, plot_variants  # matplotlib loads slowly

    drawings: dict[str, Callable[[Path], None]] = {
        f"layers-{account.variant}.png" if compare else "layers.png": partial(plot_layers, account)
        for account in accounts
    }
    if compare:
        drawings["variants.png"] = partial(plot_variants, accounts)
    for name, draw_into in drawings.items():
        with one_line(f"cannot write {folder / name}"):
            draw_into(folder / name)
    return [folder / name for name in drawings]
