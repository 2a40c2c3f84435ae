"""Forward mode and second derivatives of the fast operations, against XLA's own operations."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import nin_jax
from nin_jax import Pool, Stage, Variant
from nin_jax.models import ops
from nin_jax.models.nin import with_operations
from parity_tests.frameworks import assert_close
from parity_tests.tolerances import CONV, GRADIENT

Function = Callable[..., jax.Array]

CONVS = [  # (height, width, channels, kernel, outputs, stride, padding)
    (9, 12, 3, 5, 4, 2, 1),
    (6, 9, 2, 3, 4, 1, 5),
    (7, 12, 32, 3, 33, 1, 1),  # by Winograd
    (3, 2, 3, 3, 4, 1, 1),  # of a small map
]
WIDE = Variant("wide", stages=(Stage(32, 5, stride=2, padding=2), Stage(33, 3, padding=1)))


def _conv(case: tuple[int, ...]) -> tuple[Function, Function, list[jax.Array]]:
    height, width, channels, size, outputs, stride, padding = case
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, height, width, channels))
    kernel = rng.normal(size=(size, size, channels, outputs)) / size
    fast, plain = (
        lambda x, kernel, way=way: way.conv(x, kernel, stride, padding)
        for way in (ops.FAST, ops.PLAIN)
    )
    return fast, plain, [jnp.asarray(x), jnp.asarray(kernel)]


def _pool(kind: Any) -> tuple[Function, Function, list[jax.Array]]:
    x = np.random.default_rng(0).normal(size=(2, 9, 10, 3))
    pool = Pool(kind, padding=1, round_up=True)
    fast, plain = (partial(way.pool, pool=pool) for way in (ops.FAST, ops.PLAIN))
    return fast, plain, [jnp.maximum(x, 0)]  # many ties


def _derivatives(function: Function, arrays: list[jax.Array]) -> dict[str, Any]:
    """Return derivatives of every order and mode, in directions that are the same each time."""
    places = tuple(range(len(arrays)))
    rng = np.random.default_rng(1)
    along = tuple(jnp.asarray(rng.normal(size=a.shape)) for a in arrays)

    def loss(*arrays):
        return jnp.sin(function(*arrays)).sum()

    def slope(*arrays):
        return sum(map(jnp.vdot, jax.grad(loss, places)(*arrays), along))

    gradient = jax.grad(loss, places)
    return {
        "forward": jax.jvp(function, tuple(arrays), along)[1],
        "reverse": gradient(*arrays),
        "forward over reverse": jax.jvp(gradient, tuple(arrays), along)[1],
        "reverse over forward": jax.grad(lambda *a: jax.jvp(loss, a, along)[1], places)(*arrays),
        "reverse over reverse": jax.grad(slope, places)(*arrays),
    }


def _assert_same(actual: Any, expected: Any, bound: float) -> None:
    paths = jax.tree_util.tree_leaves_with_path(actual)
    for (path, a), e in zip(paths, jax.tree.leaves(expected), strict=True):
        assert_close(np.asarray(a), np.asarray(e), bound, jax.tree_util.keystr(path))


# The first convolution is in the next test, for each example.
@pytest.mark.parametrize("operation", [*CONVS[1:], "max", "average"], ids=str)
def test_every_mode(operation):
    fast, plain, arrays = _pool(operation) if isinstance(operation, str) else _conv(operation)
    actual, expected = (jax.jit(partial(_derivatives, f))(arrays) for f in (fast, plain))
    _assert_same(actual, expected, CONV)


@pytest.mark.parametrize(
    "axes",
    [(0, 0), *(pytest.param(a, marks=pytest.mark.slow) for a in [(0, None), (None, 0)])],
    ids=str,
)
def test_every_mode_for_each_example(axes):
    fast, plain, arrays = _conv(CONVS[0])
    arrays = [
        a if axis is None else jnp.stack([a, 2 * a, -a])
        for a, axis in zip(arrays, axes, strict=True)
    ]

    def mapped(function):
        each = jax.vmap(lambda *a: _derivatives(function, list(a)), axes)
        return jax.jit(lambda *a: (each(*a), _derivatives(jax.vmap(function, axes), list(a))))

    _assert_same(mapped(fast)(*arrays), mapped(plain)(*arrays), CONV)


@pytest.mark.slow
def test_a_network_in_forward_mode():
    """The tangent of the logits, and a Hessian-vector product of the parameters."""
    model = nin_jax.create_model(
        WIDE,
        image_size=24,
        init="he",
        dtype=jnp.float64,
        param_dtype=jnp.float64,
    )
    x = jnp.asarray(np.random.default_rng(0).random((2, *model.image_size, 1)))

    def derivatives(model):
        graphdef, params = nnx.split(model, nnx.Param)

        def loss(params):
            return jnp.sin(nnx.merge(graphdef, params)(x)).sum()

        along = jax.tree.map(jnp.cos, params)
        tangent = jax.jvp(model, (x,), (jnp.cos(x),))[1]
        return tangent, jax.jvp(jax.grad(loss), (params,), (along,))[1]

    plain = with_operations(model, ops.PLAIN)
    actual, expected = (jax.jit(partial(derivatives, m))() for m in (model, plain))
    _assert_same(actual, expected, GRADIENT["float64"])
