"""Convolutions of stride 1 with fewer products: Winograd's minimal filtering, along the rows.

A tile of m neighbouring outputs of a row needs m K products a channel and kernel row when they are
taken one by one, and m + K - 1 when taken together (Lavin and Gray, "Fast Algorithms for
Convolutional Neural Networks", 2016, eq. 8)::

    y = A^T ((G g) * (B^T d))        g: K taps, d: m + K - 1 inputs, y: m outputs, * by element

so with m = 4 a 3x3 kernel takes half of the products and a 5x5 two fifths. Across the columns the
sum stays as it is. The usual form, which transforms both axes, saves more products still, but it
moves four times as much memory and rounds more coarsely: here float32 errors stay within a few
units of 1e-6 of the largest output.

Plain JAX, NHWC and HWIO; used by `ops` where it is the fastest form.
"""

from collections.abc import Sequence
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

KERNELS = (3, 5)
WIDE = 24  # columns from which the longer tile of a 3x3 kernel wastes little at the right edge

# Toom-Cook's interpolation points besides infinity, by their number with it: small, and with small
# reciprocals, as their powers are the transforms' coefficients and so set the rounding errors.
POINTS = {6: (0.0, 1.0, -1.0, 0.5, -2.0), 8: (0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0)}


def tile_length(size: int, out_width: int) -> int:
    """m: outputs of a row taken together."""
    return 6 if size == 3 and out_width >= WIDE else 4


@cache
def matrices(size: int, tile: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A^T, G and B^T for kernels of ``size`` taps, by Toom and Cook's construction.

    A kernel and an output are polynomials, evaluated at P - 1 points p and at infinity (their
    leading coefficient); B^T is the transpose of Lagrange's interpolation from such values.

    Returns:
        float64 [tile, P], [P, size] and [P, P], with P = tile + size - 1.
    """
    points = np.array(POINTS[tile + size - 1])
    others = [np.delete(points, i) for i in range(len(points))]
    scale = np.array([np.prod(p - rest) for p, rest in zip(points, others, strict=True)])

    def evaluate(terms: int) -> np.ndarray:  # [P, terms]
        at_infinity = np.eye(terms)[-1:]
        return np.concatenate([np.vander(points, terms, increasing=True), at_infinity])

    numerators = [np.append(np.poly(rest)[::-1], 0) for rest in others]
    b_t = np.stack([*numerators, np.poly(points)[::-1]])
    g = evaluate(size)
    g[:-1] /= scale[:, None]
    return evaluate(tile).T, g, b_t


def applies(kernel_shape: Sequence[int], stride: int, out_width: int) -> bool:
    """Whether the form exists, and pays for its transforms: measured by scripts/bench.py ops."""
    size, _, channels, features = kernel_shape
    return stride == 1 and size in KERNELS and min(channels, features) >= 32 and out_width >= 4


def conv(x: jax.Array, kernel: jax.Array, padding: int) -> jax.Array:
    """`ops.conv` with stride 1.

    Args:
        x: float [B, H, W, C].
        kernel: float [K, K, C, O].
        padding: zeros on each side.

    Returns:
        float [B, H', W', O].
    """
    size, _, channels, features = kernel.shape
    out_width = x.shape[2] + 2 * padding - size + 1
    a_t, g, b_t = matrices(size, tile_length(size, out_width))
    taps = [kernel[:, j] for j in range(size)]  # [K, C, O]
    kernels = [_combine(row, taps) for row in g]  # P of [K, C, O]
    tiles = _input_tiles(x, b_t, padding, out_width)  # P of [B, H, T, C]
    # What the sum over kernel rows costs besides its products is copies of its input, where it
    # is one product, or of its output, where it is XLA's convolution: the smaller one is better.
    column = _column_product if channels < features else _column_conv
    products = [column(*pair, padding) for pair in zip(tiles, kernels, strict=True)]
    y = jnp.stack([_combine(row, products) for row in a_t], axis=3)  # [B, H', T, m, O]
    batch, height, _, _, _ = y.shape
    return y.reshape(batch, height, -1, features)[:, :, :out_width]


def kernel_gradient(
    x: jax.Array, grad: jax.Array, kernel_shape: Sequence[int], padding: int
) -> jax.Array:
    """The gradient of `conv` to its kernel: ``G^T (sum over tiles (B^T d) * (A grad))``.

    Args:
        x: float [B, H, W, C].
        grad: float [B, H', W', O], of the output.
        kernel_shape: (K, K, C, O).
        padding: as in the forward pass.

    Returns:
        float [K, K, C, O].
    """
    size, _, channels, features = kernel_shape
    out_width = grad.shape[2]
    length = tile_length(size, out_width)
    a_t, g, b_t = matrices(size, length)
    grad = jnp.pad(grad, ((0, 0), (0, 0), (0, -out_width % length), (0, 0)))
    columns = [grad[:, :, i::length] for i in range(length)]  # [B, H', T, O]

    def product(tile: jax.Array, coefficients: np.ndarray) -> jax.Array:
        rows = _stacked_rows(tile, size, padding)  # [B, H', T, K C]
        sums = lax.dot_general(
            rows, _combine(coefficients, columns), (((0, 1, 2), (0, 1, 2)), ((), ()))
        )
        return sums.reshape(size, channels, features)

    tiles = _input_tiles(x, b_t, padding, out_width)
    products = [product(*pair) for pair in zip(tiles, a_t.T, strict=True)]
    return jnp.stack([_combine(column, products) for column in g.T], axis=1)


def _input_tiles(x: jax.Array, b_t: np.ndarray, padding: int, out_width: int) -> list[jax.Array]:
    """B^T d of every tile of every row: for each of the P points, [B, H, T, C]."""
    points, width = len(b_t), x.shape[2]
    size = width + 2 * padding - out_width + 1
    length = points - size + 1
    last = length * (-(-out_width // length) - 1)  # where the last tile begins
    x = jnp.pad(x, ((0, 0), (0, 0), (padding, last + points - width - padding), (0, 0)))
    columns = [x[:, :, i : i + last + 1 : length] for i in range(points)]
    return [_combine(row, columns) for row in b_t]


def _combine(coefficients: np.ndarray, arrays: Sequence[jax.Array]) -> jax.Array:
    """The arrays' sum, weighted; what has weight 0 has no part in it."""
    terms = [
        array if c == 1 else -array if c == -1 else float(c) * array
        for c, array in zip(coefficients, arrays, strict=True)
        if c != 0
    ]
    return sum(terms[1:], start=terms[0])


def _stacked_rows(tile: jax.Array, size: int, padding: int) -> jax.Array:
    """Each output row's K input rows, side by side: [B, H, T, C] -> [B, H', T, K C]."""
    tile = jnp.pad(tile, ((0, 0), (padding, padding), (0, 0), (0, 0)))
    out_height = tile.shape[1] - size + 1
    return jnp.concatenate([tile[:, i : i + out_height] for i in range(size)], axis=3)


def _column_product(tile: jax.Array, kernel: jax.Array, padding: int) -> jax.Array:
    """Sum over kernel rows and channels: [B, H, T, C], [K, C, O] -> [B, H', T, O]."""
    size, channels, features = kernel.shape
    rows = _stacked_rows(tile, size, padding)
    return rows @ kernel.reshape(size * channels, features)


def _column_conv(tile: jax.Array, kernel: jax.Array, padding: int) -> jax.Array:
    """As `_column_product`, by XLA's convolution with a kernel of one column."""
    return lax.conv_general_dilated(
        tile,
        kernel[:, None],
        (1, 1),
        ((padding, padding), (0, 0)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
