"""Pools: values and gradients as PyTorch's, of max pools to the bit, also for ties and NaN."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import hypothesis.strategies as st
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from hypothesis import example, given

from nin_jax import Pool, UserError
from nin_jax.models import ops
from parity_tests.frameworks import as_array, as_nchw, as_nhwc, assert_close
from parity_tests.pairs import random_cases
from parity_tests.tolerances import AVERAGE, Precision

SIDES = [(3, 3), (4, 4), (5, 7), (8, 6), (3, 12), (54, 41)]
KINDS = ["ties of zeros", "few values", "all equal", "distinct", "NaN", "-inf", "NaN and inf"]


class Window(NamedTuple):
    """The arguments of both frameworks' pools, in PyTorch's order."""

    size: int = 3
    stride: int = 2
    padding: int = 0
    round_up: bool = False


def _images(kind: str, sides: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return images [2, H, W, 5] with this kind of ties or special values."""
    shape = (2, *sides, 5)
    x = rng.normal(size=shape)
    if kind == "ties of zeros":
        return np.maximum(x - 1, 0)
    if kind == "few values":
        return rng.integers(-1, 2, size=shape).astype(float)
    if kind == "all equal":
        return np.full(shape, -3.0)
    specials = {"NaN": [np.nan], "-inf": [-np.inf], "NaN and inf": [np.nan, np.inf, -np.inf]}
    chosen = rng.random(shape) < 0.4
    chosen[0, :3, :3] = True  # a window with nothing else
    return np.where(chosen, rng.choice(specials[kind], shape), x) if kind in specials else x


def _torch_max(x: torch.Tensor, window: Window) -> torch.Tensor:
    return F.max_pool2d(x, *window[:3], ceil_mode=window.round_up)


def _reference(
    function: Callable[..., torch.Tensor], images: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, ...]:
    """Return PyTorch's values, a gradient for them, and the images' gradients."""
    x = as_nchw(images).requires_grad_()
    y = function(x)
    # Whole numbers add up without rounding where windows overlap, so bits can be compared.
    grad = rng.integers(-8, 9, size=as_nhwc(y).shape).astype(images.dtype)
    return as_nhwc(y), grad, as_nhwc(torch.autograd.grad(y, x, as_nchw(grad))[0])


def _value_and_gradient(function: Callable[..., Any], x: Any, grad: Any) -> tuple[Any, Any]:
    out, pullback = jax.vjp(function, x)
    return out, *pullback(grad)


@pytest.mark.parametrize(
    ("sides", "dtype"), [*((sides, "float64") for sides in SIDES), ((13, 10), "float32")], ids=str
)
def test_values_and_gradients(sides, dtype, rng):
    reference, maximum = partial(_torch_max, window=Window()), partial(ops.pool, pool=Pool())
    pool, pool_and_gradient = jax.jit(maximum), jax.jit(partial(_value_and_gradient, maximum))
    for kind in KINDS:
        images = _images(kind, sides, rng).astype(dtype)
        expected, grad, expected_grad = _reference(reference, images, rng)
        pooled, actual_grad = pool_and_gradient(images, grad)
        np.testing.assert_array_equal(pooled, expected, kind)
        np.testing.assert_array_equal(pool(images), expected, f"{kind}, no gradient")
        np.testing.assert_array_equal(actual_grad, expected_grad, kind)


def _torch_average(x: torch.Tensor, window: Window, count: bool) -> torch.Tensor:
    options = {"ceil_mode": window.round_up, "count_include_pad": count}
    return F.avg_pool2d(x, *window[:3], **options)


@partial(jax.jit, static_argnums=0)
def _all_pools(window: Window, images: Any, grad: Any, to_average: Any, of_average: Any) -> Any:
    """Return values and gradients of the max and of both averages, in one program."""

    def run(pool: Pool, x: Any, grad: Any) -> tuple[Any, Any]:
        return _value_and_gradient(partial(ops.pool, pool=pool), x, grad)

    averages = (Pool("average", *window, count) for count in (False, True))
    return [
        run(Pool("max", *window), images, grad),
        *(run(average, to_average, of_average) for average in averages),
    ]


def _check_any_pool(window: Window, sides: tuple[int, int], precision: Precision) -> bool:
    """Assert that both frameworks agree on a pool, and return whether it fits the sides."""
    rng = np.random.default_rng([*window, *sides])
    try:
        _torch_max(torch.zeros(1, *sides), window)
    except RuntimeError:
        for way in (ops.FAST, ops.PLAIN):
            with pytest.raises(UserError, match=r"too small for a pool|at most half the size"):
                way.pool(jnp.zeros((1, *sides, 1)), Pool("max", *window))
        return False
    positive = rng.uniform(0.5, 1, size=(2, *sides, 5)).astype(precision)  # nothing cancels
    for kind in KINDS:
        images = _images(kind, sides, rng).astype(precision)
        expected, grad, expected_grad = _reference(partial(_torch_max, window=window), images, rng)
        maximum, *averages = _all_pools(window, images, grad, positive, abs(grad))
        np.testing.assert_array_equal(maximum[0], expected, kind)
        np.testing.assert_array_equal(maximum[1], expected_grad, kind)
    for count, average in zip((False, True), averages, strict=True):
        x = as_nchw(positive).requires_grad_()
        y = _torch_average(x, window, count)
        (expected_grad,) = torch.autograd.grad(y, x, as_nchw(abs(grad)))
        assert_close(average[0], as_nhwc(y), AVERAGE[precision], f"average, {count}")
        assert_close(average[1], as_nhwc(expected_grad), AVERAGE[precision], f"gradient, {count}")
    return True


@pytest.mark.parametrize("examples", [10, pytest.param(150, marks=pytest.mark.slow)])
def test_any_pool(examples):
    fits = []

    @random_cases(examples)
    @given(
        st.builds(
            Window, st.integers(2, 5), st.integers(1, 3), st.integers(0, 2), st.booleans()
        ).filter(lambda window: 2 * window.padding <= window.size),
        st.tuples(st.integers(1, 12), st.integers(1, 12)),
        st.sampled_from(["float32", "float64"]),
    )
    @example(Window(3, 2, 1, True), (8, 7), "float32")
    @example(Window(2, 2, 1, True), (5, 4), "float64")  # a window behind the map is left out
    @example(Window(3, 2, 0, True), (2, 1), "float32")  # the window is larger than the map
    @example(Window(3, 1, 2, False), (7, 6), "float32")  # more than half of the window is padding
    @example(Window(2, 3, 0, True), (7, 6), "float64")  # pixels between windows
    @example(Window(9, 2, 4, True), (13, 12), "float32")  # in two passes
    def run(window, sides, precision) -> None:
        fits.append(_check_any_pool(window, sides, precision))

    run()
    assert sum(fits) >= examples // 2, "too few pools fit"
    assert not all(fits), "no pool was refused"


def test_a_window_of_ties_sends_its_gradient_to_the_first():
    x = np.zeros((1, 3, 3, 1), np.float32)
    gradient = np.asarray(jax.grad(lambda x: ops.pool(x, Pool()).sum())(x))
    assert gradient.ravel().tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0]
    reference = as_nchw(x).requires_grad_()
    F.max_pool2d(reference, 3, 2).sum().backward()
    assert reference.grad is not None
    np.testing.assert_array_equal(gradient.ravel(), as_array(reference.grad).ravel())


@pytest.mark.parametrize("kind", ["max", "average"])
def test_any_batch_and_a_map_over_examples(kind, rng):
    """A symbolic batch, an empty one, in a loop, and each example by itself."""
    pool = Pool(kind, padding=1, round_up=True)
    value_and_gradient = partial(_value_and_gradient, partial(ops.pool, pool=pool))

    def loop(x, grad):
        return jax.lax.scan(lambda _, pair: (None, value_and_gradient(*pair)), None, (x, grad))[1]

    (b,) = jax.export.symbolic_shape("b")
    shapes = (jax.ShapeDtypeStruct((b, *sides, 2), jnp.float64) for sides in ((6, 5), (4, 3)))
    exported = jax.export.export(jax.jit(value_and_gradient))(*shapes)
    x, grad = rng.normal(size=(2, 3, 6, 5, 2)), rng.normal(size=(2, 3, 4, 3, 2))
    expected = [exported.call(*pair) for pair in zip(x, grad, strict=True)]
    for each in (jax.vmap(value_and_gradient), loop):
        for actual, *wanted in zip(jax.jit(each)(x, grad), *expected, strict=True):
            np.testing.assert_array_equal(actual, np.stack(wanted))
    empty = jax.jit(value_and_gradient)(x[0, :0], grad[0, :0])
    assert [array.shape for array in empty] == [(0, 4, 3, 2), (0, 6, 5, 2)]


@pytest.mark.parametrize("size", [3, 16])  # a wide window takes two passes
def test_averages_in_bfloat16_are_rounded_once(rng, size):
    images = jnp.asarray(rng.uniform(0.5, 1, size=(2, size + 3, size + 3, 5)), jnp.bfloat16)
    pool = partial(ops.pool, pool=Pool("average", size=size, stride=1))
    average = jax.jit(partial(_value_and_gradient, pool))
    grad = jnp.asarray(rng.uniform(0.5, 1, size=(2, 4, 4, 5)), jnp.bfloat16)
    actual = average(images, grad)
    expected = average(images.astype(jnp.float32), grad.astype(jnp.float32))
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == jnp.bfloat16
        np.testing.assert_array_equal(a, e.astype(jnp.bfloat16))
