"""How kernels and biases are drawn: Xavier, He, and the identity for a block's later layers."""

import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

Init = Literal["xavier", "he", "identity"]


def draw_kernel(
    key: jax.Array, shape: tuple[int, ...], fan_in: int, fan_out: int, init: Init, dtype: DTypeLike
) -> jax.Array:
    """Draw a kernel by Xavier or He; "identity" is He where it cannot be the identity.

    Xavier: U(-a, a), a = sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010, eq. 16).
    He: N(0, 2 / fan_in) (He et al. 2015, eq. 10).
    """
    if init == "xavier":
        bound = math.sqrt(6 / (fan_in + fan_out))
        return jax.random.uniform(key, shape, dtype, -bound, bound)
    return math.sqrt(2 / fan_in) * jax.random.normal(key, shape, dtype)


def identity_kernel(shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
    """Return the kernel [k, k, C, C] that passes its input on, as `torch.nn.init.dirac_`."""
    size, _, channels, _ = shape
    kernel = np.zeros(shape)  # NumPy compiles nothing
    kernel[size // 2, size // 2] = np.eye(channels)
    return jnp.asarray(kernel, dtype)


def draw_bias(key: jax.Array, size: int, fan_in: int, init: Init, dtype: DTypeLike) -> jax.Array:
    """Xavier leaves biases as PyTorch draws them, U(-b, b) with b = 1 / sqrt(fan_in); others: 0."""
    if init == "xavier":
        bound = 1 / math.sqrt(fan_in)
        return jax.random.uniform(key, (size,), dtype, -bound, bound)
    return jnp.zeros((size,), dtype)
