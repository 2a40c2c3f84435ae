"""The three operations a NiN is made of, with gradients that are fast on every platform.

Layout is NHWC for images and HWIO for kernels. The values and gradients are those of the plain
XLA operations, up to the order of summation, and of PyTorch, ties in max pooling included.

XLA's CPU back end runs forward convolutions and matrix products near the machine's rate, but
its gradients of convolutions and of max pooling take 5 to 15 times as long as they need, and
inside a loop 100 times. So on the CPU each gradient is stated as forward convolutions and
products. This is the only file that knows about platforms.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

NHWC = ("NHWC", "HWIO", "NHWC")
POOL_TAPS = tuple((i, j) for i in range(3) for j in range(3))


def conv(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: int = 0) -> jax.Array:
    """Cross-correlation, as deep learning calls convolution; no bias.

    ``out[b, p, q, o] = sum_{i, j, c} x[b, s p + i - pad, s q + j - pad, c] kernel[i, j, c, o]``

    Args:
        x: float [B, H, W, C].
        kernel: float [K, K, C, O], of x's dtype.
        stride: s, for rows and columns.
        padding: pad, zeros on each side.

    Returns:
        float [B, H', W', O] with ``H' = (H + 2 pad - K) // s + 1`` and W' likewise.
    """
    if kernel.shape[:2] == (1, 1) and stride == 1 and padding == 0:
        # A product of [B H W, C] with [C, O]: as fast forward, and so are both gradients.
        return lax.dot_general(x, kernel[0, 0], (((3,), (0,)), ((), ())))
    return _conv(x, kernel, stride, padding)


def cast(x: jax.Array, dtype: DTypeLike) -> jax.Array:
    """``x.astype(dtype)``, never merged with the product before or, in the gradient, after it.

    XLA's CPU back end of jaxlib 0.11.2 merges a small bfloat16 product with the conversion of its
    result to float32, and then leaves part of the result unwritten: NaN in the logits.
    """
    if x.dtype == dtype:
        return x
    return lax.optimization_barrier(lax.optimization_barrier(x).astype(dtype))


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    return _plain_conv(x, kernel, stride, padding)


def _plain_conv(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    pads = ((padding, padding), (padding, padding))
    return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=NHWC)


def _conv_forward(x: jax.Array, kernel: jax.Array, stride: int, padding: int):
    return _plain_conv(x, kernel, stride, padding), (x, kernel)


def _conv_backward(stride: int, padding: int, residuals, grad: jax.Array):
    x, kernel = residuals

    def xla(x: jax.Array, kernel: jax.Array, grad: jax.Array):
        return jax.vjp(lambda x, k: _plain_conv(x, k, stride, padding), x, kernel)[1](grad)

    def cpu(x: jax.Array, kernel: jax.Array, grad: jax.Array):
        return (
            _input_gradient(grad, kernel, x.shape, stride, padding),
            _kernel_gradient(x, grad, kernel.shape, stride, padding),
        )

    return lax.platform_dependent(x, kernel, grad, cpu=cpu, default=xla)


_conv.defvjp(_conv_forward, _conv_backward)


def _input_gradient(
    grad: jax.Array, kernel: jax.Array, x_shape: tuple[int, ...], stride: int, padding: int
) -> jax.Array:
    """The forward convolution of the spread-out gradient with the flipped, transposed kernel."""
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)  # [K, K, O, C]
    size = kernel.shape[0]
    before = size - 1 - padding
    pads = [
        # (side - 1) covers what is left over when the stride does not divide evenly.
        (before, x_side + padding - (stride * (grad_side - 1) + 1))
        for x_side, grad_side in zip(x_shape[1:3], grad.shape[1:3], strict=True)
    ]
    return lax.conv_general_dilated(
        grad, flipped, (1, 1), pads, lhs_dilation=(stride, stride), dimension_numbers=NHWC
    )


def _kernel_gradient(
    x: jax.Array, grad: jax.Array, kernel_shape: tuple[int, ...], stride: int, padding: int
) -> jax.Array:
    """``dk[i, j, c, o] = sum_{b, p, q} x[b, s p + i - pad, s q + j - pad, c] grad[b, p, q, o]``."""
    size, _, channels, _ = kernel_shape
    if size > 3 and stride == 1 and channels > 3:
        # Batch and channel axes change places on both sides: a forward convolution whose
        # window is the whole map. For the 5x5 it beats products by tap: 374 against 250 GFLOP/s.
        # The axes are moved by hand, as XLA does so itself only outside of loops.
        by_channel = x.transpose(3, 1, 2, 0)  # [C, H, W, B]
        window = grad.transpose(1, 2, 0, 3)  # [H', W', B, O]
        return _plain_conv(by_channel, window, 1, padding).transpose(1, 2, 0, 3)
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    out_height, out_width = grad.shape[1:3]

    def tap(i: int, j: int) -> jax.Array:  # [B, H', W', C]
        rows = slice(i, i + stride * (out_height - 1) + 1, stride)
        columns = slice(j, j + stride * (out_width - 1) + 1, stride)
        return x[:, rows, columns]

    def product(patches: jax.Array) -> jax.Array:  # [B, H', W', N] -> [N, O]
        return lax.dot_general(patches, grad, (((0, 1, 2), (0, 1, 2)), ((), ())))

    if channels <= 3:  # one product a kernel row, or each would be a sliver
        rows = [
            product(jnp.concatenate([tap(i, j) for j in range(size)], axis=3)) for i in range(size)
        ]
    else:
        rows = [jnp.stack([product(tap(i, j)) for j in range(size)]) for i in range(size)]
    return jnp.stack(rows).reshape(kernel_shape)


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """Max over 3x3 windows, stride 2, no padding.

    Where a window holds its maximum more than once, the gradient goes to the first in row
    order, as in PyTorch: after ReLU most windows are ties of zeros, so the rule matters.

    Args:
        x: float [B, H, W, C] with H, W >= 3.

    Returns:
        float [B, (H - 3) // 2 + 1, (W - 3) // 2 + 1, C].
    """
    lowest = jnp.array(-jnp.inf, x.dtype)
    return lax.reduce_window(x, lowest, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")


def _max_pool_forward(x: jax.Array):
    """Keeps which tap won, one byte an output, in place of select-and-scatter's second search."""
    height, width = ((side - 3) // 2 + 1 for side in x.shape[1:3])

    def tap(i: int, j: int) -> jax.Array:  # [B, H', W', C]
        return x[:, i : i + 2 * height - 1 : 2, j : j + 2 * width - 1 : 2]

    best = tap(0, 0)
    winner = jnp.zeros(best.shape, jnp.uint8)
    for t, (i, j) in enumerate(POOL_TAPS[1:], start=1):
        value = tap(i, j)
        wins = (value > best) | jnp.isnan(value)  # a NaN must come through, as in PyTorch
        best = jnp.where(wins, value, best)
        winner = jnp.where(wins, jnp.uint8(t), winner)
    # An array of no bytes carries the input's shape to the backward pass.
    return best, (winner, jnp.zeros((*x.shape[1:3], 0), x.dtype))


def _max_pool_backward(residuals, grad: jax.Array):
    winner, like = residuals
    full_height, full_width, _ = like.shape
    height, width = grad.shape[1:3]
    zero = jnp.zeros((), grad.dtype)
    dx = jnp.zeros((grad.shape[0], full_height, full_width, grad.shape[3]), grad.dtype)
    for t, (i, j) in enumerate(POOL_TAPS):
        spread = (  # (before, after, between) per axis
            (0, 0, 0),
            (i, full_height - i - (2 * height - 1), 1),
            (j, full_width - j - (2 * width - 1), 1),
            (0, 0, 0),
        )
        dx += lax.pad(jnp.where(winner == t, grad, zero), zero, spread)
    return (dx,)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)
