"""The exercise's six questions, answered with the study's own numbers.

Every sentence that holds a figure takes it from the results. Where a run that a sentence needs is
missing, the sentence says so.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nin_study.summary import Group

MISSING = "This study did not run what the question needs."


@dataclass(frozen=True)
class Answer:
    """A question of the exercise (in our words) and its answer."""

    question: str
    text: str


def answered_by(groups: Sequence[Group]) -> str:
    """The recipe whose runs the answers are about: modern, if it was run."""
    recipes = [group.recipe for group in groups if not group.change]
    return "modern" if "modern" in recipes or not recipes else recipes[0]


def answers(groups: Sequence[Group]) -> list[Answer]:
    """All six, by the recipe that `answered_by` names, as it is."""
    recipe = answered_by(groups)
    chosen = {g.variant: g for g in groups if g.recipe == recipe and not g.change}
    texts = {question: answer(chosen) for question, answer in QUESTIONS.items()}
    texts[GRADUAL] += _published(groups, recipe)
    return [Answer(question, text) for question, text in texts.items()]


def _need(chosen: Mapping[str, Group], *names: str) -> list[Group] | None:
    return [chosen[name] for name in names] if all(name in chosen for name in names) else None


def _score(group: Group) -> str:
    text = group.accuracy_text
    if group.collapsed:
        text += f", {group.collapsed} of {group.seeds} runs collapsed"
    return text


def _difference(group: Group, base: Group) -> str:
    """A difference of means, and whether it is more than the seeds' spread."""
    difference = group.accuracy - base.accuracy
    if group.accuracy_std is None or base.accuracy_std is None:
        return f"{difference:+.4f} (one seed: no spread known)"
    spread = (group.accuracy_std**2 + base.accuracy_std**2) ** 0.5
    verdict = "more" if abs(difference) > 2 * spread else "no more"
    return f"{difference:+.4f}, {verdict} than twice the seeds' spread of {spread:.4f}"


def _times(a: Group, b: Group, quantity: str) -> str:
    """How many times b's is a's."""
    x, y = a.network.get(quantity), b.network.get(quantity)
    return "an unknown number of" if not x or not y else f"{x / y:.2f}"


def _millions(group: Group, quantity: str) -> str:
    number = group.network.get(quantity)
    return "an unknown number of" if number is None else f"{number / 1e6:,.2f} million"


def _billions(group: Group, quantity: str) -> str:
    number = group.network.get(quantity)
    return "an unknown number of" if number is None else f"{number / 1e9:,.2f} billion"


def _mebibytes(group: Group, quantity: str) -> str:
    number = group.network.get(quantity)
    return "an unknown number of MiB" if number is None else f"{number / 2**20:,.0f} MiB"


def _map(group: Group) -> str:
    sides = group.network.get("head_map")
    return "of unknown size" if sides is None else f"of {sides[0]}x{sides[1]}"


def _mlp(chosen: Mapping[str, Group]) -> str:
    found = _need(chosen, "nin", "nin_one_1x1", "nin_three_1x1")
    if not found:
        return MISSING
    two, one, three = found
    return (
        "A 1x1 convolution mixes the channels of each pixel; with a ReLU after each, two of them "
        "make a perceptron with one hidden layer, the least that can compute what one layer "
        f"cannot. Test accuracy with one: {_score(one)}; two: {_score(two)}; three: "
        f"{_score(three)}. Against two, one differs by {_difference(one, two)}; three by "
        f"{_difference(three, two)}. One has {_times(one, two, 'macs')} and three "
        f"{_times(three, two, 'macs')} times the multiply-adds of two, and their training steps "
        f"take {_times(one, two, 'step_ms')} and {_times(three, two, 'step_ms')} times "
        "as long."
    )


def _wide(chosen: Mapping[str, Group]) -> str:
    found = _need(chosen, "nin", "nin_3x3")
    if not found:
        return MISSING
    base, wide = found
    return (
        f"Parameters grow {_times(wide, base, 'params')} times to {_millions(wide, 'params')}, "
        f"multiply-adds {_times(wide, base, 'macs')} times, and a training step takes "
        f"{_times(wide, base, 'step_ms')} times as long. Test accuracy: {_score(wide)} "
        f"against {_score(base)}, a difference of {_difference(wide, base)}. The block then looks "
        "at neighbours three times over, where the 1x1 layers only mix channels."
    )


def _fc(chosen: Mapping[str, Group]) -> str:
    found = _need(chosen, "nin", "nin_fc")
    if not found:
        return MISSING
    mean, dense = found
    added = dense.network.get("params", 0) - mean.network.get("params", 0)
    return (
        f"The dense layer adds {added:,} parameters, few as the maps before it are small "
        f"({_map(mean)} at this image size; of 5x5 at 224x224), and a training step takes "
        f"{_times(dense, mean, 'step_ms')} times as long. Test accuracy: {_score(dense)} "
        f"against {_score(mean)}, a difference of {_difference(dense, mean)}. It also ties the "
        "network to one image size, and its inputs are no longer maps of classes."
        f"{_single_pixel(mean)}"
    )


def _single_pixel(group: Group) -> str:
    if group.network.get("head_map") != [1, 1]:
        return ""
    return (
        " Maps of a single pixel are their own mean: what is compared here is one more layer "
        "against none, and not two ways to pool."
    )


def _cost(chosen: Mapping[str, Group]) -> str:
    found = _need(chosen, "nin")
    if not found:
        return MISSING
    (nin,) = found
    return (
        f"At this image size nin has {_millions(nin, 'params')} parameters and takes "
        f"{_millions(nin, 'macs')} multiply-adds an image going forward; a training step takes "
        f"{_billions(nin, 'flops_per_training_step')} operations. By XLA's plan a training step "
        f"holds {_mebibytes(nin, 'train_bytes')} and a prediction "
        f"{_mebibytes(nin, 'predict_bytes')}, as they run. "
        "scripts/report.py has these figures by everyone's convention, and for any size."
    )


def _gradual(chosen: Mapping[str, Group]) -> str:
    found = _need(chosen, "nin", "nin_gradual", "nin_gradual_1x1")
    if not found:
        return MISSING
    nin, gradual, pointwise = found
    return (
        "A single step has to make each class's map from all channels at once, and under a ReLU "
        "after it a map that is zero everywhere learns nothing any more. In three steps (384, 192, "
        f"48, 10) test accuracy is {_score(gradual)}, against nin's {_score(nin)} a difference of "
        f"{_difference(gradual, nin)}; "
        f"with 1x1 steps, {_score(pointwise)}, a difference of {_difference(pointwise, nin)}. The "
        f"steps cost {_times(gradual, nin, 'params')} and "
        f"{_times(pointwise, nin, 'params')} times nin's parameters."
    )


def _family(chosen: Mapping[str, Group]) -> str:
    found = _need(chosen, "nin15", "nin21", "nin27")
    if not found:
        return MISSING
    parts = [
        f"{g.variant} reaches {_score(g)} with {_millions(g, 'params')} parameters and "
        f"{_millions(g, 'macs')} multiply-adds an image"
        for g in found
    ]
    first, _, last = found
    return (
        "Blocks of small kernels in four stages of growing width, with a pool after each; depth is "
        "added where maps are small, and the name is the number of convolutions. "
        f"{'; '.join(parts)}. From the first to the last the difference is "
        f"{_difference(last, first)}, at "
        f"{_times(last, first, 'step_ms')} times the time of a step."
    )


def _published(groups: Sequence[Group], shown: str) -> str:
    """What became of the same networks under the published recipe, which has that ReLU."""
    names = ("nin", "nin_gradual", "nin_gradual_1x1")
    found = _need({g.variant: g for g in groups if g.recipe == "d2l" and not g.change}, *names)
    if not found or shown == "d2l":
        return ""
    scores = "; ".join(f"{g.variant} {_score(g)}" for g in found)
    return f" With the published recipe, which has a ReLU there: {scores}."


GRADUAL = "5. What may go wrong when 384 maps become 10 in a single step?"
QUESTIONS: Mapping[str, Callable[[Mapping[str, Group]], str]] = {
    "1. Why two 1x1 convolutions a block? What if there are three, or one?": _mlp,
    "2. What changes if 3x3 convolutions take the place of the 1x1 ones?": _wide,
    "3. What if a fully connected layer takes the place of global average pooling?": _fc,
    "4. What does NiN cost: parameters, computation, memory in training and prediction?": _cost,
    GRADUAL: _gradual,
    "6. A family of NiN-like networks, as VGG-11, VGG-16 and VGG-19 are one": _family,
}
