"""Convolutions of stride 1 as one product for each tap that meets the image.

On a map of 3x3 pixels, a 3x3 kernel with one pixel of padding meets the image in 49 of 81 places,
on a map of one pixel in 1 of 9. XLA's convolution computes all of them. It is also slow on narrow
maps, most of all on those of 2x2.

Plain JAX, NHWC and HWIO; `ops` uses it where it is the fastest form. bfloat16 operands give float32
results, as in `products`, which shares the functions for one product.
"""

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

SMALL = 3  # side of a map; from 4 on, `winograd` computes fewer products
KERNELS = range(2, 8)  # larger ones have many products, which take long to compile


def applies(size: int, stride: int, sides: Sequence[int], out_sides: Sequence[int]) -> bool:
    """Return whether this is the fastest form, as measured by scripts/bench.py ops."""
    return stride == 1 and size in KERNELS and 0 < min(max(sides), max(out_sides)) <= SMALL


def conv(x: jax.Array, kernel: jax.Array, padding: int) -> jax.Array:
    """Compute `ops.conv` with stride 1: [B, H, W, C], [K, K, C, O] -> [B, H', W', O]."""
    sides = out_sides(x.shape[1:3], kernel.shape[0], padding)
    total = jnp.zeros((x.shape[0], *sides, kernel.shape[3]), _sum_dtype(x))
    for tap, inputs, outputs in _taps(x.shape[1:3], kernel.shape[0], padding):
        margins = [
            (part.start, side - part.stop) for part, side in zip(outputs, sides, strict=True)
        ]
        total += jnp.pad(product(x[:, *inputs], kernel[tap]), ((0, 0), *margins, (0, 0)))
    return total


def kernel_gradient(
    x: jax.Array, grad: jax.Array, kernel_shape: Sequence[int], padding: int
) -> jax.Array:
    """Return the kernel gradient of `conv`: [B, H, W, C], [B, H', W', O] -> [K, K, C, O]."""
    none = jnp.zeros(kernel_shape[2:], _sum_dtype(x))  # of a tap that meets only padding
    products = dict.fromkeys(np.ndindex(*kernel_shape[:2]), none)
    for tap, inputs, outputs in _taps(x.shape[1:3], kernel_shape[0], padding):
        products[tap] = sum_of_products(x[:, *inputs], grad[:, *outputs])
    return jnp.stack([*products.values()]).reshape(*kernel_shape)


def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Multiply each pixel by a matrix: [B, H, W, C], [C, O] -> [B, H, W, O]."""
    dimensions = (((3,), (0,)), ((), ()))
    return lax.dot_general(x, kernel, dimensions, preferred_element_type=_sum_dtype(x))


def sum_of_products(x: jax.Array, grad: jax.Array) -> jax.Array:
    """Sum x^T grad over images and positions: [B, H, W, C], [B, H, W, O] -> [C, O]."""
    dimensions = (((0, 1, 2), (0, 1, 2)), ((), ()))
    if x.dtype == jnp.bfloat16:
        # XLA transposes the first operand for its bfloat16 kernel: grad is narrower than the taps
        # side by side. Without the barrier, the transpose of the sums becomes part of the product,
        # for which XLA has no kernel.
        sums = lax.dot_general(grad, x, dimensions, preferred_element_type=jnp.float32)
        return lax.optimization_barrier(sums).T
    return lax.dot_general(x, grad, dimensions)


def out_sides(sides: Sequence[int], size: int, padding: int) -> list[int]:
    """Return (H', W') of a convolution with stride 1, from (H, W)."""
    return [side + 2 * padding - size + 1 for side in sides]


def _taps(
    sides: Sequence[int], size: int, padding: int
) -> Iterator[tuple[tuple[int, ...], list[slice], list[slice]]]:
    """Yield each tap that meets the image, its pixels there, and the outputs they belong to."""
    for tap in np.ndindex(size, size):
        inputs, outputs = [], []
        for i, side, out_side in zip(tap, sides, out_sides(sides, size, padding), strict=True):
            shift = i - padding  # from an output to its input
            first, end = max(0, -shift), min(out_side, side - shift)
            inputs.append(slice(first + shift, end + shift))
            outputs.append(slice(first, end))
        if all(part.start < part.stop for part in outputs):
            yield tap, inputs, outputs


def _sum_dtype(x: jax.Array) -> DTypeLike:
    """Return the dtype of sums of products: x's, but float32 for bfloat16."""
    return jnp.float32 if x.dtype == jnp.bfloat16 else x.dtype
