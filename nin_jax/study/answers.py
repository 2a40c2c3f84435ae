"""The six questions of the exercise, answered with the study's own numbers.

Each answer starts with its finding in one sentence. All numbers come from the results. If a run
that an answer needs is missing, the answer says so.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from nin_jax.study.comparison import (
    compared,
    comparison_table,
    cost_clause,
    difference_clause,
    ratio,
    sentence,
    table_of,
)
from nin_jax.study.statistics import Group
from nin_jax.tables import Cell, Quantity, Table, rounded

MISSING = "The study has no runs that answer this question."
Chosen = Mapping[str, Group]


@dataclass(frozen=True)
class Answer:
    """The answer to a question.

    Attributes:
        finding: in one sentence.
        text: what explains it.
        tables: with the numbers.
    """

    finding: str
    text: str = ""
    tables: Sequence[Table] = ()


def answered_by(groups: Sequence[Group]) -> str:
    """Return the recipe that the answers use: modern, if it was run."""
    recipes = [group.recipe for group in groups if not group.change]
    return "modern" if "modern" in recipes or not recipes else recipes[0]


def answers(groups: Sequence[Group]) -> dict[str, Answer]:
    """Answer all six questions with the runs of one recipe, without changes.

    Returns:
        Answers by question.
    """
    recipe = answered_by(groups)
    chosen = {g.variant: g for g in groups if g.recipe == recipe and not g.change}
    found = {}
    for question, (needed, answer) in QUESTIONS.items():
        complete = all(name in chosen for name in needed)
        found[question] = answer(chosen, groups) if complete else Answer(MISSING)
    return found


def _one_by_one(chosen: Chosen, groups: Sequence[Group]) -> Answer:
    nin, one, three = chosen["nin"], chosen["nin_one_1x1"], chosen["nin_three_1x1"]
    return Answer(
        sentence(
            difference_clause(one, nin, "one 1x1 convolution per block", "two"),
            difference_clause(three, nin, "three", "two"),
        ),
        "The idea of the paper: a 1x1 convolution mixes the channels of each pixel. The first "
        "convolution of a block and two 1x1 convolutions, each followed by a ReLU, form a "
        "perceptron with two hidden layers; with one 1x1 convolution it has one. With recipe "
        "modern the 1x1 convolutions start as the identity: before training, a block of each of "
        "these networks is one convolution and a ReLU.",
        [comparison_table(nin, [one, three])],
    )


def _three_by_three(chosen: Chosen, groups: Sequence[Group]) -> Answer:
    nin, wide = chosen["nin"], chosen["nin_3x3"]
    return Answer(
        sentence(
            difference_clause(
                wide, nin, "a block with 3x3 convolutions", "one with 1x1 convolutions"
            ),
            cost_clause(wide, nin, "the network with 3x3"),
        ),
        "Each of the three layers of a block then combines neighboring pixels. A 1x1 convolution "
        "only mixes channels. With recipe modern both start as the identity.",
        [comparison_table(nin, [wide])],
    )


def _fully_connected(chosen: Chosen, groups: Sequence[Group]) -> Answer:
    nin, linear = chosen["nin"], chosen["nin_fc"]
    sides = nin.network.get("head_map")
    maps = f"{sides[0]}x{sides[1]}" if sides else "of unknown size"
    text = (
        f"The last maps are {maps} here and 5x5 at 224x224. Each weight of the linear layer "
        "belongs to one position in the maps. With such a layer, nin_jax refuses images of any "
        "other size, even if their maps have the same size. The mean takes any size."
    )
    if sides == [1, 1]:
        text += (
            " The mean of a single pixel is that pixel: at this size the networks differ only by a "
            "linear layer. If no ReLU comes before it, as with recipe modern, both can compute the "
            "same functions. Comparing the pooling needs larger images."
        )
    return Answer(
        sentence(
            difference_clause(linear, nin, "a linear layer", "the global mean"), *_resized(nin)
        ),
        text,
        [comparison_table(nin, [linear]), _sizes([nin, linear])],
    )


def _resized(group: Group) -> list[str]:
    """Return a clause on the accuracy with the largest test images, if there are larger ones."""
    found, side = group.by_size, group.rows[0]["image_size"][0]
    largest = max(found)
    if largest == side or side not in found:
        return []
    return [
        f"with test images of {largest}x{largest} in place of {side}x{side}, the accuracy with the "
        f"mean changes from {found[side].mean:.4f} to {found[largest].mean:.4f}, and the linear "
        "layer cannot take them"
    ]


def _sizes(groups: Sequence[Group]) -> Table:
    sides = sorted({side for group in groups for side in group.by_size})
    trained, images = (groups[0].rows[0][name] for name in ("image_size", "test_images_by_size"))
    headings = [f"{side}x{side}{' (training)' if side == trained[0] else ''}" for side in sides]
    rows = [[g.variant, *(g.by_size.get(side) for side in sides)] for g in groups]
    return table_of((f"accuracy on the first {images:,} test images", *headings), rows)


def _cost(chosen: Chosen, groups: Sequence[Group]) -> Answer:
    nin = chosen["nin"]
    height, width = nin.rows[0]["image_size"]
    batch = nin.network.get("batch_size", "unknown size")
    if None in (nin.network.get("train_bytes"), nin.network.get("predict_bytes")):
        memory, plan = "", "The memory was not computed: use scripts/report.py --train."
    else:
        memory = (
            f", and takes {_amount(nin, 'train_bytes', 2**20, 'MiB')} in training and "
            f"{_amount(nin, 'predict_bytes', 2**20, 'MiB')} in prediction"
        )
        plan = f"The memory is XLA's plan for a batch of {batch}."
    return Answer(
        f"At {height}x{width}, nin has {_amount(nin, 'params', 1e6, 'million')} parameters and "
        f"needs {_amount(nin, 'macs', 1e6, 'million')} MACs for the forward pass of an image"
        f"{memory}.",
        f"A training step with a batch of {batch} needs "
        f"{_amount(nin, 'flops_per_training_step', 1e9, 'billion')} FLOPs, the update of the "
        f"parameters included. {plan} "
        "scripts/report.py prints these numbers by the convention of each tool, and for any size.",
    )


def _amount(group: Group, quantity: str, unit: float, name: str) -> str:
    number = group.network.get(quantity)
    if number is None:
        return "an unknown number of"
    return f"{number / unit:,.2f} {name}"


HEADS = ("nin", "nin_gradual", "nin_gradual_1x1")


def _single_step(chosen: Chosen, groups: Sequence[Group]) -> Answer:
    nin, *gradual = (chosen[name] for name in HEADS)
    counted = [g for g in groups if g.variant in HEADS and g.change in ("", "ReLU on the logits")]
    hit = [g for g in counted if g.variant == "nin" and any(g.dead)]
    dead = [f"{sum(map(bool, g.dead))} of {len(g.rows)} runs ({g.label})" for g in hit]
    without = _without_dropout(nin.recipe, groups)
    tables = [comparison_table(nin, gradual), *(_accuracies(*pair) for pair in without)]
    return Answer(
        sentence(
            *_heads(nin, gradual),
            *(f"without dropout, {clause}" for pair in without for clause in _heads(*pair)),
            f"the single step left dead classes in {' and '.join(dead) or 'no run'}",
        ),
        "A single step computes the map of each class from all 384 channels at once. If a ReLU "
        "follows and a map is zero for every image, its gradient is zero and the class never "
        "recovers. The three steps are 384, 192, 48, 10, a NiN block each. The dropout before the "
        "last step then acts on 48 channels in place of 384"
        + (". " if without else ", which may be what costs accuracy. ")
        + "A class counts as dead if its maps are zero for the whole test set or, without a ReLU "
        "on the logits, if it is never predicted. The notebook docs/exercise.ipynb counts the dead "
        "classes of untrained networks.",
        [*tables, _dead_classes(counted)],
    )


def _heads(nin: Group, gradual: Sequence[Group]) -> list[str]:
    steps = {"nin_gradual": "three steps", "nin_gradual_1x1": "three 1x1 steps"}
    return [
        difference_clause(g, nin, f"a head of {steps[g.variant]}", "a head of a single step")
        for g in gradual
    ]


def _without_dropout(recipe: str, groups: Sequence[Group]) -> list[tuple[Group, list[Group]]]:
    """Return nin and the heads of three steps for each change that sets the dropout to 0."""
    found: dict[str, dict[str, Group]] = {}
    for g in groups:
        if g.recipe == recipe and g.change and g.rows[0]["settings"].get("dropout") == 0:
            found.setdefault(g.change, {})[g.variant] = g
    pairs = [(by.get("nin"), [by[n] for n in HEADS[1:] if n in by]) for by in found.values()]
    return [(nin, gradual) for nin, gradual in pairs if nin and gradual]


def _accuracies(nin: Group, gradual: Sequence[Group]) -> Table:
    rows = [[g.variant, *compared(g, nin)] for g in (nin, *gradual)]
    return table_of([f"network, {nin.change}", "accuracy", "minus nin", "finding"], rows)


def _dead_classes(groups: Sequence[Group]) -> Table:
    headings = ["network", "recipe", "runs", "with dead classes", "dead classes per run"]
    rows: list[list[Cell | Quantity]] = []
    for group in groups:
        runs, dead = len(group.rows), group.dead
        counts = [runs, sum(map(bool, dead)), rounded(sum(dead) / runs, 2), group.collapsed]
        rows.append([group.variant, group.label, *counts])
    return table_of([*headings, "collapsed"], rows)


def _family(chosen: Chosen, groups: Sequence[Group]) -> Answer:
    found = [chosen[name] for name in ("nin15", "nin21", "nin27")]
    first, *deeper = found
    epochs = first.rows[0]["epochs"]
    headings = ["network", "accuracy", "minus nin15", "finding", "ms per step"]
    headings += ["minutes of training", "steps in equal time, relative"]
    rows: list[list[Cell | Quantity]] = []
    for group in found:
        times = (group.network.get("step_ms"), group.training_minutes)
        cells = [value and rounded(value, 1) for value in times]
        share = ratio(first, group, "step_ms")
        rows.append([group.variant, *compared(group, first), *cells, share])
    clauses = [
        (difference_clause(g, first, g.variant, "nin15"), cost_clause(g, first, g.variant))
        for g in deeper
    ]
    comparison, *others = chain(*clauses)
    return Answer(
        sentence(f"in the same number of steps, {comparison}", *others),
        "The family has four stages of small kernels and growing width, with a pool after each. "
        "Deeper members add blocks where the maps are small; the name is the number of "
        f"convolutions. All train on {first.rows[0]['train_images']:,} images, "
        f"{epochs} epoch{'' if epochs == 1 else 's'}. Minutes of training are the number of steps "
        "times the time of one. The last column: how many steps a network makes while nin15 makes "
        "one. A network that is less accurate after as many steps, and slower in each, is less "
        "accurate in equal time too, if more steps help.",
        [table_of(headings, rows)],
    )


QUESTIONS: Mapping[str, tuple[Sequence[str], Callable[[Chosen, Sequence[Group]], Answer]]] = {
    "1. Why are there two 1x1 convolutions per block? What happens with three, or with one?": (
        ("nin", "nin_one_1x1", "nin_three_1x1"),
        _one_by_one,
    ),
    "2. What changes if 3x3 convolutions replace the 1x1 convolutions?": (
        ("nin", "nin_3x3"),
        _three_by_three,
    ),
    "3. What changes if a fully connected layer replaces global average pooling?": (
        ("nin", "nin_fc"),
        _fully_connected,
    ),
    "4. What does NiN cost: parameters, computation, memory in training and prediction?": (
        ("nin",),
        _cost,
    ),
    "5. What can go wrong when 384 maps become 10 in a single step?": (HEADS, _single_step),
    "6. How does a family of NiN-like networks compare, like VGG-11, VGG-16 and VGG-19?": (
        ("nin15", "nin21", "nin27"),
        _family,
    ),
}
