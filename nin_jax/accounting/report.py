"""The report of scripts/report.py: check the options, count, measure, print and draw."""

from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console

from nin_jax.accounting.account import Account, account
from nin_jax.accounting.derivation import derivation
from nin_jax.accounting.memory import check_memory
from nin_jax.accounting.memory_tables import Measured
from nin_jax.accounting.output import draw, print_report
from nin_jax.accounting.request import ReportConfig, parse_memory
from nin_jax.errors import UserError
from nin_jax.models.variants import get_variant, list_variants
from nin_jax.runs import workdir

Measure = Callable[[Account, str, str, Callable[[str], None]], list[Measured]]


def make_report(config: ReportConfig, measure: Measure) -> None:
    """Print the report on standard output and draw its figures.

    Args:
        config: the options.
        measure: takes an account, the variant, the recipe and a function that shows a line of
            progress; returns the memory measured in training and prediction.

    Raises:
        UserError: an option is wrong, and nothing is printed; or a figure cannot be written.
    """
    memory_bytes = _check(config)
    variants = list_variants() if config.all else [config.variant]
    on_paper = [account(name, **_options(config), xla=False) for name in variants]
    if memory_bytes is not None:
        for each in on_paper:
            check_memory(memory_bytes, each.memory["predict"].paper.params_bytes)
    if config.plots is not None:
        workdir.make_folder("--plots", config.plots)
    console = Console(stderr=True, highlight=False, emoji=False)
    if config.explain:
        pairs = zip(on_paper, variants, strict=True)
        print("\n".join(derivation(each, get_variant(name)) for each, name in pairs), end="")
    elif config.all and not config.train and memory_bytes is None:
        print_report(config, on_paper, {})
    else:
        found = _accounts_with_xla(config, variants, memory_bytes, measure, console)
        print_report(config, *found)
    if config.plots is not None:
        for path in draw(config.plots, on_paper, compare=config.all):
            console.print(f"wrote {path}", markup=False)


def _check(config: ReportConfig) -> int | None:
    """Check that the options fit together; return the bytes of --memory."""
    if config.plots is not None:
        workdir.check_folder("--plots", config.plots)
    if config.explain and config.format not in ("table", "markdown"):
        raise UserError("--explain writes Markdown; leave --format out")
    for option in ("train", "memory") if config.explain else ():
        if getattr(config, option):
            raise UserError(f"--explain is on paper only; leave --{option} out")
    return None if config.memory is None else parse_memory(config.memory)


def _options(config: ReportConfig) -> dict[str, Any]:
    names = ("in_channels", "num_classes", "image_size", "batch_size", "precision", "recipe")
    return {name: getattr(config, name) for name in names}


def _accounts_with_xla(
    config: ReportConfig,
    variants: Sequence[str],
    memory_bytes: int | None,
    measure: Measure,
    console: Console,
) -> tuple[list[Account], dict[str, list[Measured]]]:
    """Return the accounts with XLA's figures, and the memory measured for each network."""
    accounts: list[Account] = []
    measured: dict[str, list[Measured]] = {}
    with console.status("asking XLA") as status:
        for name in variants:
            status.update(f"{name}: asking XLA")
            found = account(
                name,
                **_options(config),
                train=config.train,
                xla=not config.all,
                memory_bytes=memory_bytes,
            )
            accounts.append(found)
            if config.train and config.measure:
                measured[found.variant] = measure(found, name, config.recipe, status.update)
    return accounts, measured
