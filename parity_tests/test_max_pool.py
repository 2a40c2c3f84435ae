"""Max pooling: values and gradients bit-equal to PyTorch's, ties, NaN and infinities included."""

import jax
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere

from nin_jax.models import ops
from parity_tests.frameworks import as_array, as_nchw, as_nhwc

SIDES = [(3, 3), (4, 4), (5, 7), (8, 6), (3, 12), (13, 10), (54, 54), (55, 41)]
KINDS = ["ties of zeros", "few values", "all equal", "distinct", "NaN", "-inf", "NaN and inf"]


def _images(kind: str, sides: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """[2, H, W, 5] with the ties or special values in question."""
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
    chosen[0, :3, :3] = True  # a window of nothing else
    return np.where(chosen, rng.choice(specials[kind], shape), x) if kind in specials else x


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sides", SIDES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients(kind, sides, dtype, rng):
    images = _images(kind, sides, rng).astype(dtype)
    reference = as_nchw(images).requires_grad_()
    expected = F.max_pool2d(reference, 3, 2)
    # Whole numbers: overlapping windows add up without rounding, so equality can be asked for.
    grad = rng.integers(-8, 9, size=as_nhwc(expected).shape).astype(dtype)
    (expected_grad,) = torch.autograd.grad(expected, reference, as_nchw(grad))

    pooled, pullback = jax.vjp(jax.jit(ops.max_pool), images)
    np.testing.assert_array_equal(pooled, as_nhwc(expected))
    np.testing.assert_array_equal(ops.max_pool(images), as_nhwc(expected), "without a gradient")
    np.testing.assert_array_equal(pullback(grad)[0], as_nhwc(expected_grad))


def test_a_window_of_ties_sends_its_gradient_to_the_first():
    x = np.zeros((1, 3, 3, 1), np.float32)
    gradient = np.asarray(jax.grad(lambda x: ops.max_pool(x).sum())(x))
    assert gradient.ravel().tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0]
    reference = as_nchw(x).requires_grad_()
    F.max_pool2d(reference, 3, 2).sum().backward()
    assert reference.grad is not None
    np.testing.assert_array_equal(gradient.ravel(), as_array(reference.grad).ravel())
