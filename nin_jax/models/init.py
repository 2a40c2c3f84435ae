"""Initializers of kernels and biases: Xavier, He, the paper's, and the identity."""

import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

Initializer = Callable[..., jax.Array]
Init = Literal["xavier", "he", "gaussian", "identity"]

GAUSSIAN = 0.05  # standard deviation


def flat(shape: tuple[int, ...]) -> tuple[int]:
    """Return the shape of the same random numbers in one axis, whose program compiles faster."""
    return (math.prod(shape),)


def kernel_init(init: Init) -> Initializer:
    """Return the initializer of kernels [K, K, C, O] or [N, M]; "identity" draws as "he".

    `block.Conv` decides which kernels of "identity" start as `identity_kernel` instead.

    Xavier: U(-a, a), a = sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010, eq. 16).
    He: N(0, 2 / fan_in) (He et al. 2015, eq. 10).
    Gaussian: N(0, 0.05²), as in the settings of Lin et al. (2013).
    """

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
        *sides, inputs, outputs = shape
        fan_in, fan_out = math.prod(sides) * inputs, math.prod(sides) * outputs
        if init == "xavier":
            bound = math.sqrt(6 / (fan_in + fan_out))
            return jax.random.uniform(key, flat(shape), dtype, -bound, bound).reshape(shape)
        deviation = GAUSSIAN if init == "gaussian" else math.sqrt(2 / fan_in)
        return deviation * jax.random.normal(key, flat(shape), dtype).reshape(shape)

    return draw


def identity_kernel(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
    """Return the kernel [K, K, C, C] that passes its input on, as `torch.nn.init.dirac_` does."""
    size, _, channels, _ = shape
    kernel = np.zeros(shape)  # NumPy compiles nothing
    kernel[size // 2, size // 2] = np.eye(channels)
    return jnp.asarray(kernel, dtype)


def bias_init(init: Init, fan_in: int) -> Initializer:
    """Return the initializer of biases [O]: zeros, or with "xavier" PyTorch's default.

    That is U(-b, b) with b = 1 / sqrt(fan_in), where ``fan_in`` is of the layer's kernel.
    """

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
        if init == "xavier":
            bound = 1 / math.sqrt(fan_in)
            return jax.random.uniform(key, shape, dtype, -bound, bound)
        return jnp.zeros(shape, dtype)

    return draw
