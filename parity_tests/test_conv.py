"""The convolution's values and gradients, and those of XLA's own, against PyTorch's."""

import re
from functools import partial
from itertools import cycle, product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere

from nin_jax.models import ops, processor, taps, winograd
from parity_tests.frameworks import (
    as_array,
    as_nchw,
    as_nhwc,
    as_tensor,
    assert_close,
    of_the_cpu,
)
from parity_tests.tolerances import CONV, ROUNDED_TO_BFLOAT16

# Every kernel with every stride; paddings and channels alternate, the slow cases with others.
# A padding of 12 is larger than any kernel.
PADDINGS = [0, 1, 2, 5, 12]
CHANNELS = [(1, 4), (3, 5), (4, 2), (6, 7)]
CASES = [
    pytest.param(
        kernel,
        stride,
        PADDINGS[(i + 2 * turn) % 5],
        CHANNELS[(i + i // 4 + turn) % 4],
        marks=[pytest.mark.slow] * turn,
    )
    for i, (kernel, stride) in enumerate(product([1, 2, 3, 5, 7, 11], [1, 2, 3, 4]))
    for turn in (0, 1)
]
LAYERS = [  # the first convolutions of the built-in variants, and their 1x1
    (11, 4, 0, (1, 6)),
    (11, 4, 0, (3, 6)),
    (5, 1, 2, (6, 8)),
    (3, 2, 1, (3, 6)),
    (3, 1, 1, (6, 8)),
    (3, 1, 1, (32, 33)),
    (1, 1, 0, (6, 8)),
]
DISTINCT = [LAYERS[0], LAYERS[5], LAYERS[6]]  # strided, Winograd's, 1x1


def _case(kernel: int, stride: int, padding: int, channels: tuple[int, int], batch: int = 2):
    """Return images, a kernel and the gradient of the output; float64, odd and not square."""
    rng = np.random.default_rng(kernel + 16 * stride)
    inputs, outputs = channels
    height, width = kernel + 6, kernel + 9  # no stride above 1 divides both
    sides = [(side + 2 * padding - kernel) // stride + 1 for side in (height, width)]
    return (
        rng.normal(size=(batch, height, width, inputs)),
        rng.normal(size=(kernel, kernel, inputs, outputs)),
        rng.normal(size=(batch, *sides, outputs)),
    )


def _torch_conv_and_gradients(x, kernel, grad, stride: int, padding: int):
    """Return the output, input gradient and kernel gradient, in JAX's layouts."""
    images = as_nchw(x).requires_grad_()
    weight = as_tensor(kernel.transpose(3, 2, 0, 1)).requires_grad_()
    out = F.conv2d(images, weight, stride=stride, padding=padding)
    dx, dk = torch.autograd.grad(out, (images, weight), as_nchw(grad))
    return as_nhwc(out), as_nhwc(dx), as_array(dk).transpose(2, 3, 1, 0)


def _conv_and_gradients(conv, x, kernel, grad):
    out, pullback = jax.vjp(conv, x, kernel)
    return out, *pullback(grad)


def _check(actual, expected) -> None:
    for a, e, what in zip(actual, expected, ["output", "input", "kernel"], strict=True):
        assert_close(a, e, CONV, what)


@pytest.mark.parametrize(("kernel", "stride", "padding", "channels"), CASES)
def test_gradients(kernel, stride, padding, channels):
    _check_conv(ops.conv, kernel, stride, padding, channels)


@pytest.mark.parametrize(("kernel", "stride", "padding", "channels"), DISTINCT)
def test_gradients_of_xla(kernel, stride, padding, channels):
    _check_conv(ops.PLAIN.conv, kernel, stride, padding, channels)


def _check_conv(conv, kernel, stride, padding, channels):
    x, weights, grad = _case(kernel, stride, padding, channels)
    conv = partial(conv, stride=stride, padding=padding)
    actual = jax.jit(partial(_conv_and_gradients, conv))(x, weights, grad)
    _check(actual, _torch_conv_and_gradients(x, weights, grad, stride, padding))


# Output widths: too narrow for Winograd (3), whole tiles and every remainder of the short tile; of
# the long tile too, which only 3x3 kernels have.
SHORT = tuple(range(3, 9))
LONG = tuple(range(winograd.WIDE - 1, winograd.WIDE + 6))
FEW_SHORT, FEW_LONG = (3, 4, 7), (winograd.WIDE - 1, winograd.WIDE + 1)
HEIGHTS = (7, 6, 2, 1)  # of the outputs, in turn, unless the image would have no row
WINOGRAD_CASES = [  # (kernel, padding, channels, output widths)
    (3, 1, (32, 40), FEW_SHORT + FEW_LONG),
    (5, 2, (40, 32), (*FEW_SHORT, winograd.WIDE + 1)),
    (3, 5, (40, 32), (13, 26)),  # the input's gradient is not of Winograd's form
    (5, 0, (32, 31), (7,)),  # too few channels for Winograd
    *(  # every width with the paddings of the variants
        pytest.param(*case, marks=pytest.mark.slow)
        for case in (
            (3, 0, (32, 40), FEW_SHORT + FEW_LONG),
            (3, 1, (40, 32), SHORT + LONG),
            (3, 2, (32, 40), FEW_SHORT + FEW_LONG),
            (5, 0, (32, 40), FEW_SHORT),
            (5, 1, (40, 32), FEW_SHORT),
            (5, 2, (32, 40), SHORT),
        )
    ),
]


def _winograd_products(kernel: int, padding: int, width: int, out_width: int) -> int:
    """Return the number of matrix products of a convolution and its gradients."""

    def along_a_row(outputs: int) -> int:
        return winograd.tile_width(kernel, outputs) + kernel - 1

    along_a_column = winograd.TILE_HEIGHT + kernel - 1
    conv = along_a_column * along_a_row(out_width)
    input_gradient = along_a_column * along_a_row(width) if padding < kernel else 0  # else XLA's
    return conv + input_gradient + along_a_row(out_width)


@pytest.mark.parametrize(("kernel", "padding", "channels", "out_widths"), WINOGRAD_CASES, ids=str)
def test_gradients_by_winograd(kernel, padding, channels, out_widths):
    rng = np.random.default_rng(kernel + 8 * padding)
    inputs, outputs = channels
    run = jax.jit(partial(_conv_and_gradients, partial(ops.conv, padding=padding)))
    for out_sides in zip(cycle(HEIGHTS), out_widths, strict=False):
        height, width = (max(1, side + kernel - 1 - 2 * padding) for side in out_sides)
        out_sides = taps.out_sides((height, width), kernel, padding)
        x = rng.normal(size=(2, height, width, inputs))
        weights = rng.normal(size=(kernel, kernel, inputs, outputs))
        grad = rng.normal(size=(2, *out_sides, outputs))
        if min(width, out_sides[1]) >= 4 and min(channels) >= 32:
            text = run.trace(x, weights, grad).lower(lowering_platforms=("cpu",)).as_text()
            expected = _winograd_products(kernel, padding, width, out_sides[1])
            assert text.count("stablehlo.dot_general") == expected
        _check(run(x, weights, grad), _torch_conv_and_gradients(x, weights, grad, 1, padding))


SMALL_MAPS = [  # (height, width, kernel, padding)
    (1, 1, 3, 1),
    (1, 1, 5, 2),
    (3, 3, 2, 0),
    (3, 3, 3, 1),
    (2, 3, 5, 2),
    (5, 4, 3, 0),  # the output is small, not the image
    (7, 7, 7, 0),
    (1, 2, 3, 2),  # the image is small, not the output
]


@pytest.mark.parametrize(("height", "width", "kernel", "padding"), SMALL_MAPS)
def test_gradients_on_small_maps(height, width, kernel, padding):
    rng = np.random.default_rng(height + 8 * width)
    sides = [side + 2 * padding - kernel + 1 for side in (height, width)]
    x = rng.normal(size=(2, height, width, 3))
    weights = rng.normal(size=(kernel, kernel, 3, 4))
    grad = rng.normal(size=(2, *sides, 4))
    run = jax.jit(partial(_conv_and_gradients, partial(ops.conv, padding=padding)))
    program = run.trace(x, weights, grad).lower(lowering_platforms=("cpu",)).as_text()
    assert "convolution" not in program
    _check(run(x, weights, grad), _torch_conv_and_gradients(x, weights, grad, 1, padding))


def test_an_output_without_rows_is_empty():
    x, kernel = jnp.zeros((1, 2, 8, 32)), jnp.zeros((3, 3, 32, 32))
    assert ops.conv(x, kernel).shape == ops.PLAIN.conv(x, kernel, 1, 0).shape == (1, 0, 6, 32)


@pytest.mark.parametrize(("size", "length"), [(3, 2), (3, 4), (3, 6), (5, 2), (5, 4)])
def test_winograd_transforms_are_exact(size, length):
    """For each tap: a kernel that is 1 at that tap only must shift its inputs."""
    a_t, g, b_t = winograd.matrices(size, length)
    for tap in range(size):
        filtered = a_t @ (g[:, tap, None] * b_t)  # [m, P]
        moved = np.eye(length, len(b_t), k=tap)
        # Every entry is a fraction with a small denominator, so rounding stays near eps.
        np.testing.assert_allclose(filtered, moved, atol=1e-14)


@of_the_cpu
@pytest.mark.parametrize("multiplies", [False, True])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "channels"),
    [*LAYERS, (3, 2, 2, (5, 4)), (3, 1, 5, (4, 5)), (2, 3, 0, (4, 5)), (1, 2, 1, (4, 5))],
)
def test_bfloat16_rounds_once(monkeypatch, multiplies, kernel, stride, padding, channels):
    """The sums are float32, by Winograd's method too, and with a processor's instructions."""
    monkeypatch.setattr(processor, "multiplies_bfloat16", lambda: multiplies)
    _check_bfloat16(_case(kernel, stride, padding, channels), stride, padding, multiplies)


@of_the_cpu
@pytest.mark.parametrize("sides", [(2, 3), (3, 3)])
def test_bfloat16_on_small_maps(monkeypatch, sides):
    monkeypatch.setattr(processor, "multiplies_bfloat16", lambda: True)
    rng = np.random.default_rng(0)
    shapes = (2, *sides, 5), (3, 3, 5, 4), (2, *sides, 4)
    _check_bfloat16([rng.normal(size=shape) for shape in shapes], 1, 1, multiplies=True)


def _check_bfloat16(case, stride: int, padding: int, multiplies: bool) -> None:
    rounded = [a.astype(jnp.bfloat16) for a in case]
    conv = partial(ops.conv, stride=stride, padding=padding)

    @jax.jit
    def run(*arrays):  # in a loop, as a micro-batch
        return jax.lax.scan(lambda _, a: (None, _conv_and_gradients(conv, *a)), None, arrays)[1]

    program = run.trace(*(a[None] for a in rounded)).lower(lowering_platforms=("cpu",))
    if multiplies:  # only such products use the processor's instructions
        text = program.as_text()
        types = re.findall(r"dot_general.*: \(tensor<.*x(.*)>, tensor<.*x(.*)>\) .*x(.*)>", text)
        assert set(types) == {("bf16", "bf16", "f32")}
        assert len(types) == text.count("dot_general")
        assert "convolution" not in text
    results = [a[0] for a in program.compile()(*(a[None] for a in rounded))]
    assert {result.dtype for result in results} == {jnp.dtype("bfloat16")}
    x, weights, grad = (a.astype(float) for a in rounded)
    exact = _torch_conv_and_gradients(x, weights, grad, stride, padding)
    for a, e, what in zip(results, exact, ["output", "input", "kernel"], strict=True):
        assert_close(a.astype(float), e, ROUNDED_TO_BFLOAT16, what)


@of_the_cpu
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "channels"),
    [(11, 4, 0, (1, 96)), (5, 1, 2, (32, 48)), (1, 1, 0, (32, 48))],
)
def test_products_of_bfloat16_keep_their_form(monkeypatch, kernel, stride, padding, channels):
    """XLA compiles each to its kernel with the instructions, which no other form gets."""
    monkeypatch.setattr(processor, "multiplies_bfloat16", lambda: True)
    conv = partial(ops.conv, stride=stride, padding=padding)
    arrays = [a.astype(jnp.bfloat16) for a in _case(kernel, stride, padding, channels, batch=4)]
    text = jax.jit(partial(_conv_and_gradients, conv)).lower(*arrays).compile().as_text() or ""
    kernels = re.findall(r"calls=%([\w.-]+),.*__ynn_fusion", text)
    bodies = dict(re.findall(r"^%([\w.-]+) \((.*?)^}", text, re.M | re.S))
    products = [name for name, body in bodies.items() if " dot(" in body]
    assert products
    assert set(products) <= set(kernels)
    for name in products:
        assert re.findall(r"(\w+)\[[\d,]*\]", bodies[name].partition("->")[0]) == ["bf16"] * 2


@pytest.mark.parametrize(
    ("transform", "kernel", "stride", "padding", "channels"),
    [
        *(("scan", *layer) for layer in LAYERS),  # as micro-batches
        *(("vmap", *layer) for layer in DISTINCT),
    ],
)
def test_gradients_in_a_transformation(transform, kernel, stride, padding, channels):
    """Four images in micro-batches of two, as gradient accumulation computes them."""
    x, weights, grad = _case(kernel, stride, padding, channels, batch=4)
    out, dx, dk = _torch_conv_and_gradients(x, weights, grad, stride, padding)

    def one(x, grad):
        conv = partial(ops.conv, stride=stride, padding=padding)
        return _conv_and_gradients(conv, x, weights, grad)

    @jax.jit
    def run(*batches):
        if transform == "vmap":
            return jax.vmap(one)(*batches)
        return jax.lax.scan(lambda carry, batch: (carry, one(*batch)), None, batches)[1]

    actual = run(*(a.reshape(2, 2, *a.shape[1:]) for a in (x, grad)))
    _check(
        (actual[0].reshape(out.shape), actual[1].reshape(dx.shape), actual[2].sum(0)), (out, dx, dk)
    )
