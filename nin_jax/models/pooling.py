"""Max and average pooling with gradients that are fast on every platform; see `ops`."""

from functools import partial, reduce
from operator import add
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nin_jax.models.derivatives import linear
from nin_jax.models.stages import Pool
from nin_jax.models.windows import Windows


def pool(x: jax.Array, pool: Pool) -> jax.Array:
    """Return the maximum or the mean of each window.

    Pixels of the padding are never a maximum. If several elements of a window are its maximum, the
    gradient goes to the first in row order, as in PyTorch. After ReLU, many windows have only
    zeros, so this rule matters. The maximum of a window with NaN is NaN, and its gradient goes to
    the last NaN.

    float16 and bfloat16 are averaged in float32 and rounded once. An average never divides by the
    pixels behind the padding's edge, which ``round_up`` adds.

    Args:
        x: float [B, H, W, C].
        pool: the kind and the windows.

    Returns:
        float [B, H', W', C], with the sides that `geometry.pooled_side` gives.

    Raises:
        UserError: no window fits.
    """
    passes, dtype = Windows.of(x, pool).passes(), x.dtype
    if pool.kind == "average" and len(passes) > 1:
        x = _wide(x)
    for windows in passes:
        x = _max_pool(windows, x) if pool.kind == "max" else _avg_pool(windows, x)
    return x.astype(dtype)


def _avg_pool(windows: Windows, x: jax.Array) -> jax.Array:
    out = jax.ShapeDtypeStruct((x.shape[0], *windows.counts, x.shape[3]), x.dtype)
    return linear(partial(_means, windows), partial(_shares, windows), (), x, out)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _max_pool(windows: Windows, x: jax.Array) -> jax.Array:
    # Reads memory once; XLA's reduce_window takes 1.6 times as long on a CPU.
    return reduce(jnp.maximum, windows.taps(x, -jnp.inf))


@_max_pool.defjvp
def _max_pool_jvp(windows: Windows, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (x,), (dx,) = primals, tangents
    y = _max_pool(windows, x)
    # Which element is the maximum does not change with x, except at ties.
    functions = partial(_pool_of_tangents, windows), partial(_pool_gradient, windows)
    return y, linear(*functions, lax.stop_gradient((x, y)), dx, y)


def _pool_of_tangents(windows: Windows, x: jax.Array, y: jax.Array, dx: jax.Array) -> jax.Array:
    """Return the tangent of each window's maximum: [B, H', W', C]."""
    winner = _first_maximum(windows, x, y)
    dy = jnp.zeros_like(y)
    for t, tap in enumerate(windows.taps(dx, 0)):
        dy = jnp.where(winner == t, tap, dy)
    return dy


def _pool_gradient(windows: Windows, x: jax.Array, y: jax.Array, grad: jax.Array) -> jax.Array:
    """Sum, for each input pixel, the gradients of the windows whose maximum it is.

    XLA's select-and-scatter searches every window again and takes 8 times as long on a CPU. The
    barriers separate the two passes: fused, XLA would compute each winner again for every pixel
    that uses it.
    """
    winner = lax.optimization_barrier(_first_maximum(windows, x, y))
    return windows.collect(
        lambda t, winner, grad: jnp.where(winner == t, grad, 0), (winner, -1), (grad, 0)
    )


def _first_maximum(windows: Windows, x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the index of each window's maximum y among its taps: int32 [B, H', W', C].

    This is the first element equal to y or, as in PyTorch, the last NaN. With 32 bits, as many as
    the compared values have, the processor compares and selects 16 values at a time.
    """
    taps = windows.taps(x, -jnp.inf)
    winner = jnp.zeros(y.shape, jnp.int32)
    for t, tap in reversed(list(enumerate(taps))):
        winner = jnp.where(tap == y, t, winner)
    if any(windows.padding):  # which equals a maximum of -inf
        rows, columns = (np.maximum(0, -starts) for starts in windows.starts)
        first_pixel = (windows.size[1] * rows[:, None] + columns)[None, :, :, None]
        winner = jnp.where(y == -jnp.inf, first_pixel.astype(np.int32), winner)
    for t, tap in enumerate(taps):
        winner = jnp.where(jnp.isnan(tap), t, winner)
    return winner


def _means(windows: Windows, x: jax.Array) -> jax.Array:
    """Return the windows' means: [B, H', W', C]."""
    taps = [_wide(tap) for tap in windows.taps(x, 0)]
    return (reduce(add, taps) / _divisors(windows).astype(taps[0].dtype)).astype(x.dtype)


def _shares(windows: Windows, grad: jax.Array) -> jax.Array:
    """Return the pixels' gradients, the transpose of `_means`: [B, H, W, C]."""
    share = _wide(grad)
    share /= _divisors(windows).astype(share.dtype)
    return windows.collect(lambda t, share: share, (share, 0)).astype(grad.dtype)


def _divisors(windows: Windows) -> np.ndarray:
    """Return the numbers of pixels by which the windows' sums are divided.

    They are [1, H', W', 1], where an axis along which they are all equal has length 1.
    """
    edges = windows.padding if windows.count_padding else (0, 0)
    axes = zip(windows.starts, windows.size, windows.sides, edges, strict=True)
    rows, columns = (
        np.minimum(starts + size, side + edge) - np.maximum(starts, -edge)
        for starts, size, side, edge in axes
    )
    rows, columns = (sides if np.ptp(sides) else sides[:1] for sides in (rows, columns))
    return (rows[:, None] * columns)[None, :, :, None]


def _wide(x: jax.Array) -> jax.Array:
    """Return x in float32 if it has fewer bits, where a sum of a few values would lose digits."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def plain_pool(x: jax.Array, pool: Pool) -> jax.Array:
    """Return `pool` by one XLA operation, and a division for a mean, with their own gradients."""
    windows = Windows.of(x, pool)
    over = (1, *windows.size, 1), (1, *windows.stride, 1), windows.pads
    if pool.kind == "max":
        return lax.reduce_window(x, -jnp.inf, lax.max, *over)
    return lax.reduce_window(x, 0.0, lax.add, *over) / _divisors(windows).astype(x.dtype)
