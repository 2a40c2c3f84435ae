"""Max and average pooling with gradients that are fast on every platform; see `ops`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nin_jax.errors import UserError
from nin_jax.models.derivatives import linear
from nin_jax.models.geometry import pooled_side


def max_pool(
    x: jax.Array, size: int = 3, stride: int = 2, padding: int = 0, round_up: bool = False
) -> jax.Array:
    """Return the maximum of each window; pixels of the padding are never one.

    If several elements of a window are its maximum, the gradient goes to the first in row order,
    as in PyTorch. After ReLU, many windows have only zeros, so this rule matters. The maximum of a
    window with NaN is NaN, and its gradient goes to the last NaN.

    Args:
        x: float [B, H, W, C].
        size: side of the square windows.
        stride: of rows and columns.
        padding: pixels on each side, at most half of the size.
        round_up: whether windows may reach over the padding's edge, to cover the last pixels.

    Returns:
        float [B, H', W', C], with the sides that `geometry.pooled_side` gives.

    Raises:
        UserError: no window fits, or the padding is more than half of the size.
    """
    return _max_pool(_Windows(x.shape[1:3], size, stride, padding, round_up), x)


def avg_pool(
    x: jax.Array,
    size: int = 3,
    stride: int = 2,
    padding: int = 0,
    round_up: bool = False,
    count_padding: bool = True,
) -> jax.Array:
    """Return the mean of each window.

    float16 and bfloat16 are summed in float32.

    Args:
        x, size, stride, padding, round_up: as for `max_pool`; the padding is zeros.
        count_padding: whether the number of pixels includes those of the padding. Those behind its
            edge, which ``round_up`` adds, never count.

    Returns:
        float [B, H', W', C], with the sides that `geometry.pooled_side` gives.

    Raises:
        UserError: no window fits, or the padding is more than half of the size.
    """
    means = _Means(x.shape[1:3], size, stride, padding, round_up, count_padding)
    out = jax.ShapeDtypeStruct((x.shape[0], *means.counts, x.shape[3]), x.dtype)
    return linear(means.of, means.transpose, (), x, out)


@dataclass(frozen=True)
class _Windows:
    """The windows of a pool on maps of one size.

    Attributes:
        sides: (H, W) of the maps.
        size, stride, padding, round_up: of the pool.
    """

    sides: tuple[int, ...]
    size: int
    stride: int
    padding: int
    round_up: bool

    def __post_init__(self) -> None:
        if 2 * self.padding > self.size:
            raise UserError(
                f"a pool's padding must be at most half of its size {self.size}, got {self.padding}"
            )
        if min(self.counts) < 1:
            height, width = self.sides
            raise UserError(f"a map of {height}x{width} is too small for a pool of {self.size}")

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers of windows: (H', W')."""
        options = self.size, self.stride, self.padding, self.round_up
        return tuple(pooled_side(side, *options) for side in self.sides)

    @property
    def starts(self) -> list[np.ndarray]:
        """The first row of each window [H'], and the first column [W']; negative in the padding."""
        return [np.arange(count) * self.stride - self.padding for count in self.counts]

    @property
    def pads(self) -> list[tuple[int, int]]:
        """The pixels that windows need before and behind each axis of [B, H, W, C]."""
        ends = [int(starts[-1]) + self.size for starts in self.starts]
        behind = [max(0, end - side) for end, side in zip(ends, self.sides, strict=True)]
        return [(0, 0), *((self.padding, pad) for pad in behind), (0, 0)]

    def taps(self, x: jax.Array, outside: float) -> list[jax.Array]:
        """Return the elements of all windows, in row order: each [B, H', W', C]."""
        if any(map(any, self.pads)):
            # The barrier makes a copy: fused, XLA would test for the border in every tap.
            x = lax.optimization_barrier(jnp.pad(x, self.pads, constant_values=outside))
        height, width = (self.stride * (count - 1) + 1 for count in self.counts)
        return [
            x[:, i : i + height : self.stride, j : j + width : self.stride]
            for i in range(self.size)
            for j in range(self.size)
        ]

    def collect(self, share: Callable[..., jax.Array], *arrays: tuple[jax.Array, Any]) -> jax.Array:
        """Sum, for each pixel, its shares of the windows that contain it: [B, H, W, C].

        Args:
            share: returns what the windows give to their tap t, from t and a part of each array.
            arrays: each [B, H', W', C] with a value for each window, and the value where there is
                no window.
        """
        stride, before = self.stride, (self.size - 1) // self.stride
        rows, columns = (-(-(self.padding + side) // stride) for side in self.sides)  # of blocks
        # A frame around the windows, so that every block of stride x stride pixels has, on each
        # side, as many windows as may contain it.
        height, width = self.counts
        frame = ((0, 0), (before, rows - height), (before, columns - width), (0, 0))
        framed = [jnp.pad(array, frame, constant_values=value) for array, value in arrays]
        framed = lax.optimization_barrier(framed)

        def pixels(a: int, b: int) -> jax.Array:
            """Return the sums of the pixels (a, b) of all blocks: [B, rows, columns, C]."""
            shares = []
            for i in range(a, self.size, stride)[::-1]:  # in the order in which PyTorch adds them
                for j in range(b, self.size, stride)[::-1]:
                    first_row, first_column = before - i // stride, before - j // stride
                    rows_of = slice(first_row, first_row + rows)
                    columns_of = slice(first_column, first_column + columns)
                    parts = [array[:, rows_of, columns_of] for array in framed]
                    shares.append(share(self.size * i + j, *parts))
            if shares:
                return reduce(add, shares)
            part = framed[-1][:, :rows, :columns]  # pixels between windows
            return jnp.zeros_like(part)

        by_row = [jnp.stack([pixels(a, b) for b in range(stride)], axis=3) for a in range(stride)]
        blocks = jnp.stack(by_row, axis=2)  # [B, rows, stride, columns, stride, C]
        batch, channels = blocks.shape[0], blocks.shape[-1]
        dx = blocks.reshape(batch, rows * stride, columns * stride, channels)
        height, width = (self.padding + side for side in self.sides)
        return dx[:, self.padding : height, self.padding : width]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _max_pool(windows: _Windows, x: jax.Array) -> jax.Array:
    # Reads memory once; XLA's reduce_window takes 1.6 times as long on a CPU.
    return reduce(jnp.maximum, windows.taps(x, -jnp.inf))


@_max_pool.defjvp
def _max_pool_jvp(windows: _Windows, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (x,), (dx,) = primals, tangents
    y = _max_pool(windows, x)
    # Which element is the maximum does not change with x, except at ties.
    functions = partial(_pool_of_tangents, windows), partial(_pool_gradient, windows)
    return y, linear(*functions, lax.stop_gradient((x, y)), dx, y)


def _pool_of_tangents(windows: _Windows, x: jax.Array, y: jax.Array, dx: jax.Array) -> jax.Array:
    """Return the tangent of each window's maximum: [B, H', W', C]."""
    winner = _first_maximum(windows, x, y)
    dy = jnp.zeros_like(y)
    for t, tap in enumerate(windows.taps(dx, 0)):
        dy = jnp.where(winner == t, tap, dy)
    return dy


def _pool_gradient(windows: _Windows, x: jax.Array, y: jax.Array, grad: jax.Array) -> jax.Array:
    """Sum, for each input pixel, the gradients of the windows whose maximum it is.

    XLA's select-and-scatter searches every window again and takes 8 times as long on a CPU. The
    barriers separate the two passes: fused, XLA would compute each winner again for every pixel
    that uses it.
    """
    winner = lax.optimization_barrier(_first_maximum(windows, x, y))
    return windows.collect(
        lambda t, winner, grad: jnp.where(winner == t, grad, 0), (winner, -1), (grad, 0)
    )


def _first_maximum(windows: _Windows, x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the index of each window's maximum y among its taps: int32 [B, H', W', C].

    This is the first element equal to y or, as in PyTorch, the last NaN. With 32 bits, as many as
    the compared values have, the processor compares and selects 16 values at a time.
    """
    taps = windows.taps(x, -jnp.inf)
    winner = jnp.zeros(y.shape, jnp.int32)
    for t, tap in reversed(list(enumerate(taps))):
        winner = jnp.where(tap == y, t, winner)
    if windows.padding:  # which equals a maximum of -inf
        rows, columns = (np.maximum(0, -starts) for starts in windows.starts)
        first_pixel = (windows.size * rows[:, None] + columns)[None, :, :, None]
        winner = jnp.where(y == -jnp.inf, first_pixel.astype(np.int32), winner)
    for t, tap in enumerate(taps):
        winner = jnp.where(jnp.isnan(tap), t, winner)
    return winner


@dataclass(frozen=True)
class _Means(_Windows):
    """The means of windows, a linear function, and its transpose.

    Attributes:
        count_padding: as for `avg_pool`.
    """

    count_padding: bool

    @property
    def pixels(self) -> np.ndarray:
        """The numbers of pixels by which the windows' sums are divided.

        They are [1, H', W', 1], where an axis along which they are all equal has length 1.
        """
        edge = self.padding if self.count_padding else 0
        rows, columns = (
            np.minimum(starts + self.size, side + edge) - np.maximum(starts, -edge)
            for starts, side in zip(self.starts, self.sides, strict=True)
        )
        rows, columns = (sides if np.ptp(sides) else sides[:1] for sides in (rows, columns))
        return (rows[:, None] * columns)[None, :, :, None]

    def of(self, x: jax.Array) -> jax.Array:
        """Return the means: [B, H', W', C]."""
        taps = [_wide(tap) for tap in self.taps(x, 0)]
        return (reduce(add, taps) / self.pixels.astype(taps[0].dtype)).astype(x.dtype)

    def transpose(self, grad: jax.Array) -> jax.Array:
        """Return the pixels' gradients: [B, H, W, C]."""
        share = _wide(grad)
        share /= self.pixels.astype(share.dtype)
        return self.collect(lambda t, share: share, (share, 0)).astype(grad.dtype)


def _wide(x: jax.Array) -> jax.Array:
    """Return x in float32 if it has fewer bits, where a sum of a few values would lose digits."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def plain_max_pool(
    x: jax.Array, size: int = 3, stride: int = 2, padding: int = 0, round_up: bool = False
) -> jax.Array:
    """Return `max_pool` by one XLA operation, with its own gradient."""
    windows = _Windows(x.shape[1:3], size, stride, padding, round_up)
    return _plain_reduction(windows, x, lax.max, -jnp.inf)


def plain_avg_pool(
    x: jax.Array,
    size: int = 3,
    stride: int = 2,
    padding: int = 0,
    round_up: bool = False,
    count_padding: bool = True,
) -> jax.Array:
    """Return `avg_pool` by one XLA operation and a division, with their own gradients."""
    means = _Means(x.shape[1:3], size, stride, padding, round_up, count_padding)
    return _plain_reduction(means, x, lax.add, 0.0) / means.pixels.astype(x.dtype)


def _plain_reduction(windows: _Windows, x: jax.Array, operation: Any, start: float) -> jax.Array:
    size, stride = windows.size, windows.stride
    window, strides = (1, size, size, 1), (1, stride, stride, 1)
    return lax.reduce_window(x, start, operation, window, strides, windows.pads)
