"""A report: everything that was asked for checked, then counted, measured, printed and drawn."""

from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console

from nin_jax.accounting import account
from nin_jax.accounting.account import Account
from nin_jax.accounting.memory import check_memory
from nin_jax.accounting.memory_tables import Measured
from nin_jax.accounting.output import FORMATS, explanation, plot
from nin_jax.accounting.request import ReportConfig, parse_memory
from nin_jax.errors import UserError, unknown_name
from nin_jax.models.variants import list_variants
from nin_jax.runs import workdir
from nin_jax.training.config import RECIPES

Measure = Callable[[Account, str, str, Callable[[str], None]], list[Measured]]


def make_report(config: ReportConfig, measure: Measure) -> None:
    """Print what the command line asks for, on standard output, and draw it.

    Args:
        config: the command line.
        measure: takes an account, the variant, the recipe and a function that is told the
            progress; returns the memory measured in training and prediction.

    Raises:
        UserError: something cannot be counted, printed or drawn; nothing is written then.
    """
    memory_bytes = _check(config)
    variants = list_variants() if config.all else [config.variant]
    on_paper = [account(name, **_options(config), xla=False) for name in variants]
    for each in on_paper if memory_bytes is not None else ():
        check_memory(memory_bytes or 0, each.memory["predict"].paper.params_bytes)
    if config.plots is not None:
        workdir.make_folder("--plots", config.plots)
    console = Console(stderr=True, highlight=False)
    if config.explain:
        print(explanation(config, on_paper), end="")
    elif config.all and not config.train and memory_bytes is None:
        FORMATS[config.format](config, on_paper, {})
    else:
        FORMATS[config.format](config, *_ask(config, variants, memory_bytes, measure, console))
    if config.plots is not None:
        for path in plot(config, on_paper):
            console.print(f"wrote {path}", markup=False)


def _check(config: ReportConfig) -> int | None:
    """The memory asked about, in bytes, once it is known that the options go together."""
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
    return None if config.memory is None else parse_memory(config.memory)


def _options(config: ReportConfig) -> dict[str, Any]:
    names = ("in_channels", "num_classes", "image_size", "batch_size", "precision", "recipe")
    return {name: getattr(config, name) for name in names}


def _ask(
    config: ReportConfig,
    variants: Sequence[str],
    memory_bytes: int | None,
    measure: Measure,
    console: Console,
) -> tuple[list[Account], dict[str, list[Measured]]]:
    """The networks with XLA's figures, and what was measured of each."""
    accounts: list[Account] = []
    measured: dict[str, list[Measured]] = {}
    with console.status("asking XLA") as status:
        for name in variants:
            status.update(f"{name}: asking XLA")
            accounts.append(
                account(
                    name,
                    **_options(config),
                    train=config.train,
                    xla=not config.all,
                    memory_bytes=memory_bytes,
                )
            )
            if config.train and config.measure:
                measured[accounts[-1].variant] = measure(
                    accounts[-1], name, config.recipe, status.update
                )
    return accounts, measured
