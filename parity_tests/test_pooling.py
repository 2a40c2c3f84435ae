"""Max pooling: values and gradients with PyTorch's bits, also for ties, NaN and infinities."""

import jax
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere

from nin_jax.models import ops
from parity_tests.frameworks import as_array, as_nchw, as_nhwc

SIDES = [(3, 3), (4, 4), (5, 7), (8, 6), (3, 12), (54, 41)]
KINDS = ["ties of zeros", "few values", "all equal", "distinct", "NaN", "-inf", "NaN and inf"]


def _images(kind: str, sides: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
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


@pytest.mark.parametrize(
    ("sides", "dtype"), [*((sides, "float64") for sides in SIDES), ((13, 10), "float32")], ids=str
)
def test_values_and_gradients(sides, dtype, rng):
    pool = jax.jit(ops.max_pool)
    pool_and_gradient = jax.jit(lambda x, grad: _value_and_gradient(ops.max_pool, x, grad))
    for kind in KINDS:
        images = _images(kind, sides, rng).astype(dtype)
        reference = as_nchw(images).requires_grad_()
        expected = F.max_pool2d(reference, 3, 2)
        # Whole numbers add up without rounding where windows overlap, so bits can be compared.
        grad = rng.integers(-8, 9, size=as_nhwc(expected).shape).astype(dtype)
        (expected_grad,) = torch.autograd.grad(expected, reference, as_nchw(grad))
        pooled, actual_grad = pool_and_gradient(images, grad)
        np.testing.assert_array_equal(pooled, as_nhwc(expected), kind)
        np.testing.assert_array_equal(pool(images), as_nhwc(expected), f"{kind}, no gradient")
        np.testing.assert_array_equal(actual_grad, as_nhwc(expected_grad), kind)


def _value_and_gradient(function, x, grad):
    out, pullback = jax.vjp(function, x)
    return out, *pullback(grad)


def test_a_window_of_ties_sends_its_gradient_to_the_first():
    x = np.zeros((1, 3, 3, 1), np.float32)
    gradient = np.asarray(jax.grad(lambda x: ops.max_pool(x).sum())(x))
    assert gradient.ravel().tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0]
    reference = as_nchw(x).requires_grad_()
    F.max_pool2d(reference, 3, 2).sum().backward()
    assert reference.grad is not None
    np.testing.assert_array_equal(gradient.ravel(), as_array(reference.grad).ravel())
