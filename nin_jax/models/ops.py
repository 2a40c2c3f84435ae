"""Convolution and pooling with gradients that are fast on every platform.

Images are NHWC and kernels HWIO. Values and gradients equal those of the plain XLA operations up
to rounding, and PyTorch's, also for ties in max pooling.

XLA's CPU back end computes forward convolutions and matrix products near the machine's peak, but
its gradients of convolutions and pooling take 5 to 15 times as long as necessary, and 100
times inside a loop. On the CPU, gradients are therefore written as forward convolutions and
products. These and the forward pass use fewer products where that is faster (`taps`, `winograd`).
If the processor multiplies bfloat16 values (`processor`), all convolutions of bfloat16 are products
(`products`); this is decided when a program is traced. Other platforms use XLA's own gradients.
Forward mode and higher derivatives work too (`derivatives`). Operations differ between platforms
only here.
``python scripts/bench.py ops`` measures each choice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.typing import DTypeLike

from nin_jax.models import processor, products, taps, winograd
from nin_jax.models.derivatives import linear
from nin_jax.models.pooling import plain_pool, pool

NHWC = ("NHWC", "HWIO", "NHWC")


def conv(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: int = 0) -> jax.Array:
    """Convolve (cross-correlate) images with a kernel, without bias.

    ``out[b, p, q, o] = sum_{i, j, c} x[b, s p + i - pad, s q + j - pad, c] kernel[i, j, c, o]``

    Args:
        x: float [B, H, W, C].
        kernel: [K, K, C, O], in x's dtype.
        stride: s, of rows and columns.
        padding: pad, the number of zeros on each side.

    Returns:
        float [B, H', W', O] with ``H' = (H + 2 pad - K) // s + 1`` and W' likewise.
    """
    in_bfloat16 = x.dtype == jnp.bfloat16 and processor.multiplies_bfloat16()
    product = _Product("y", stride, padding, x.shape[1:3], kernel.shape[0], in_bfloat16)
    if product.is_pointwise and x.dtype != jnp.bfloat16:
        return _pointwise_conv(x, kernel)  # XLA may round bfloat16 sums twice in its gradients
    return product.of(x=x, kernel=kernel)


def cast(x: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Return ``x.astype(dtype)``, which XLA must not fuse with a product before or after it.

    The CPU back end of jaxlib 0.11.2 fuses a small bfloat16 product with the conversion of its
    result to float32, and leaves part of the result unwritten: the logits become NaN.
    """
    if x.dtype == dtype:
        return x
    return lax.optimization_barrier(lax.optimization_barrier(x).astype(dtype))


def promote(arrays: Any, /, *, dtype: Any = None, inexact: bool = True) -> Any:
    """Cast a tuple of arrays to a dtype by `cast`; `flax.nnx.Conv` and `Linear` call this."""
    return tuple(None if array is None else cast(array, dtype) for array in arrays)


def _pointwise_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Compute one product of [B H W, C] and [C, O]: XLA's gradients of products are fast."""
    return lax.dot_general(x, kernel[0, 0], (((3,), (0,)), ((), ())))


def _plain_conv(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    pads = ((padding, padding), (padding, padding))
    return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=NHWC)


def _cpu_conv(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    if kernel.shape[0] == stride == 1 and padding == 0:
        return taps.product(x, kernel[0, 0])
    out_sides = taps.out_sides(x.shape[1:3], kernel.shape[0], padding)
    if taps.applies(kernel.shape[0], stride, x.shape[1:3], out_sides):
        return taps.conv(x, kernel, padding)
    if x.dtype == jnp.bfloat16:  # Winograd's transforms need more digits
        return products.conv(x, kernel, stride, padding)
    if winograd.applies(kernel.shape, stride, out_sides):
        return winograd.conv(x, kernel, padding)
    return _plain_conv(x, kernel, stride, padding)


@dataclass(frozen=True)
class _Product:
    """One of three products: the convolution, its input gradient or its kernel gradient.

    With images x, a kernel and gradients y of the output,
    ``sum x[b, s p + i - pad, s q + j - pad, c] kernel[i, j, c, o] y[b, p, q, o]`` is linear in each
    of the three. Its derivative with respect to one is a product of the other two: the convolution
    ("y"), its input gradient ("x") or its kernel gradient ("kernel"). So the derivatives of a
    product are products too, in forward and in reverse mode.

    Attributes:
        wanted: which of the three is the result.
        stride, padding: of the convolution.
        sides: (H, W) of the images.
        size: K of the kernel.
        in_bfloat16: whether a CPU multiplies bfloat16 operands. If not, it converts them to
            float32, which lets it use Winograd's form.
    """

    wanted: str
    stride: int
    padding: int
    sides: tuple[int, ...]
    size: int
    in_bfloat16: bool

    @property
    def is_pointwise(self) -> bool:
        """Whether each pixel of y depends on one pixel of x, at the same place."""
        return (self.size, self.stride, self.padding) == (1, 1, 0)

    @property
    def given(self) -> tuple[str, ...]:
        """The names of the arguments, in order."""
        return tuple(name for name in ("x", "kernel", "y") if name != self.wanted)

    def of(self, **arrays: jax.Array) -> jax.Array:
        """Return the product of arrays, given by name."""
        return _product(self, *(arrays[name] for name in self.given))

    def cpu(self, first: jax.Array, second: jax.Array) -> jax.Array:
        """Compute the product from forward convolutions and matrix products.

        The sums of bfloat16 products are float32 and are rounded once.
        """
        dtype = first.dtype
        if dtype == jnp.bfloat16 and not self.in_bfloat16:
            first, second = cast(first, jnp.float32), cast(second, jnp.float32)
        if self.wanted == "y":
            wanted = _cpu_conv(first, second, self.stride, self.padding)
        elif self.wanted == "x":
            wanted = _input_gradient(second, first, self.sides, self.stride, self.padding)
        else:
            shape = (self.size, self.size, first.shape[3], second.shape[3])
            wanted = products.kernel_gradient(first, second, shape, self.stride, self.padding)
        return cast(wanted, dtype)

    def xla(self, first: jax.Array, second: jax.Array) -> jax.Array:
        """Compute the product by XLA's convolution or its transpose."""
        conv = partial(_plain_conv, stride=self.stride, padding=self.padding)
        if self.is_pointwise:
            conv = _pointwise_conv
        if self.wanted == "y":
            return conv(first, second)
        if self.wanted == "x":
            of_wanted = partial(conv, kernel=first)
            shape = (second.shape[0], *self.sides, first.shape[2])
        else:
            of_wanted = partial(conv, first)
            shape = (self.size, self.size, first.shape[3], second.shape[3])
        wanted = jax.ShapeDtypeStruct(shape, second.dtype)
        return jax.linear_transpose(of_wanted, wanted)(second)[0]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _product(product: _Product, first: jax.Array, second: jax.Array) -> jax.Array:
    return lax.platform_dependent(first, second, cpu=product.cpu, default=product.xla)


@partial(_product.defjvp, symbolic_zeros=True)
def _product_jvp(product: _Product, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    out = _product(product, *primals)
    terms = [
        _change(product, name, other, constant, tangent, out)
        for name, other, constant, tangent in zip(
            product.given, product.given[::-1], primals[::-1], tangents, strict=True
        )
        if not isinstance(tangent, SymbolicZero)
    ]
    return out, sum(terms[1:], start=terms[0]) if terms else jnp.zeros_like(out)


def _change(
    product: _Product, name: str, other: str, constant: jax.Array, x: jax.Array, out: jax.Array
) -> jax.Array:
    """Return the product for x in the place ``name``; reverse mode computes another product."""
    back = replace(product, wanted=name)
    return linear(
        lambda constant, x: product.of(**{other: constant, name: x}),
        lambda constant, y: back.of(**{other: constant, product.wanted: y}),
        (constant,),
        x,
        out,
    )


def _input_gradient(
    grad: jax.Array, kernel: jax.Array, sides: tuple[int, ...], stride: int, padding: int
) -> jax.Array:
    """Convolve the gradient, dilated by the stride, with the flipped and transposed kernel."""
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)  # [K, K, O, C]
    before = kernel.shape[0] - 1 - padding
    is_bfloat16 = grad.dtype == jnp.bfloat16
    if stride == 1 and (before >= 0 or is_bfloat16):
        return _cpu_conv(grad, flipped, 1, before)
    if is_bfloat16:
        return products.input_gradient(grad, kernel, sides, stride, padding)
    pads = [
        # x_side also counts the rows and columns that no window reaches, as the stride skips them.
        (before, x_side + padding - (stride * (grad_side - 1) + 1))
        for x_side, grad_side in zip(sides, grad.shape[1:3], strict=True)
    ]
    return lax.conv_general_dilated(
        grad, flipped, (1, 1), pads, lhs_dilation=(stride, stride), dimension_numbers=NHWC
    )


@dataclass(frozen=True)
class Operations:
    """The operations that a network computes with.

    Copying or unpickling `FAST` or `PLAIN` gives the same object, so that a copied model equals the
    original for `jax.jit` and `jax.tree`.

    Attributes:
        name: of the constant in this file.
        conv, pool: with the arguments of these functions.
    """

    name: str
    conv: Callable[[jax.Array, jax.Array, int, int], jax.Array]
    pool: Callable[..., jax.Array]

    def __reduce__(self) -> str:
        return self.name

    def conv_general_dilated(
        self,
        x: jax.Array,
        kernel: jax.Array,
        window_strides: Sequence[int],
        padding: str | Sequence[tuple[int, int]],
        **settings: Any,
    ) -> jax.Array:
        """Return ``conv``'s result from the arguments that `flax.nnx.Conv` gives.

        A layer with settings that ``conv`` does not have, such as a dilation, gets XLA's operation.
        """
        ones = *settings["lhs_dilation"], *settings["rhs_dilation"], settings["feature_group_count"]
        precision = settings["precision"], settings.get("preferred_element_type")
        if set(ones) == {1} and precision == (None, None) and not isinstance(padding, str):
            pads = [pad for pair in padding for pad in pair]
            if all(len(set(sides)) == 1 for sides in (kernel.shape[:2], window_strides, pads)):
                return self.conv(x, kernel, window_strides[0], pads[0])
        return lax.conv_general_dilated(x, kernel, window_strides, padding, **settings)


FAST = Operations("FAST", conv, pool)

# One XLA operation each, with XLA's own gradients. The accounting counts these, and the benchmarks
# compare the fast ones with them.
PLAIN = Operations("PLAIN", _plain_conv, plain_pool)
