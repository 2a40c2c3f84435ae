"""Counts on paper against XLA's, to the unit; memory; and what an interface does not tell."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

import nin_jax
from nin_jax import ops
from nin_jax.accounting import account, hlo, layer_costs
from nin_jax.accounting.conventions import all_counts
from nin_jax.accounting.layers import taps_on_pixels
from nin_jax.accounting.memory import (
    check_memory,
    largest_batch,
    optimizer_slots,
    prediction_memory,
    training_memory,
)
from nin_jax.accounting.programs import Programs, abstract_model
from nin_jax.accounting.tables import layer_table
from nin_jax.accounting.training import DRAWS, optimizer_flops, training_cost
from nin_jax.accounting.xla import cost_entry, program_cost, xla_memory
from nin_jax.config import RECIPES
from nin_jax.geometry import trace
from nin_jax.optim import make_optimizer
from nin_jax.step import cross_entropy

Shape = jax.ShapeDtypeStruct
F16, F32, I32 = jnp.bfloat16, jnp.float32, jnp.int32


def floats(*shape):
    return Shape(shape, F32)


def pullback(function):
    """The gradients to all arguments, as a program of the arguments and the output's gradient."""
    return lambda grad, *args: jax.vjp(function, *args)[1](grad)


PROGRAMS = {
    "product": (lambda x, y: x @ y, floats(3, 5), floats(5, 7)),
    "batched product": (jnp.matmul, floats(4, 3, 5), floats(4, 5, 7)),
    "sum": (lambda x: x.sum((0, 2)), floats(3, 5, 7)),
    "maximum": (lambda x: x.max(), floats(3, 5, 7)),
    "arg maximum": (lambda x: x.argmax(1), floats(3, 5)),
    "exponential": (lambda x: jnp.exp(x) + 1, floats(3, 5)),
    "choice": (lambda x: jnp.where(x > 0, x, -x), floats(3, 5)),
    "clamp": (lambda x: jnp.clip(x, -1, 1), floats(3, 5)),
    "pool": (ops.PLAIN.max_pool, floats(2, 9, 8, 3)),
    "pool, going back": (
        pullback(ops.PLAIN.max_pool),
        floats(2, 4, 3, 3),
        floats(2, 9, 8, 3),
    ),
    "our pool, going back": (
        pullback(ops.FAST.max_pool),
        floats(2, 4, 3, 3),
        floats(2, 9, 8, 3),
    ),
    "gather": (lambda x, i: x[i], floats(9, 5), Shape((4,), I32)),
    "scatter": (lambda x, i: x.at[i].add(1.0), floats(9, 5), Shape((4,), I32)),
    "loss": (cross_entropy, floats(4, 10), Shape((4,), I32)),
    "loss, going back": (
        lambda x, y: jax.grad(lambda x: cross_entropy(x, y).sum())(x),
        floats(4, 10),
        Shape((4,), I32),
    ),
    "loop": (lambda x: lax.fori_loop(0, 5, lambda i, x: 2 * x + 1, x), floats(3, 5)),
    "choice of programs": (
        lambda i, x: lax.fori_loop(0, i, lambda i, x: x * x, x),
        Shape((), I32),
        floats(3),
    ),
    "one of two": (
        lambda i, x: lax.cond(i > 0, lambda x: x * x + 1, lambda x: x + 1, x),
        Shape((), I32),
        floats(3),
    ),
    "one of three": (
        lambda i, x: lax.switch(i, [lambda x: x, lambda x: x + 1, lambda x: x @ x.T], x),
        Shape((), I32),
        floats(3, 3),
    ),
    "random numbers": (
        lambda seed: jax.random.normal(jax.random.key(seed), (5, 7)),
        Shape((), I32),
    ),
    "random cut": (
        lambda seed: jax.random.bernoulli(jax.random.key(seed), 0.5, (5, 7)),
        Shape((), I32),
    ),
}


def assert_xla_agrees(function, *args):
    lowered = jax.jit(function).lower(*args)
    found = program_cost(lowered)
    # Small enough that float32 is exact; of a program without operations XLA tells nothing.
    assert found.flops == (found.flops_xla or 0)
    assert found.flops_rounding == 0
    assert not hlo.count(lowered.as_text(dialect="hlo")).unknown
    return found


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_operation_is_counted_as_xla_does(name):
    found = assert_xla_agrees(*PROGRAMS[name])
    assert (found.flops or 0) > 0 or name == "gather"
    assert found.loops == (1 if name in ("loop", "choice of programs") else found.loops)


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(0, 3),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_convolutions_and_their_gradients(sides, size, stride, padding, spread, kernel_spread):
    def conv(x, kernel):
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            ((padding, padding), (padding, padding + 1)),
            lhs_dilation=(spread, 1),
            rhs_dilation=(1, kernel_spread),
            dimension_numbers=ops.NHWC,
        )

    args = floats(2, *sides, 3), floats(size, size, 3, 5)
    y = jax.eval_shape(conv, *args)
    if min(y.shape) > 0:
        assert_xla_agrees(conv, *args)
        assert_xla_agrees(pullback(conv), y, *args)


def test_an_opcode_that_no_rule_counts_is_named():
    text = """HloModule m
ENTRY main.3 {
  x.1 = f32[3]{0} parameter(0)
  ROOT y.2 = f32[3]{0} fft(x.1), fft_type=FFT
}"""
    assert hlo.count(text).unknown == {"fft"}
    cost = program_cost(told(text))
    assert cost.unknown == ("fft",)
    assert cost.to_dict()["unknown"] == ("fft",)
    with pytest.raises(ValueError, match="no entry computation"):
        hlo.count("HloModule m\n")


@pytest.mark.parametrize(
    ("line", "unknown"),
    [
        ("f32[3]{0} call(x.1), to_apply=none.1", "computation 'none.1'"),
        ("f32[3]{0} conditional(x.1), branches=none.1", "conditional"),
        ('f32[3]{0} custom-call(x.1), custom_call_target="solve"', "custom-call solve"),
        ("f32[3]{0} sort(x.1), dimensions={0}, to_apply=less.1", "sort"),
    ],
)
def test_a_computation_that_no_rule_counts_is_named(line, unknown):
    text = f"ENTRY main.3 {{\n  x.1 = f32[3]{{0}} parameter(0)\n  ROOT y.2 = {line}\n}}"
    assert hlo.count(text).unknown == {unknown}


def test_an_instruction_that_cannot_be_read_leaves_the_count_open():
    text = "ENTRY main.3 {\n  ROOT y.2 = f32[<=3] add(x.1, x.1)\n}"
    with pytest.raises(ValueError, match="cannot read the HLO instruction"):
        hlo.count(text)
    assert program_cost(told(text)).flops is None


def told(text) -> Any:
    """A lowered program of which a back end gives that text, and nothing else."""
    return SimpleNamespace(as_text=lambda dialect: text)


@given(st.integers(1, 30), st.integers(1, 7), st.integers(1, 4), st.integers(0, 4))
def test_taps_on_pixels(side, kernel, stride, padding):
    padded = [False] * padding + [True] * side + [False] * padding
    starts = range(0, len(padded) - kernel + 1, stride)
    expected = sum(sum(padded[start : start + kernel]) for start in starts)
    assert taps_on_pixels(side, len(starts), kernel, stride, padding) == expected


# The schedule's arithmetic, which the formula leaves out, is no more than this for any recipe.
SCALARS = 30
# What folding and splitting keys takes, and what the step's bookkeeping takes for an image.
KEYS, IMAGE = 300, 110


def known(number):
    assert number is not None
    return number


def costs_of(variant, channels, classes, image_size, logit_relu=True):
    layers = trace(nin_jax.get_variant(variant), channels, classes, image_size)
    return layer_costs(layers, logit_relu)


@pytest.mark.parametrize("sizes", [(1, 10, (224, 224)), (3, 10, (224, 224)), (2, 7, (131, 99))])
@pytest.mark.parametrize("variant", nin_jax.list_variants())
def test_the_plain_forward_pass_is_what_paper_says(variant, sizes):
    channels, classes, sides = sizes
    model = abstract_model(nin_jax.get_variant(variant), channels, classes, sides, "float32", True)
    programs = Programs(model, RECIPES["d2l"](model.variant), 1)
    costs = costs_of(variant, *sizes)
    plain = program_cost(programs.plain().forward(1))
    assert plain.flops == all_counts(costs)["xla"]
    assert plain.flops_products == 2 * sum(cost.macs_on_pixels for cost in costs)
    assert plain.flops_unexplained == 0
    assert abs(known(plain.flops_rounding)) < 1e-6 * known(plain.flops)
    if channels == 2:  # once for each variant
        as_run = program_cost(programs.forward(1))
        assert as_run.flops_unexplained == 0
        # Three images are three times the work.
        assert program_cost(programs.plain().forward(3)).flops == 3 * known(plain.flops)


# The recipe changes the loss and the optimiser alone, so one variant is enough for the second.
@pytest.mark.parametrize(
    ("variant", "recipe"),
    [*((variant, "d2l") for variant in nin_jax.list_variants()), ("nin_fc", "modern")],
)
def test_the_training_step_is_what_paper_says(variant, recipe):
    variant = nin_jax.get_variant(variant)
    recipe = replace(RECIPES[recipe](variant), label_smoothing=0.1 * (recipe == "modern"))
    model = abstract_model(variant, 1, 10, (96, 96), "float32", recipe.logit_relu)
    programs = Programs(model, recipe, 6, micro_batch_size=3)
    costs = costs_of(variant, 1, 10, 96, programs.recipe.logit_relu)
    training = training_cost(programs, costs)
    assert (training.micro_batch_size, training.micro_batches) == (3, 2)
    parts = {part.name: part for part in training.parts}
    for name in ("forward and loss", "gradients to inputs", "gradients to weights"):
        assert parts[name].plain_products == parts[name].paper_products
    unexplained = {name: part.plain_unexplained for name, part in parts.items()}
    draws = parts.pop(DRAWS)
    assert unexplained.pop(DRAWS) is draws.paper_other is None
    assert known(draws.plain_other) > 6 * sum(cost.mask_elements for cost in costs)
    assert unexplained.pop("gradients to inputs") == unexplained.pop("gradients to weights") == 0
    assert unexplained.pop("masks, pools and biases, going back") == 0
    assert 0 <= known(unexplained.pop("optimiser")) < SCALARS
    assert 0 <= known(unexplained.pop("forward and loss")) < KEYS  # dropout's
    # Of each image: its index, weight, key and answer.
    assert 0 <= known(unexplained.pop("images, random keys and sums")) < KEYS + 6 * IMAGE
    assert 0 <= known(unexplained.pop("whole step")) < 2 * KEYS + SCALARS + 6 * IMAGE
    assert not unexplained
    # The parts are all there is.
    whole = training.programs["plain: step of one micro-batch"].flops
    step = parts["whole step"]
    assert whole == known(step.plain_products) + known(step.plain_other)
    micro = known(training.programs["as_run: step of one micro-batch"].flops)
    update = known(training.programs["as_run: optimiser"].flops)
    assert known(step.as_run_products) + known(step.as_run_other) == 2 * (micro - update) + update
    for name, cost in training.programs.items():
        assert cost.flops_unexplained == 0, name


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True},
        {"clip_norm": 1.0},
        {"clip_norm": 2.5, "momentum": 0.9},
        {"weight_decay": 1e-4},
        {"optimizer": "adam"},
        {"optimizer": "adam", "weight_decay": 1e-3, "clip_norm": 0.5},
        {"schedule": "cosine", "warmup_steps": 10},
    ],
    ids=str,
)
def test_the_optimiser_is_counted_and_weighed(changes):
    variant = nin_jax.get_variant("nin_fc")
    recipe = replace(RECIPES["d2l"](variant), **changes)
    model = abstract_model(variant, 1, 10, (96, 96), "float32", True)
    costs = costs_of("nin_fc", 1, 10, 96)
    exact = known(program_cost(Programs(model, recipe, 1).optimizer()).flops)
    assert 0 <= exact - optimizer_flops(costs, recipe) < SCALARS
    _, params = nnx.split(model, nnx.Param)
    state = jax.eval_shape(make_optimizer(recipe, 1000).init, params)
    kept = sum(x.size for x in jax.tree.leaves(state) if x.ndim)
    assert kept == optimizer_slots(recipe) * sum(cost.params for cost in costs)


def test_memory_on_paper():
    costs = costs_of("nin", 3, 10, 224)
    recipe = RECIPES["modern"](nin_jax.get_variant("nin"))
    train = training_memory(costs, 2, "float32", recipe)
    assert train.params_bytes == train.gradients_bytes == train.optimizer_bytes == 4 * 2_015_398
    assert train.images_bytes == 2 * 4 * 3 * 224 * 224
    predict = prediction_memory(costs, 2, "float32")
    assert predict.activations_bytes == 2 * 4 * 2 * 54 * 54 * 96  # the second convolution's
    assert predict.gradients_bytes == predict.optimizer_bytes == 0
    half = prediction_memory(costs, 2, "bfloat16")
    assert half.activations_bytes == predict.activations_bytes / 2
    assert half.params_bytes == predict.params_bytes
    assert train.total_bytes == sum(
        (
            train.params_bytes,
            train.images_bytes,
            train.gradients_bytes,
            train.optimizer_bytes,
            train.activations_bytes,
        )
    )


def test_an_account_is_plain_data():
    result = account("nin", in_channels=3, image_size=96, batch_size=4, xla=False)
    plain = json.loads(json.dumps(result.to_dict()))
    assert plain["params"] == 2_015_398
    assert plain["macs"] == sum(layer["macs"] for layer in plain["layers"])
    assert plain["conventions"]["thop"]["count"] == result.counts["thop"]
    assert plain["memory"]["train"]["paper"]["total_bytes"] > plain["params"] * 8
    assert plain["memory"]["train"]["xla_as_run"] is None
    assert plain["training"] is plain["platform"] is None
    assert plain["layers"][0]["flops_per_byte"] > 1
    assert result.flops_per_training_step == 4 * (
        6 * result.macs - 2 * result.layers[0].macs  # no gradient to the image
    )


def test_an_account_asks_xla():
    result = account("nin_one_1x1", image_size=67, batch_size=2, train=True)
    for cost in result.forward.values():
        assert cost.flops_unexplained == 0
        assert (cost.bytes_accessed or 0) > 4 * result.params
    assert result.training is not None
    for memory in result.memory.values():
        for plan in (memory.plain, memory.as_run):
            assert plan is not None
            assert known(plan.total_bytes) > 4 * result.params
    plain = json.loads(json.dumps(result.to_dict()))
    assert plain["forward"]["plain"]["flops"] == result.counts["xla"]


def test_a_model_is_counted_as_its_variant():
    model = nin_jax.create_model("nin_fc", in_channels=2, num_classes=7, image_size=(131, 99))
    of_model = account(model, batch_size=3, xla=False)
    of_name = account(
        "nin_fc", in_channels=2, num_classes=7, image_size=(131, 99), batch_size=3, xla=False
    )
    assert of_model == of_name
    assert of_model.params == nin_jax.count_params(model)


def test_a_model_is_counted_as_it_computes():
    model = nin_jax.create_model("nin_fc", image_size=96, dtype="bfloat16", logit_relu=False)
    model.dropout.rate = 0.0
    of_model = account(model, batch_size=3, recipe="d2l", xla=False)
    bare = replace(nin_jax.get_variant("nin_fc"), dropout=0.0)
    recipe = replace(RECIPES["d2l"](bare), logit_relu=False)
    of_name = account(
        bare, image_size=96, batch_size=3, precision="bfloat16", recipe=recipe, xla=False
    )
    assert of_model == replace(of_name, recipe="d2l")
    assert of_model.precision == "bfloat16"
    assert sum(layer.relu_comparisons > 0 for layer in of_model.layers) == 11


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda model: setattr(model.blocks[0].convs[0], "stride", 2), "stride=2"),
        (lambda model: setattr(model.blocks[1].convs[0], "padding", 0), "padding=0"),
        (lambda model: model.head.convs.pop(), "the model has None"),
        (lambda model: setattr(model.blocks[0], "last_relu", False), "without its last ReLU"),
        (lambda model: setattr(model.head.convs[0], "dtype", F16), "bfloat16 and float32"),
        (lambda model: setattr(model.head.convs[0], "bias", None), "parameters, where"),
    ],
)
def test_a_model_that_is_not_its_variant_raises(change, text):
    model = nin_jax.create_model("nin_one_1x1", image_size=67)
    account(model, xla=False)
    change(model)
    with pytest.raises(ValueError, match=text):
        account(model, xla=False)


@pytest.mark.parametrize("options", [{"dtype": "float64"}, {"param_dtype": "bfloat16"}], ids=str)
def test_a_model_of_another_precision_raises(options):
    with pytest.raises(ValueError, match="no rule counts a model that computes in"):
        account(nin_jax.create_model("nin_one_1x1", image_size=67, **options), xla=False)


def test_the_total_intensity_is_of_all_that_is_moved():
    result = account("nin", image_size=96, batch_size=4, precision="bfloat16", xla=False)
    moved = sum(layer.moved_bytes(4, 2) for layer in result.layers)
    flops = 4 * sum(layer.flops() for layer in result.layers)
    assert result.total_intensity == flops / moved
    each = [result.intensity(layer) for layer in result.layers]
    assert min(each) < result.total_intensity < max(each)
    total = dict(zip(layer_table(result).headings, layer_table(result).rows[-1], strict=True))
    assert total["FLOP/byte"] == round(result.total_intensity, 2)


def test_a_layer_that_no_rule_counts_raises():
    model = nin_jax.create_model("nin_one_1x1", image_size=67)
    model.blocks[0].convs[1] = nnx.BatchNorm(96, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"no rule counts blocks\.0\.convs\.1, a BatchNorm"):
        account(model, xla=False)
    model = nin_jax.create_model("nin_one_1x1", image_size=67)
    model.head.convs.append(model.head.convs[0])
    model.head.convs[1] = nin_jax.create_model("nin15", image_size=67).blocks[0].convs[0]
    with pytest.raises(ValueError, match="the model has"):
        account(model, xla=False)
    layers = trace(nin_jax.get_variant("nin"), 1, 10, 96)
    odd = replace(layers[3], kind="norm")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"no rule counts layer block1\.pool of kind 'norm'"):
        layer_costs([*layers[:3], odd, *layers[4:]])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"variant": "nin51"}, "or nin15"),
        ({"batch_size": 0}, "batch size must be a whole number >= 1, got 0"),
        ({"batch_size": True}, "batch size"),
        ({"batch_size": 2**31}, "batch size must be at most 2147483647"),
        ({"precision": "float16"}, "precision"),
        ({"recipe": "modem"}, "did you mean modern"),
        ({"image_size": 20}, "too small"),
        ({"in_channels": 0}, "in_channels"),
        ({"memory_bytes": 1000, "xla": False}, "smaller than the parameters alone"),
    ],
    ids=str,
)
def test_what_cannot_be_counted_is_refused(arguments, text):
    with pytest.raises(nin_jax.UserError, match=text):
        account(**arguments)


class Raises:
    def cost_analysis(self):
        raise NotImplementedError

    memory_analysis = cost_analysis


@pytest.mark.parametrize(
    "answer",
    [None, [], [None], {}, [{}], {"flops": None}, {"flops": -1.0}, {"flops": "many"}],
    ids=str,
)
def test_a_cost_that_a_back_end_does_not_tell(answer):
    assert cost_entry(SimpleNamespace(cost_analysis=lambda: answer), "flops") is None


def test_a_cost_that_a_back_end_tells_in_either_form():
    for answer in ({"flops": 5.0}, [{"flops": 5.0}]):
        assert cost_entry(SimpleNamespace(cost_analysis=lambda answer=answer: answer), "flops") == 5
    assert cost_entry(SimpleNamespace(cost_analysis=lambda: {"flops": 0.0}), "flops") == 0
    assert cost_entry(Raises(), "flops") is cost_entry(None, "flops") is None


@pytest.mark.parametrize(
    "answer", [None, [], SimpleNamespace(temp_size_in_bytes=5), {"temp_size_in_bytes": 5}], ids=str
)
def test_memory_that_a_back_end_does_not_tell(answer):
    memory = xla_memory(SimpleNamespace(memory_analysis=lambda: answer))
    assert memory.argument_bytes is memory.total_bytes is None
    assert xla_memory(Raises()).temp_bytes is None


def test_a_program_whose_text_a_back_end_does_not_give():
    class Silent(Raises):
        def as_text(self, dialect):
            raise NotImplementedError

    for silent in (Silent(), told(None), told([]), SimpleNamespace()):
        cost = program_cost(silent)  # pyright: ignore[reportArgumentType]
        assert cost.flops is cost.flops_products is cost.loops is None
    assert cost.flops_xla is cost.flops is cost.flops_unexplained is cost.bytes_accessed is None


@settings(deadline=None)
@given(st.integers(0, 5000), st.integers(1, 900), st.integers(1000, 10**7), st.integers(1, 64))
def test_the_largest_batch_fits_and_one_more_does_not(fixed, each, memory, step):
    asked = []

    def needed(batch):
        asked.append(batch)
        return 1000 + fixed + each * step * math.ceil(batch / step)  # in steps, as buffers grow

    found = largest_batch("train", memory, 1000, needed)
    assert found.images is not None
    assert found.images == 0 or needed(found.images) <= memory
    assert needed(found.images + 1) > memory
    assert found.needed_bytes == needed(max(found.images, 1))


def test_the_largest_batch_is_found_with_few_questions():
    asked = []

    def needed(batch):
        asked.append(batch)
        return 10**8 + 7_654_321 * batch

    found = largest_batch("predict", 80 * 10**9, 10**7, needed)
    assert found.images == (80 * 10**9 - 10**8) // 7_654_321
    assert len(asked) <= 12  # each is a program to compile


def test_the_largest_batch_has_indices_of_32_bits():
    found = largest_batch("train", 10**15, 10**6, lambda batch: 5 * batch)
    assert (found.images, found.needed_bytes) == (2**31 - 1, 5 * (2**31 - 1))


def test_a_back_end_that_tells_no_memory_leaves_the_largest_batch_open():
    for most in (0, 1, 2, 40):  # it tells nothing, or falls silent
        found = largest_batch("train", 10**9, 10**6, lambda b, m=most: b if b <= m else None)
        assert found.images is found.needed_bytes is None
    with pytest.raises(nin_jax.UserError, match="smaller than the parameters"):
        check_memory(5, 6)
