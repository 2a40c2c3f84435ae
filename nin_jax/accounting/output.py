"""Accounts as tables, Markdown, CSV, JSON, a derivation, and pictures."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from nin_jax import tables
from nin_jax.accounting import account_tables, memory_tables
from nin_jax.accounting.account import Account
from nin_jax.accounting.derivation import derivation
from nin_jax.accounting.memory_tables import Measured
from nin_jax.accounting.request import ReportConfig
from nin_jax.models.variants import get_variant
from nin_jax.runs.manifest import device_name, versions
from nin_jax.tables import Table


def _tables(
    config: ReportConfig, accounts: Sequence[Account], measured: dict[str, list[Measured]]
) -> list[Table]:
    if not config.all:
        (account,) = accounts
        rows = measured.get(account.variant, ())
        return account_tables.account_tables(account, per_layer=config.per_layer, measured=rows)
    found = [account_tables.variant_table(accounts)]
    if config.train:
        found.append(memory_tables.variant_memory_table(accounts, measured))
    if config.memory is not None:
        found.append(memory_tables.largest_table(accounts))
    if config.per_layer:
        found += [account_tables.layer_table(account) for account in accounts]
    return found


def _csv_tables(
    config: ReportConfig, accounts: Sequence[Account], measured: dict[str, list[Measured]]
) -> list[Table]:
    """What CSV holds of many networks, or of the layers of one."""
    if config.all:
        layers = config.per_layer
        found = _tables(replace(config, per_layer=False), accounts, measured)
        return found + [account_tables.layer_table(a, named=True) for a in accounts if layers]
    (account,) = accounts
    found = [account_tables.layer_table(account)]
    if config.train:
        rows = measured.get(account.variant, ())
        found.append(account_tables.training_layer_table(account))
        found += [memory_tables.measured_table(rows, account.batch_size)] if rows else []
    if config.memory is not None:
        found.append(memory_tables.largest_table(accounts))
    return found


def _print_tables(config: ReportConfig, accounts: Any, measured: Any) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = 200
    for table in _tables(config, accounts, measured):
        tables.print_table(table, console)
    if accounts[0].platform:
        console.print(_conditions())


def _print_markdown(config: ReportConfig, accounts: Any, measured: Any) -> None:
    print(
        "\n".join(tables.markdown_section(table) for table in _tables(config, accounts, measured)),
        end="",
    )
    if accounts[0].platform:
        print(f"\n{_conditions()}")


def _conditions() -> str:
    """What XLA's and the measured figures depend on."""
    return ", ".join(f"{name} {version}" for name, version in versions().items()) + (
        f"; on {device_name()}"
    )


def _print_csv(config: ReportConfig, accounts: Any, measured: Any) -> None:
    if config.all or config.per_layer:
        found = _csv_tables(config, accounts, measured)
        print("\n".join(tables.as_csv(table) for table in found), end="")
    else:
        print(tables.flat_csv(_plain(accounts[0], measured)), end="")


def _print_json(config: ReportConfig, accounts: Any, measured: Any) -> None:
    plain = [_plain(account, measured) for account in accounts]
    print(json.dumps(plain if config.all else plain[0], indent=1))


def _plain(account: Account, measured: dict[str, list[Measured]]) -> dict[str, Any]:
    plain = account.to_dict() | {
        "measured": [asdict(row) for row in measured.get(account.variant, ())]
    }
    if account.platform:
        plain |= {"versions": versions(), "device": device_name()}
    return plain


# What prints accounts, and what was measured of each network, by its name.
FORMATS = {
    "table": _print_tables,
    "markdown": _print_markdown,
    "csv": _print_csv,
    "json": _print_json,
}


def explanation(config: ReportConfig, accounts: Sequence[Account]) -> str:
    """The worked derivations, as Markdown."""
    names = [account.variant for account in accounts] if config.all else [config.variant]
    return "\n".join(
        derivation(account, get_variant(name))
        for account, name in zip(accounts, names, strict=True)
    )


def plot(config: ReportConfig, accounts: Sequence[Account]) -> list[Path]:
    """Draws into the folder that was asked for; the files written."""
    from nin_jax.accounting.figures import plot_layers, plot_variants  # matplotlib loads slowly

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
