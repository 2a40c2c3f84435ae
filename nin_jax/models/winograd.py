"""Convolutions of stride 1 with fewer products: Winograd's minimal filtering.

For each channel and kernel row, a tile of m adjacent outputs of a row takes m K products if each
output is computed alone, and m + K - 1 products if they are computed together (Lavin and Gray,
"Fast Algorithms for Convolutional Neural Networks", 2016, eq. 6)::

    y = A^T ((G g) * (B^T d))        g: K taps, d: m + K - 1 inputs, y: m outputs

where * is elementwise. With m = 4, a 3x3 kernel takes 1/2 and a 5x5 kernel 2/5 of the products. A
convolution is filtered along the columns too, with m = 2 (eq. 8): then it takes 1/3 and 6/25. The
kernel gradient is filtered along the rows only: along both axes it was no faster. float32 errors
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
TILE_HEIGHT = 2  # taller tiles were no faster, and their errors are larger
WIDE = 24  # from this width on, the longer tile of a 3x3 kernel computes little beyond the edge

# The finite interpolation points of the Toom-Cook method. A key counts the point at infinity too.
# The transforms contain powers of the points, so small numerators and denominators keep rounding
# errors small.
POINTS = {
    4: (0.0, 1.0, -1.0),
    6: (0.0, 1.0, -1.0, 0.5, -2.0),
    8: (0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0),
}


def tile_width(size: int, out_width: int) -> int:
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


def applies(kernel_shape: Sequence[int], stride: int, out_sides: Sequence[int]) -> bool:
    """Return whether these forms exist and are faster, as measured by scripts/bench.py ops."""
    size, _, channels, features = kernel_shape
    exist = stride == 1 and size in KERNELS and min(out_sides) >= 1
    return exist and min(channels, features) >= 32 and out_sides[1] >= 4


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
    _, out_width = taps.out_sides(x.shape[1:3], size, padding)

    def filter_columns(tiles: jax.Array, column: jax.Array) -> jax.Array:
        """[B, H, T, C], [K, C, O] -> [B, H', T, O]."""
        return _filter(tiles, column, 1, TILE_HEIGHT, padding, taps.product)

    columns = kernel.swapaxes(0, 1)  # for each tap of a row, those of its column
    return _filter(x, columns, 2, tile_width(size, out_width), padding, filter_columns)


def kernel_gradient(
    x: jax.Array, grad: jax.Array, kernel_shape: Sequence[int], padding: int
) -> jax.Array:
    """Return the kernel gradient of `conv`, by rows: ``G^T (sum over tiles (B^T d) * (A grad))``.

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
    length = tile_width(size, out_width)
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
    product: Callable[[jax.Array, jax.Array], jax.Array],
) -> jax.Array:
    """Compute A^T ((G g) * (B^T d)) along one axis, with ``product`` in place of *.

    Args:
        x: float [B, H, W, C], or with the tiles of a row in place of W.
        taps_of_axis: [K, ...], the kernel's taps along the axis.
        axis: 1 along the columns, 2 along the rows.
        length: m.
        padding: zeros on each side, along this axis.
        product: of transformed inputs and their kernel, which has the shape of one tap.

    Returns:
        The shape of the products, with the outputs in place of the tiles.
    """
    out_side = x.shape[axis] + 2 * padding - len(taps_of_axis) + 1
    a_t, g, b_t = matrices(len(taps_of_axis), length)
    by_tap = list(taps_of_axis)
    kernels = [_combine(row, by_tap) for row in g]
    tiles = _input_tiles(x, b_t, axis, padding, out_side)
    products = [product(*pair) for pair in zip(tiles, kernels, strict=True)]
    y = jnp.stack([_combine(row, products) for row in a_t], axis=axis + 1)  # [..., T, m, ...]
    return lax.slice_in_dim(lax.collapse(y, axis, axis + 2), 0, out_side, axis=axis)


def _input_tiles(
    x: jax.Array, b_t: np.ndarray, axis: int, padding: int, out_side: int
) -> list[jax.Array]:
    """Return B^T d of all T tiles: for each of the P points, x's shape with T along the axis."""
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
