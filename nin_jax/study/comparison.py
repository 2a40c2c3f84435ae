"""Clauses and tables that compare groups of runs."""

from collections.abc import Sequence

from nin_jax.study.statistics import Estimate, Group, difference
from nin_jax.tables import Cell, Quantity, Rounded, Table, rounded


def table_of(
    headings: Sequence[str], rows: Sequence[Sequence[Cell | Quantity]], title: str = ""
) -> Table:
    """Return a table of the study, with a dash where a value is not known."""
    return Table(title, headings, rows, unknown="-")


def compared(group: Group, base: Group) -> list[Quantity | str | None]:
    """Return cells: a network's accuracy, its difference from another network's, the finding."""
    found = None if group is base else difference(group.accuracies, base.accuracies)
    return [group.accuracy, found, "" if found is None else found.finding]


def difference_clause(a: Group, b: Group, first: str, second: str) -> str:
    """Return a clause that compares the accuracies of two networks."""
    found = difference(a.accuracies, b.accuracies)
    if found is None:
        return f"{first} and {second} have no seed in common"
    if found.half is None:
        return f"{first} differs from {second} by {found} ({found.finding})"
    if found.finding in ("more", "less"):
        by = Estimate(abs(found.mean), found.half, found.runs)
        return f"{first} is {found.finding} accurate than {second} (by {by})"
    return f"no difference was found between {first} and {second} (at most {found.bound:.4f})"


def ratio(a: Group, b: Group, quantity: str) -> Rounded | None:
    """Return a's quantity over b's; None if either is not known."""
    x, y = a.network.get(quantity), b.network.get(quantity)
    return rounded(x / y, 2) if x and y else None


def cost_clause(a: Group, b: Group, what: str) -> str:
    """Return a clause on the costs of a, named by ``what``, relative to b; empty if not known."""
    names = {"params": "the parameters", "macs": "the MACs", "step_ms": "the step time"}
    found = {text: ratio(a, b, name) for name, text in names.items()}
    known = [f"{times} times {text}" for text, times in found.items() if times is not None]
    listed = " and ".join(filter(None, [", ".join(known[:-1]), *known[-1:]]))
    return f"{what} has {listed}" if known else ""


def comparison_table(base: Group, others: Sequence[Group]) -> Table:
    """Return a table of accuracies, differences from the first network, and relative costs."""
    headings = ["network", "accuracy", f"minus {base.variant}", "finding"]
    headings += ["parameters, relative", "MACs, relative", "step time, relative"]
    rows: list[list[Cell | Quantity]] = []
    for group in (base, *others):
        ratios = (ratio(group, base, name) for name in ("params", "macs", "step_ms"))
        rows.append([group.variant, *compared(group, base), *ratios])
    return table_of(headings, rows)


def sentence(*clauses: str) -> str:
    """Return one sentence of the clauses that are not empty."""
    text = "; ".join(filter(None, clauses))
    return f"{text[0].upper()}{text[1:]}."
