"""The gradient of a convolution to its kernel, from matrix products.

Plain JAX, NHWC and HWIO; `ops` uses it on a CPU.
"""

import jax
import jax.numpy as jnp
from jax import lax

from nin_jax.models import taps, winograd


def kernel_gradient(
    x: jax.Array, grad: jax.Array, kernel_shape: tuple[int, ...], stride: int, padding: int
) -> jax.Array:
    """Return the gradient of `ops.conv` to its kernel.

    ``dk[i, j, c, o] = sum_{b, p, q} x[b, s p + i - pad, s q + j - pad, c] grad[b, p, q, o]``

    Args:
        x: float [B, H, W, C].
        grad: float [B, H', W', O], of the output.
        kernel_shape: (K, K, C, O).
        stride, padding: as in the forward pass.

    Returns:
        float [K, K, C, O].
    """
    if taps.applies(kernel_shape[0], stride, x.shape[1:3], grad.shape[1:3]):
        return taps.kernel_gradient(x, grad, kernel_shape, padding)
    if winograd.applies(kernel_shape, stride, grad.shape[2]):
        return winograd.kernel_gradient(x, grad, kernel_shape, padding)
    size, _, channels, features = kernel_shape
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    if stride > 1:
        return _strided(x, grad, kernel_shape, stride)
    height, width = grad.shape[1:3]

    def of_row(i: int) -> jax.Array:
        """Use one product for all taps of a row: with few channels, one tap is a small product."""
        row = [x[:, i : i + height, j : j + width] for j in range(size)]
        return taps.sum_of_products(jnp.concatenate(row, axis=3), grad)

    rows = jnp.stack([of_row(i) for i in range(size)])  # [K, K C, O]
    return rows.reshape(size, size, channels, features)


def _strided(
    x: jax.Array, grad: jax.Array, kernel_shape: tuple[int, ...], stride: int
) -> jax.Array:
    """Return the kernel's gradient for a strided convolution without padding.

    If each block of stride x stride pixels is taken as one pixel with stride^2 C channels, this
    is a convolution of stride 1, with fewer and wider products.
    """
    size, _, channels, features = kernel_shape
    blocks = -(-size // stride)  # in a side of the kernel
    height, width = (side + blocks - 1 for side in grad.shape[1:3])
    short = [
        max(0, stride * n - side) for n, side in zip((height, width), x.shape[1:3], strict=True)
    ]
    x = jnp.pad(x, ((0, 0), (0, short[0]), (0, short[1]), (0, 0)))
    x = x[:, : stride * height, : stride * width]
    x = x.reshape(x.shape[0], height, stride, width, stride, channels).transpose(0, 1, 3, 2, 4, 5)
    # Without the barrier, XLA computes the blocks again for each tap.
    x = lax.optimization_barrier(x.reshape(x.shape[0], height, width, stride * stride * channels))
    dk = kernel_gradient(x, grad, (blocks, blocks, x.shape[3], features), 1, 0)
    dk = dk.reshape(blocks, blocks, stride, stride, channels, features).transpose(0, 2, 1, 3, 4, 5)
    return dk.reshape(stride * blocks, stride * blocks, channels, features)[:size, :size]
