"""Convolutions of stride 1 with fewer products: Winograd's minimal filtering.

For each channel and kernel row, a tile of m adjacent outputs of a row takes m K products if each
output is computed alone, and m + K - 1 products if they are computed together (Lavin and Gray,
"Fast Algorithms for Convolutional Neural Networks", 2016, eq. 8)::

    y = A^T ((G g) * (B^T d))        g: K taps, d: m + K - 1 inputs, y: m outputs

where * is elementwise. With m = 4, a 3x3 kernel takes 1/2 and a 5x5 kernel 2/5 of the products. The
same filtering along the columns, with m = 2, makes that 1/3 and 6/25 (eq. 9). The kernel's gradient
is filtered along the rows only: along both axes it was no faster in a training step. float32 errors
are a few 1e-6 of the largest output.

Plain JAX, NHWC and HWIO; `ops` uses it where it is the fastest form.
"""

from collections.abc import Callable, Sequence
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nin_jax.models import taps

KERNELS = (3, 5)
TILE_HEIGHT = 2  # longer tiles were no faster, and their errors are larger
WIDE = 24  # from this width on, the longer tile of a 3x3 kernel computes little beyond the edge

# Interpolation points of the Toom-Cook method without infinity, by their number including infinity.
# The transforms contain powers of the points, so small numerators and denominators keep rounding
# errors small.
POINTS = {
    4: (0.0, 1.0, -1.0),
    6: (0.0, 1.0, -1.0, 0.5, -2.0),
    8: (0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0),
}


def tile_length(size: int, out_width: int) -> int:
    """Return m along a row, the number of outputs in a tile."""
    return 6 if size == 3 and out_width >= WIDE else 4


@cache
def matrices(size: int, tile: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return A^T, G and B^T for kernels of ``size`` taps, by the Toom-Cook construction.

    Kernel and output are polynomials, evaluated at P - 1 points and at infinity (the leading
    coefficient). B^T is the transpose of Lagrange interpolation from these values.

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
    """Return whether this form exists and is faster, as measured by scripts/bench.py ops."""
    size, _, channels, features = kernel_shape
    return stride == 1 and size in KERNELS and min(channels, features) >= 32 and out_width >= 4


def conv(x: jax.Array, kernel: jax.Array, padding: int) -> jax.Array:
    """Compute `ops.conv` with stride 1.

    Args:
        x: float [B, H, W, C].
        kernel: float [K, K, C, O].
        padding: zeros on each side.

    Returns:
        float [B, H', W', O].
    """
    size = kernel.shape[0]
    out_height, out_width = taps.out_sides(x.shape[1:3], size, padding)

    def along_columns(x: jax.Array, kernel: jax.Array) -> jax.Array:  # [K, C, O]
        return _filter(x, kernel, 1, TILE_HEIGHT, padding, out_height, taps.product)

    length = tile_length(size, out_width)
    return _filter(x, kernel.swapaxes(0, 1), 2, length, padding, out_width, along_columns)


def kernel_gradient(
    x: jax.Array, grad: jax.Array, kernel_shape: Sequence[int], padding: int
) -> jax.Array:
    """Return the gradient of `conv` for its kernel: ``G^T (sum over tiles (B^T d) * (A grad))``.

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
        sums = taps.sum_of_products(rows, _combine(coefficients, columns))
        return sums.reshape(size, channels, features)

    tiles = _input_tiles(x, b_t, 2, padding, out_width)
    products = [product(*pair) for pair in zip(tiles, a_t.T, strict=True)]
    return jnp.stack([_combine(column, products) for column in g.T], axis=1)


def _filter(
    x: jax.Array,
    taps_of_axis: jax.Array,
    axis: int,
    length: int,
    padding: int,
    out_side: int,
    product: Callable[[jax.Array, jax.Array], jax.Array],
) -> jax.Array:
    """Filter along one axis of the images; ``product`` takes the place of * in A^T (... * ...).

    Args:
        x: float [B, H, W, C].
        taps_of_axis: [K, ...], the kernel's taps along the axis.
        axis: 1 for columns, 2 for rows.
        length: m.
        padding: zeros on each side.
        out_side: H' or W'.
        product: from inputs and one kernel without the first axis, to outputs.

    Returns:
        The outputs, with H' or W' in place of H or W.
    """
    a_t, g, b_t = matrices(len(taps_of_axis), length)
    kernels = [_combine(row, list(taps_of_axis)) for row in g]
    tiles = _input_tiles(x, b_t, axis, padding, out_side)
    products = [product(*pair) for pair in zip(tiles, kernels, strict=True)]
    y = jnp.stack([_combine(row, products) for row in a_t], axis=axis + 1)  # [..., T, m, ...]
    return lax.slice_in_dim(lax.collapse(y, axis, axis + 2), 0, out_side, axis=axis)


def _input_tiles(
    x: jax.Array, b_t: np.ndarray, axis: int, padding: int, out_side: int
) -> list[jax.Array]:
    """Return B^T d of all tiles: P of [B, H, W, C] with T in place of the axis' side."""
    points, side = len(b_t), x.shape[axis]
    length = points - (side + 2 * padding - out_side)
    last = length * (-(-out_side // length) - 1)  # start of the last tile
    margins = [(0, 0)] * x.ndim
    margins[axis] = (padding, last + points - side - padding)
    x = jnp.pad(x, margins)
    inputs = [lax.slice_in_dim(x, i, i + last + 1, stride=length, axis=axis) for i in range(points)]
    return [_combine(row, inputs) for row in b_t]


def _combine(coefficients: np.ndarray, arrays: Sequence[jax.Array]) -> jax.Array:
    """Return the weighted sum of the arrays, without those of weight 0."""
    terms = [
        array if c == 1 else -array if c == -1 else float(c) * array
        for c, array in zip(coefficients, arrays, strict=True)
        if c != 0
    ]
    return sum(terms[1:], start=terms[0])


def _stacked_rows(tile: jax.Array, size: int, padding: int) -> jax.Array:
    """Concatenate the K input rows of each output row: [B, H, T, C] -> [B, H', T, K C]."""
    tile = jnp.pad(tile, ((0, 0), (padding, padding), (0, 0), (0, 0)))
    out_height = tile.shape[1] - size + 1
    return jnp.concatenate([tile[:, i : i + out_height] for i in range(size)], axis=3)
