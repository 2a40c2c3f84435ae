"""Max pooling with a gradient that is fast on every platform; see `ops`."""

from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nin_jax.models.derivatives import linear


def max_pool(x: jax.Array) -> jax.Array:
    """Return the maximum of 3x3 windows with stride 2, without padding.

    If several elements of a window are its maximum, the gradient goes to the first in row order,
    as in PyTorch. After ReLU, many windows have only zeros, so this rule matters.

    Args:
        x: float [B, H, W, C] with H, W >= 3.

    Returns:
        float [B, (H - 3) // 2 + 1, (W - 3) // 2 + 1, C].
    """
    return _max_pool(x)


@jax.custom_jvp
def _max_pool(x: jax.Array) -> jax.Array:
    return _window_maximum(x)


@_max_pool.defjvp
def _max_pool_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (x,), (dx,) = primals, tangents
    y = _max_pool(x)
    # Which element is the maximum does not change with x, except at ties.
    return y, linear(_pool_of_tangents, _pool_gradient, lax.stop_gradient((x, y)), dx, y)


def _pool_of_tangents(x: jax.Array, y: jax.Array, dx: jax.Array) -> jax.Array:
    """Return the tangent of each window's maximum: [B, H', W', C]."""
    winner = _first_maximum(x, y)
    dy = jnp.zeros_like(y)
    for t, tap in enumerate(_pool_taps(dx)):
        dy = jnp.where(winner == t, tap, dy)
    return dy


def _window_maximum(x: jax.Array) -> jax.Array:
    # Reads memory once; XLA's reduce_window takes 1.6 times as long on a CPU.
    return reduce(jnp.maximum, _pool_taps(x))


def _pool_taps(x: jax.Array) -> list[jax.Array]:
    """Return the nine elements of all windows, in row order: each [B, H', W', C]."""
    height, width = ((side - 3) // 2 + 1 for side in x.shape[1:3])
    return [
        x[:, i : i + 2 * height - 1 : 2, j : j + 2 * width - 1 : 2]
        for i in range(3)
        for j in range(3)
    ]


def _pool_gradient(x: jax.Array, y: jax.Array, grad: jax.Array) -> jax.Array:
    """Sum, for each input pixel, the gradients of the one, two or four windows that contain it.

    XLA's select-and-scatter searches every window again and takes 8 times as long on a CPU. The
    barriers separate the two passes: fused, XLA would compute each winner again for every pixel
    that uses it.
    """
    winner = lax.optimization_barrier(_first_maximum(x, y))
    height, width = y.shape[1:3]
    rows, columns = -(-x.shape[1] // 2), -(-x.shape[2] // 2)  # in pairs
    # Windows without a winner around the map, so that every pixel has a window on each side.
    frame = ((0, 0), (1, rows - height), (1, columns - width), (0, 0))
    winner = jnp.pad(winner, frame, constant_values=-1)
    winner, grad = lax.optimization_barrier((winner, jnp.pad(grad, frame)))

    def share(i: int, j: int) -> jax.Array:
        """Return the gradient of pixels that are tap (i, j) of a window: [B, rows, columns, C]."""
        window = (slice(None), slice(1 - i // 2, rows + 1 - i // 2))
        window += (slice(1 - j // 2, columns + 1 - j // 2),)
        return jnp.where(winner[window] == 3 * i + j, grad[window], 0)

    # By the parity of row and column; windows in the order in which PyTorch adds them.
    even_even = share(2, 2) + share(2, 0) + share(0, 2) + share(0, 0)
    even_odd, odd_even = share(2, 1) + share(0, 1), share(1, 2) + share(1, 0)
    even = jnp.stack([even_even, even_odd], axis=3)  # [B, rows, columns, 2, C]
    odd = jnp.stack([odd_even, share(1, 1)], axis=3)
    both = jnp.stack([even, odd], axis=2)  # [B, rows, 2, columns, 2, C]
    dx = both.reshape(x.shape[0], 2 * rows, 2 * columns, x.shape[3])
    return dx[:, : x.shape[1], : x.shape[2]]


def _first_maximum(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the index in 0..8 of each window's maximum y: int32 [B, H', W', C].

    This is the first element equal to y or, as in PyTorch, the last NaN. With 32 bits, as many as
    the compared values have, the processor compares and selects 16 values at a time.
    """
    taps = _pool_taps(x)
    winner = jnp.zeros(y.shape, jnp.int32)
    for t, tap in reversed(list(enumerate(taps))):
        winner = jnp.where(tap == y, t, winner)
    for t, tap in enumerate(taps):
        winner = jnp.where(jnp.isnan(tap), t, winner)
    return winner


def plain_max_pool(x: jax.Array) -> jax.Array:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")
