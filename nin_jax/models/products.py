"""A convolution and its gradients as matrix products of a kernel row's taps side by side.

Plain JAX, NHWC and HWIO; `ops` uses it on a CPU. bfloat16 operands give float32 results: XLA uses a
processor's bfloat16 instructions for such products only.
"""

import jax
import jax.numpy as jnp
from jax import lax

from nin_jax.models import taps, winograd


def conv(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """Compute `ops.conv` as one product for each row of the kernel.

    Args:
        x: float [B, H, W, C].
        kernel: [K, K, C, O], in x's dtype.
        stride: as in `ops.conv`.
        padding: zeros on each side; a negative number removes pixels.

    Returns:
        [B, H', W', O] in x's dtype; float32 if that is bfloat16.
    """
    size, _, channels, features = kernel.shape
    x = _pad(x, padding)
    height, width = ((side - size) // stride + 1 for side in x.shape[1:3])
    if stride > 1:
        return conv(_blocks(x, size, stride, (height, width)), _kernel_blocks(kernel, stride), 1, 0)
    rows = _taps_of_rows(x, size, width)
    products = [
        taps.product(rows[:, i : i + height], kernel[i].reshape(size * channels, features))
        for i in range(size)
    ]
    return sum(products[1:], start=products[0])


def input_gradient(
    grad: jax.Array, kernel: jax.Array, sides: tuple[int, ...], stride: int, padding: int
) -> jax.Array:
    """Return the input gradient of `conv`, for a stride above 1.

    Args:
        grad: float [B, H', W', O], of the output.
        kernel: [K, K, C, O], in grad's dtype.
        sides: (H, W) of the input.
        stride, padding: as in the forward pass.

    Returns:
        [B, H, W, C] in grad's dtype; float32 if that is bfloat16.
    """

    def blocks_of(x: jax.Array) -> jax.Array:
        return _blocks(_pad(x, padding), kernel.shape[0], stride, grad.shape[1:3])

    blocks = _kernel_blocks(kernel, stride)
    dx = conv(grad, blocks[::-1, ::-1].swapaxes(2, 3), 1, blocks.shape[0] - 1)
    shape = jax.ShapeDtypeStruct((grad.shape[0], *sides, kernel.shape[2]), dx.dtype)
    return jax.linear_transpose(blocks_of, shape)(dx)[0]


def kernel_gradient(
    x: jax.Array, grad: jax.Array, kernel_shape: tuple[int, ...], stride: int, padding: int
) -> jax.Array:
    """Return the kernel gradient of `ops.conv`.

    ``dk[i, j, c, o] = sum_{b, p, q} x[b, s p + i - pad, s q + j - pad, c] grad[b, p, q, o]``

    Args:
        x: float [B, H, W, C].
        grad: [B, H', W', O], of the output, in x's dtype.
        kernel_shape: (K, K, C, O).
        stride, padding: as in the forward pass.

    Returns:
        [K, K, C, O] in x's dtype; float32 if that is bfloat16.
    """
    if taps.applies(kernel_shape[0], stride, x.shape[1:3], grad.shape[1:3]):
        return taps.kernel_gradient(x, grad, kernel_shape, padding)
    if x.dtype != jnp.bfloat16 and winograd.applies(kernel_shape, stride, grad.shape[1:3]):
        return winograd.kernel_gradient(x, grad, kernel_shape, padding)
    size, _, channels, features = kernel_shape
    x = _pad(x, padding)
    height, width = grad.shape[1:3]
    if stride > 1:
        x = _blocks(x, size, stride, (height, width))
        blocks = -(-size // stride)
        shape = blocks, blocks, x.shape[3], features
        return _kernel_of_blocks(kernel_gradient(x, grad, shape, 1, 0), size, stride)
    # One product for all taps of a row: with few channels, that of one tap is small.
    sums = [
        taps.sum_of_products(_taps_of_rows(x[:, i : i + height], size, width), grad)
        for i in range(size)
    ]
    return jnp.stack(sums).reshape(size, size, channels, features)


def _pad(x: jax.Array, padding: int) -> jax.Array:
    pads = (padding, padding, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), pads, pads, (0, 0, 0)))


def _taps_of_rows(x: jax.Array, size: int, width: int) -> jax.Array:
    """Put the K taps of each window's row side by side: [B, H, W, C] -> [B, H, W', K C]."""
    if x.dtype == jnp.bfloat16:  # XLA would convert each value to float32 and back to copy it
        bits = lax.bitcast_convert_type(x, jnp.uint16)
        return lax.bitcast_convert_type(_taps_of_rows(bits, size, width), x.dtype)
    return jnp.concatenate([x[:, :, j : j + width] for j in range(size)], axis=3)


# If each block of stride x stride pixels is taken as one pixel with stride^2 C channels, a strided
# convolution has stride 1, with fewer and wider products. The next three functions change the form.


def _blocks(x: jax.Array, size: int, stride: int, out_sides: tuple[int, ...]) -> jax.Array:
    """Return the blocks that the windows need: [B, H, W, C] -> [B, H'', W'', stride^2 C]."""
    blocks = -(-size // stride)  # in a side of the kernel
    height, width = (side + blocks - 1 for side in out_sides)
    short = [
        max(0, stride * n - side) for n, side in zip((height, width), x.shape[1:3], strict=True)
    ]
    x = jnp.pad(x, ((0, 0), (0, short[0]), (0, short[1]), (0, 0)))
    x = x[:, : stride * height, : stride * width]
    batch, channels = x.shape[0], x.shape[3]
    x = x.reshape(batch, height, stride, width, stride, channels).transpose(0, 1, 3, 2, 4, 5)
    # Without the barrier, XLA computes the blocks again for each tap.
    return lax.optimization_barrier(x.reshape(batch, height, width, stride * stride * channels))


def _kernel_blocks(kernel: jax.Array, stride: int) -> jax.Array:
    """Return the kernel for blocks: [K, K, C, O] -> [K', K', stride^2 C, O]."""
    size, _, channels, features = kernel.shape
    blocks = -(-size // stride)
    short = blocks * stride - size
    kernel = jnp.pad(kernel, ((0, short), (0, short), (0, 0), (0, 0)))
    kernel = kernel.reshape(blocks, stride, blocks, stride, channels, features)
    return kernel.transpose(0, 2, 1, 3, 4, 5).reshape(blocks, blocks, -1, features)


def _kernel_of_blocks(kernel: jax.Array, size: int, stride: int) -> jax.Array:
    """Undo `_kernel_blocks`."""
    blocks, features = kernel.shape[0], kernel.shape[3]
    kernel = kernel.reshape(blocks, blocks, stride, stride, -1, features)
    kernel = kernel.transpose(0, 2, 1, 3, 4, 5)
    return kernel.reshape(stride * blocks, stride * blocks, -1, features)[:size, :size]
