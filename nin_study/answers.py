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
    return "modern" if any(group.recipe == "modern" for group in groups) else groups[0].recipe


def answers(groups: Sequence[Group]) -> list[Answer]:
    """All six, by the recipe that `answered_by` names, as it is."""
    recipe = answered_by(groups)
    chosen = {g.variant: g for g in groups if g.recipe == recipe and not g.change}
    return [Answer(question, answer(chosen)) for question, answer in QUESTIONS.items()]


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


def _times(a: float | None, b: float | None) -> str:
    return "an unknown number of" if not a or not b else f"{a / b:.2f}"


def _millions(number: float | None) -> str:
    return "an unknown number of" if number is None else f"{number / 1e6:,.2f} million"


def _mebibytes(number: float | None) -> str:
    return "an unknown number of MiB" if number is None else f"{number / 2**20:,.0f} MiB"


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
        f"{_difference(three, two)}. One has {_times(one.macs, two.macs)} and three "
        f"{_times(three.macs, two.macs)} times the multiply-adds of two, and their training steps "
        f"take {_times(one.step_ms, two.step_ms)} and {_times(three.step_ms, two.step_ms)} times "
        "as long."
    )


def _wide(chosen: Mapping[str, Group]) -> str:
    found = _need(chosen, "nin", "nin_3x3")
    if not found:
        return MISSING
    base, wide = found
    return (
        f"Parameters grow {_times(wide.params, base.params)} times to {_millions(wide.params)}, "
        f"multiply-adds {_times(wide.macs, base.macs)} times, and a training step takes "
        f"{_times(wide.step_ms, base.step_ms)} times as long. Test accuracy: {_score(wide)} "
        f"against {_score(base)}, a difference of {_difference(wide, base)}. The block then looks "
        "at neighbours three times over, where the 1x1 layers only mix channels."
    )


def _fc(chosen: Mapping[str, Group]) -> str:
    found = _need(chosen, "nin", "nin_fc")
    if not found:
        return MISSING
    mean, dense = found
    if dense.params is None or mean.params is None:
        return MISSING
    return (
        f"The dense layer adds {dense.params - mean.params:,} parameters, few as the ten maps "
        "before it are small, and a training step takes "
        f"{_times(dense.step_ms, mean.step_ms)} times as long. Test accuracy: {_score(dense)} "
        f"against {_score(mean)}, a difference of {_difference(dense, mean)}. It also ties the "
        "network to one image size, and its inputs are no longer maps of classes."
    )


def _cost(chosen: Mapping[str, Group]) -> str:
    found = _need(chosen, "nin")
    if not found:
        return MISSING
    (nin,) = found
    return (
        f"At this image size nin has {_millions(nin.params)} parameters and takes "
        f"{_millions(nin.macs)} multiply-adds an image going forward; a training step takes "
        f"{_millions(nin.flops_per_training_step)} operations. By XLA's plan a training step holds "
        f"{_mebibytes(nin.train_bytes)} and a prediction {_mebibytes(nin.predict_bytes)}, as they "
        "run. scripts/report.py has these figures by everyone's convention, and for any size."
    )


def _gradual(chosen: Mapping[str, Group]) -> str:
    found = _need(chosen, "nin", "nin_gradual", "nin_gradual_1x1")
    if not found:
        return MISSING
    nin, gradual, pointwise = found
    return (
        "A single step throws away 97 % of the channels, and a class whose map dies under the last "
        f"ReLU never recovers. In three steps (384, 192, 48, 10) test accuracy is "
        f"{_score(gradual)}, a difference of {_difference(gradual, nin)} from nin's {_score(nin)}; "
        f"with 1x1 steps, {_score(pointwise)}, a difference of {_difference(pointwise, nin)}. The "
        f"steps cost {_times(gradual.params, nin.params)} and "
        f"{_times(pointwise.params, nin.params)} times nin's parameters."
    )


def _family(chosen: Mapping[str, Group]) -> str:
    found = _need(chosen, "nin15", "nin21", "nin27")
    if not found:
        return MISSING
    parts = [
        f"{g.variant} reaches {_score(g)} with {_millions(g.params)} parameters and "
        f"{_millions(g.macs)} multiply-adds an image"
        for g in found
    ]
    first, _, last = found
    return (
        "Blocks of small kernels in four stages of growing width, with a pool after each; depth is "
        "added where maps are small, and the name is the number of convolutions. "
        f"{'; '.join(parts)}. From the first to the last the difference is "
        f"{_difference(last, first)}, at "
        f"{_times(last.step_ms, first.step_ms)} times the time of a step."
    )


QUESTIONS: Mapping[str, Callable[[Mapping[str, Group]], str]] = {
    "1. Why two 1x1 convolutions a block? What if there are three, or one?": _mlp,
    "2. What changes if 3x3 convolutions take the place of the 1x1 ones?": _wide,
    "3. What if a fully connected layer takes the place of global average pooling?": _fc,
    "4. What does NiN cost: parameters, computation, memory in training and prediction?": _cost,
    "5. What may go wrong when 384 maps become 10 in a single step?": _gradual,
    "6. A family of NiN-like networks, as VGG-11, VGG-16 and VGG-19 are one": _family,
}
