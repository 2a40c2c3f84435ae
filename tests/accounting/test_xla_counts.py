"""Operations counted from HLO equal XLA's own counts; unknown values are None."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from nin_jax import Pool
from nin_jax.accounting import operations
from nin_jax.accounting.conventions import all_counts
from nin_jax.accounting.programs import Programs
from nin_jax.accounting.xla import cost_entry, program_cost
from nin_jax.models import ops
from nin_jax.training.recipes import RECIPES
from nin_jax.training.step import cross_entropy
from parity_tests.pairs import distinct_variants
from tests.support.accounts import Raises, costs_of, known, model_of

Shape = jax.ShapeDtypeStruct
F32, I32 = jnp.float32, jnp.int32


def floats(*shape):
    return Shape(shape, F32)


def pullback(function):
    """Return the program of the gradients to all arguments, given the output's gradient."""
    return lambda grad, *args: jax.vjp(function, *args)[1](grad)


AVERAGE = Pool("average", padding=1, round_up=True)
PROGRAMS = {
    "product": (lambda x, y: x @ y, floats(3, 5), floats(5, 7)),
    "batched product": (jnp.matmul, floats(4, 3, 5), floats(4, 5, 7)),
    "sum": (lambda x: x.sum((0, 2)), floats(3, 5, 7)),
    "maximum": (lambda x: x.max(), floats(3, 5, 7)),
    "arg maximum": (lambda x: x.argmax(1), floats(3, 5)),
    "exponential": (lambda x: jnp.exp(x) + 1, floats(3, 5)),
    "choice": (lambda x: jnp.where(x > 0, x, -x), floats(3, 5)),
    "clamp": (lambda x: jnp.clip(x, -1, 1), floats(3, 5)),
    "pool": (partial(ops.PLAIN.pool, pool=Pool()), floats(2, 9, 8, 3)),
    "pool, backward": (
        pullback(partial(ops.PLAIN.pool, pool=Pool())),
        floats(2, 4, 3, 3),
        floats(2, 9, 8, 3),
    ),
    "fast pool, backward": (
        pullback(partial(ops.FAST.pool, pool=Pool())),
        floats(2, 4, 3, 3),
        floats(2, 9, 8, 3),
    ),
    "average": (partial(ops.PLAIN.pool, pool=AVERAGE), floats(2, 8, 6, 3)),
    "average, backward": (
        pullback(partial(ops.PLAIN.pool, pool=AVERAGE)),
        floats(2, 5, 4, 3),
        floats(2, 8, 6, 3),
    ),
    "fast average, backward": (
        pullback(partial(ops.FAST.pool, pool=AVERAGE)),
        floats(2, 5, 4, 3),
        floats(2, 8, 6, 3),
    ),
    "gather": (lambda x, i: x[i], floats(9, 5), Shape((4,), I32)),
    "scatter": (lambda x, i: x.at[i].add(1.0), floats(9, 5), Shape((4,), I32)),
    "loss": (cross_entropy, floats(4, 10), Shape((4,), I32)),
    "loss, backward": (
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
    # Small enough for exact float32. XLA reports nothing for a program without operations.
    assert found.flops == (found.flops_xla or 0)
    assert found.flops_rounding == 0
    assert not operations.count(lowered.as_text(dialect="hlo")).unknown
    return found


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_operation_is_counted_as_by_xla(name):
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


@pytest.mark.parametrize("sizes", [(3, 10, (224, 224)), (2, 7, (131, 99))])
@pytest.mark.parametrize("variant", distinct_variants())
def test_the_plain_forward_pass_equals_the_formula(variant, sizes):
    model = model_of(variant, *sizes)
    programs = Programs(model, RECIPES["d2l"](model.variant), 1)
    costs = costs_of(variant, *sizes)
    plain = program_cost(programs.plain().forward(1))
    assert plain.flops == all_counts(costs)["xla"]
    assert plain.flops_products == 2 * sum(cost.macs_on_pixels for cost in costs)
    assert plain.flops_unexplained == 0
    assert abs(known(plain.flops_rounding)) < 1e-6 * known(plain.flops)
    if model.in_channels == 2:  # once for each variant
        as_run = program_cost(programs.forward(1))
        assert as_run.flops_unexplained == 0
        # Three images take three times the operations.
        assert program_cost(programs.plain().forward(3)).flops == 3 * known(plain.flops)


def lowered_as(text) -> Any:
    """Return a lowered program on a back end that returns only its text."""
    return SimpleNamespace(as_text=lambda dialect: text)


def test_an_opcode_without_a_rule_is_named():
    text = """HloModule m
ENTRY main.3 {
  x.1 = f32[3]{0} parameter(0)
  ROOT y.2 = f32[3]{0} fft(x.1), fft_type=FFT
}"""
    assert operations.count(text).unknown == {"fft"}
    cost = program_cost(lowered_as(text))
    assert cost.unknown == ("fft",)
    with pytest.raises(ValueError, match="has no entry computation"):
        operations.count("HloModule m\n")


@pytest.mark.parametrize(
    ("line", "unknown"),
    [
        ("f32[3]{0} call(x.1), to_apply=none.1", "computation 'none.1'"),
        ("f32[3]{0} conditional(x.1), branches=none.1", "conditional"),
        ('f32[3]{0} custom-call(x.1), custom_call_target="solve"', "custom-call solve"),
        ("f32[3]{0} sort(x.1), dimensions={0}, to_apply=less.1", "sort"),
    ],
)
def test_a_computation_without_a_rule_is_named(line, unknown):
    text = f"ENTRY main.3 {{\n  x.1 = f32[3]{{0}} parameter(0)\n  ROOT y.2 = {line}\n}}"
    assert operations.count(text).unknown == {unknown}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("f32[<=3] add(x.1, x.1)", "cannot read the shape of y.2"),
        ("f32[3] add", "cannot read the HLO instruction"),
    ],
)
def test_the_count_is_unknown_if_an_instruction_cannot_be_read(line, message):
    text = f"ENTRY main.3 {{\n  ROOT y.2 = {line}\n}}"
    with pytest.raises(ValueError, match=message):
        operations.count(text)
    assert program_cost(lowered_as(text)).flops is None


@pytest.mark.parametrize(
    "answer",
    [None, [], [None], {}, [{}], {"flops": None}, {"flops": -1.0}, {"flops": "many"}],
    ids=str,
)
def test_a_cost_that_a_back_end_does_not_report_is_none(answer):
    assert cost_entry(SimpleNamespace(cost_analysis=lambda: answer), "flops") is None


def test_both_forms_of_a_cost_analysis_are_read():
    for answer in ({"flops": 5.0}, [{"flops": 5.0}]):
        assert cost_entry(SimpleNamespace(cost_analysis=lambda answer=answer: answer), "flops") == 5
    assert cost_entry(SimpleNamespace(cost_analysis=lambda: {"flops": 0.0}), "flops") == 0
    assert cost_entry(Raises(), "flops") is cost_entry(None, "flops") is None


def test_a_program_without_text_has_no_count():
    class Silent(Raises):
        def as_text(self, dialect):
            raise NotImplementedError

    for silent in (Silent(), lowered_as(None), lowered_as([]), SimpleNamespace()):
        cost = program_cost(silent)  # pyright: ignore[reportArgumentType]
        assert cost.flops is cost.flops_products is cost.loops is None
    assert cost.flops_xla is cost.flops is cost.flops_unexplained is cost.bytes_accessed is None
