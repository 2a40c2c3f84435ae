"""The exercise's six questions, answered with the study's own numbers.

Each answer opens with its finding. Every sentence that holds a figure takes it from the results.
Where a run that a sentence needs is missing, the sentence says so.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nin_jax.study.statistics import Estimate, difference
from nin_jax.study.summary import Group
from nin_jax.study.tables import Cell, Table

MISSING = "This study did not run what the question needs."
Chosen = Mapping[str, Group]


@dataclass(frozen=True)
class Answer:
    """An answer: its finding in one sentence, what is to be said of it, and the figures."""

    finding: str
    text: str = ""
    tables: Sequence[Table] = ()


def answered_by(groups: Sequence[Group]) -> str:
    """Return the recipe whose runs the answers are about: modern, if it was run."""
    recipes = [group.recipe for group in groups if not group.change]
    return "modern" if "modern" in recipes or not recipes else recipes[0]


def answers(groups: Sequence[Group]) -> dict[str, Answer]:
    """Answer all six by the runs of the recipe that `answered_by` names, as it is.

    Returns:
        Answers by question; one whose runs are missing says so.
    """
    recipe = answered_by(groups)
    chosen = {g.variant: g for g in groups if g.recipe == recipe and not g.change}
    found = {}
    for question, (needed, answer) in QUESTIONS.items():
        complete = all(name in chosen for name in needed)
        found[question] = answer(chosen, groups) if complete else Answer(MISSING)
    return found


def _than(a: Group, b: Group, first: str, second: str) -> str:
    """Say in a clause whether one network is more accurate than another, and by how much."""
    found = difference(a.accuracies, b.accuracies)
    if found is None:
        return f"{first} and {second} have no seed in common"
    if found.verdict in ("more", "less"):
        by = Estimate(abs(found.mean), found.half, found.runs)
        return f"{first} is {found.verdict} accurate than {second}, by {by}"
    if found.half is None:
        return f"{first} differs from {second} by {found} ({found.verdict})"
    return f"{first} against {second}: {found.verdict}"


def _times(a: Group, b: Group, quantity: str) -> float | None:
    """Return a's quantity over b's; None if either is not known."""
    x, y = a.network.get(quantity), b.network.get(quantity)
    return round(x / y, 2) if x and y else None


def _costs(a: Group, b: Group) -> str:
    """Say what a costs, in times of b."""
    names = {"params": "the parameters", "macs": "the multiply-adds", "step_ms": "a step's time"}
    found = {text: _times(a, b, name) for name, text in names.items()}
    known = [f"{times:.2f} times {text}" for text, times in found.items() if times is not None]
    return f" at {', '.join(known)}" if known else ""


def _compared(base: Group, others: Sequence[Group]) -> Table:
    """Return a table of accuracies, differences from the first network, and costs over its own."""
    head = ("network", "accuracy", f"minus {base.variant}", "finding")
    rows: list[list[Cell]] = []
    for group in (base, *others):
        found = None if group is base else difference(group.accuracies, base.accuracies)
        row: list[Cell] = [group.variant, group.accuracy, found]
        row.append("" if found is None else found.verdict)
        rows.append([*row, *(_times(group, base, name) for name in ("params", "macs", "step_ms"))])
    return Table((*head, "parameters, relative", "MACs, relative", "step time, relative"), rows)


def _sentence(*clauses: str) -> str:
    text = "; ".join(clauses)
    return f"{text[0].upper()}{text[1:]}."


def _mlp(chosen: Chosen, groups: Sequence[Group]) -> Answer:
    nin, one, three = chosen["nin"], chosen["nin_one_1x1"], chosen["nin_three_1x1"]
    return Answer(
        _sentence(
            _than(one, nin, "one 1x1 convolution a block", "two"),
            _than(three, nin, "three", "two"),
        ),
        "A 1x1 convolution mixes the channels of each pixel; with a ReLU after each, two of them "
        "make a perceptron with one hidden layer, the least that can compute what one layer "
        "cannot.",
        [_compared(nin, [one, three])],
    )


def _wide(chosen: Chosen, groups: Sequence[Group]) -> Answer:
    nin, wide = chosen["nin"], chosen["nin_3x3"]
    return Answer(
        _sentence(_than(wide, nin, "a block with 3x3", "one with 1x1") + _costs(wide, nin)),
        "The block then looks at neighbours three times over, where the 1x1 layers only mix "
        "channels.",
        [_compared(nin, [wide])],
    )


def _fc(chosen: Chosen, groups: Sequence[Group]) -> Answer:
    nin, linear = chosen["nin"], chosen["nin_fc"]
    text = (
        f"The last maps are {_map(nin)} here and 5x5 at 224x224. The linear layer's weights belong "
        "to the places in them, so the network takes images of one size alone; the mean takes any."
    )
    if nin.network.get("head_map") == [1, 1]:
        text += (
            " Maps of a single pixel are their own mean: what is compared here is one more layer "
            "against none, and not two ways to pool."
        )
    return Answer(
        _sentence(_than(linear, nin, "a linear layer", "the global mean"), *_resized(nin)),
        text,
        [_compared(nin, [linear]), _sizes([nin, linear])],
    )


def _resized(group: Group) -> list[str]:
    """Say in a clause what the largest test images do to the accuracy."""
    found, side = group.by_size, group.rows[0]["image_size"][0]
    largest = max(found)
    if largest == side or side not in found:
        return []
    return [
        f"with test images of {largest}x{largest} in place of {side}x{side} the accuracy with the "
        f"mean goes from {found[side].mean:.4f} to {found[largest].mean:.4f}, and the linear layer "
        "cannot take them"
    ]


def _sizes(groups: Sequence[Group]) -> Table:
    sides = sorted({side for group in groups for side in group.by_size})
    trained, images = (groups[0].rows[0][name] for name in ("image_size", "test_images_by_size"))
    head = [f"{side}x{side}{' (training)' if side == trained[0] else ''}" for side in sides]
    rows = [[g.variant, *(g.by_size.get(side) for side in sides)] for g in groups]
    return Table((f"accuracy on the first {images:,} test images", *head), rows)


def _map(group: Group) -> str:
    sides = group.network.get("head_map")
    return "of unknown size" if sides is None else f"{sides[0]}x{sides[1]}"


def _cost(chosen: Chosen, groups: Sequence[Group]) -> Answer:
    nin = chosen["nin"]
    height, width = nin.rows[0]["image_size"]
    batch = nin.network.get("batch_size", "unknown size")
    return Answer(
        f"At {height}x{width} nin has {_amount(nin, 'params', 1e6, 'million')} parameters, takes "
        f"{_amount(nin, 'macs', 1e6, 'million')} multiply-adds an image going forward, and holds "
        f"{_amount(nin, 'train_bytes', 2**20, 'MiB')} in training and "
        f"{_amount(nin, 'predict_bytes', 2**20, 'MiB')} in prediction.",
        f"A training step of {batch} images takes "
        f"{_amount(nin, 'flops_per_training_step', 1e9, 'billion')} operations. Memory is XLA's "
        f"plan for a batch of {batch}, as the programs run. scripts/report.py has these figures by "
        "everyone's convention, and for any size.",
    )


def _amount(group: Group, quantity: str, unit: float, name: str) -> str:
    number = group.network.get(quantity)
    return "an unknown number of" if number is None else f"{number / unit:,.2f} {name}"


STEPS = ("nin", "nin_gradual", "nin_gradual_1x1")


def _gradual(chosen: Chosen, groups: Sequence[Group]) -> Answer:
    nin, gradual, pointwise = (chosen[name] for name in STEPS)
    concerned = [g for g in groups if g.variant in STEPS and g.change in ("", "ReLU on the logits")]
    hit = [g for g in concerned if g.variant == "nin" and any(g.dead)]
    dead = [f"{sum(map(bool, g.dead))} of {len(g.rows)} runs ({g.label})" for g in hit]
    return Answer(
        _sentence(
            _than(gradual, nin, "a head of three steps", "one of a single step"),
            _than(pointwise, nin, "a head of three 1x1 steps", "one of a single step"),
            f"the single step left dead classes in {' and '.join(dead) or 'no run'}",
        ),
        "A single step has to make each class's map from all 384 channels at once, and under a "
        "ReLU after it a map that is zero for every image learns nothing any more. The three steps "
        "are 384, 192, 48, 10. A class is dead if its maps are zero for the whole test set; "
        "without a ReLU on the logits, if it is never predicted.",
        [_compared(nin, [gradual, pointwise]), _dead(concerned)],
    )


def _dead(groups: Sequence[Group]) -> Table:
    head = ("network", "recipe", "runs", "with dead classes", "dead classes a run", "collapsed")
    rows: list[list[Cell]] = []
    for group in groups:
        runs, dead = len(group.rows), group.dead
        rows.append([group.variant, group.label, runs, sum(map(bool, dead))])
        rows[-1] += [round(sum(dead) / runs, 2), group.collapsed]
    return Table(head, rows)


def _family(chosen: Chosen, groups: Sequence[Group]) -> Answer:
    found = [chosen[name] for name in ("nin15", "nin21", "nin27")]
    first, _, last = found
    head = ("network", "accuracy", "minus nin15", "finding", "ms a step", "minutes of training")
    rows: list[list[Cell]] = []
    for group in found:
        more = None if group is first else difference(group.accuracies, first.accuracies)
        minutes, step = group.training_minutes, group.network.get("step_ms")
        rows.append([group.variant, group.accuracy, more])
        rows[-1] += ["" if more is None else more.verdict, step and round(step, 1)]
        rows[-1] += [
            minutes and round(minutes, 1),
            minutes and round(group.accuracy.mean / minutes, 3),
        ]
    return Answer(
        _sentence(_than(last, first, "the deepest network (nin27)", "nin15") + _costs(last, first)),
        "Blocks of small kernels in four stages of growing width, with a pool after each; depth is "
        "added where maps are small, and the name is the number of convolutions. The budget is "
        f"the same: {first.rows[0]['train_images']:,} images, {first.rows[0]['epochs']} times. "
        "Minutes of training are its steps by the time of one.",
        [Table((*head, "accuracy a minute"), rows)],
    )


QUESTIONS: Mapping[str, tuple[Sequence[str], Callable[[Chosen, Sequence[Group]], Answer]]] = {
    "1. Why two 1x1 convolutions a block? What if there are three, or one?": (
        ("nin", "nin_one_1x1", "nin_three_1x1"),
        _mlp,
    ),
    "2. What changes if 3x3 convolutions take the place of the 1x1 ones?": (
        ("nin", "nin_3x3"),
        _wide,
    ),
    "3. What if a fully connected layer takes the place of global average pooling?": (
        ("nin", "nin_fc"),
        _fc,
    ),
    "4. What does NiN cost: parameters, computation, memory in training and prediction?": (
        ("nin",),
        _cost,
    ),
    "5. What may go wrong when 384 maps become 10 in a single step?": (STEPS, _gradual),
    "6. A family of NiN-like networks, as VGG-11, VGG-16 and VGG-19 are one": (
        ("nin15", "nin21", "nin27"),
        _family,
    ),
}
