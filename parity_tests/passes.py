"""A forward and backward pass in each framework: layers, blocks, logits, loss and gradients."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any
from unittest import mock

import jax
import numpy as np
import optax
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from flax import nnx
from torch import nn

import nin_jax
import nin_torch_ref
from nin_jax.models import ops
from parity_tests.frameworks import as_array, as_nchw, as_nhwc, as_tensor, assert_close
from parity_tests.pairs import Pair
from parity_tests.tolerances import FORWARD, GRADIENT, Precision

# The suite compiles without LLVM's optimization (see conftest.py at the top); these options
# compile as users do. The operations are the same.
AS_USERS_COMPILE: dict[str, bool | str | int | float] = {"xla_backend_optimization_level": 3}
if "xla_cpu_use_fusion_emitters" in os.environ["XLA_FLAGS"]:
    AS_USERS_COMPILE["xla_cpu_use_fusion_emitters"] = True


@dataclass(frozen=True)
class Pass:
    """What a network computes in a forward and backward pass; maps are [B, H, W, C].

    Attributes:
        layers: outputs of every ReLU and pool.
        blocks: outputs of every NiN block.
        logits: [B, num_classes].
        loss: mean cross entropy, a scalar.
        gradients: of the loss, by the reference's parameter names, in its layout.
    """

    layers: list[np.ndarray]
    blocks: list[np.ndarray]
    logits: np.ndarray
    loss: np.ndarray
    gradients: dict[str, np.ndarray]

    def assert_same_forward(
        self, expected: "Pass", precision: Precision, *, all_zero: bool = False
    ) -> None:
        """Assert that every activation and the loss are within their bound."""
        for kind in ("layers", "blocks"):
            pairs = zip(getattr(self, kind), getattr(expected, kind), strict=True)
            for i, pair in enumerate(pairs, start=1):
                what = f"{kind} {i}"
                assert_close(*pair, FORWARD[precision], what, all_zero=all_zero)
        for what in ("logits", "loss"):
            pair = getattr(self, what), getattr(expected, what)
            assert_close(*pair, FORWARD[precision], what, all_zero=all_zero)

    def assert_same_gradients(
        self, expected: "Pass", precision: Precision, *, all_zero: bool = False
    ) -> None:
        """Assert that the gradient of every parameter is within its bound."""
        assert self.gradients.keys() == expected.gradients.keys()
        for name, gradient in expected.gradients.items():
            bound = GRADIENT[precision]
            assert_close(self.gradients[name], gradient, bound, name, all_zero=all_zero)

    def assert_same(self, expected: "Pass", precision: Precision, **options: bool) -> None:
        """Assert that all of the pass is within its bounds; ``expected`` is PyTorch's."""
        self.assert_same_forward(expected, precision, **options)
        self.assert_same_gradients(expected, precision, **options)


@contextmanager
def _recording_torch(
    model: nin_torch_ref.NiN,
) -> Iterator[tuple[list[np.ndarray], list[np.ndarray]]]:
    """Collect the outputs of every ReLU and pool, and of every block."""
    layers: list[np.ndarray] = []
    blocks: list[np.ndarray] = []

    def keep(outputs: list[np.ndarray]) -> Callable[..., None]:
        return lambda module, inputs, output: outputs.append(as_nhwc(output))

    hooks = [
        module.register_forward_hook(keep(blocks if isinstance(module, nn.Sequential) else layers))
        for module in model.net.modules()
        if isinstance(module, nn.ReLU | nn.MaxPool2d | nn.AvgPool2d | nn.Sequential)
        and module is not model.net
    ]
    try:
        yield layers, blocks
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _recording_flax() -> Iterator[tuple[list[jax.Array], list[jax.Array]]]:
    """Collect the same outputs of Flax's model while it is traced."""
    layers: list[jax.Array] = []
    blocks: list[jax.Array] = []

    def keep(function: Callable[..., jax.Array], outputs: list[jax.Array]):
        @wraps(function)
        def wrapper(*args: Any, **options: Any) -> jax.Array:
            outputs.append(function(*args, **options))
            return outputs[-1]

        return wrapper

    with (
        mock.patch.object(nnx, "relu", keep(nnx.relu, layers)),
        mock.patch.dict(vars(ops.FAST), {"pool": keep(ops.FAST.pool, layers)}),
        mock.patch.object(nin_jax.NiNBlock, "__call__", keep(nin_jax.NiNBlock.__call__, blocks)),
    ):
        yield layers, blocks


def torch_pass(pair: Pair) -> Pass:
    """Run the reference on the pair's batch."""
    pair.reference.zero_grad()
    with _recording_torch(pair.reference) as (layers, blocks):
        logits = pair.reference(as_nchw(pair.images))
    loss = F.cross_entropy(logits, as_tensor(pair.labels))
    loss.backward()
    gradients = {
        name: as_array(parameter.grad)
        for name, parameter in pair.reference.named_parameters()
        if isinstance(parameter.grad, torch.Tensor)
    }
    return Pass(layers, blocks, as_array(logits), as_array(loss), gradients)


def flax_loss(
    graphdef: nnx.GraphDef,
    params: nnx.State,
    images: Any,
    labels: Any,
    dropout_key: jax.Array | None = None,
) -> tuple[jax.Array, tuple[list[jax.Array], list[jax.Array], jax.Array]]:
    """Return the model's mean cross entropy, and its layers, blocks and logits."""
    rngs = None if dropout_key is None else nnx.Rngs(dropout=dropout_key)
    with _recording_flax() as (layers, blocks):
        logits = nnx.merge(graphdef, params)(images, rngs=rngs)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return loss, (layers, blocks, logits)


def compile_loss_and_gradient(graphdef: nnx.GraphDef, **jit_options: Any) -> Callable[..., Any]:
    """Return `flax_loss` with its gradient for the parameters, to be compiled at its first call."""
    return jax.jit(jax.value_and_grad(partial(flax_loss, graphdef), has_aux=True), **jit_options)


def flax_pass(model: nin_jax.NiN, **jit_options: Any) -> Callable[..., Pass]:
    """Return a function (pair, optional dropout key) -> `Pass`; it compiles once."""
    graphdef, params = nnx.split(model, nnx.Param)
    compiled = compile_loss_and_gradient(graphdef, **jit_options)

    def run(pair: Pair, dropout_key: jax.Array | None = None) -> Pass:
        (loss, aux), gradients = compiled(params, pair.images, pair.labels, dropout_key)
        layers, blocks, logits = jax.tree.map(np.asarray, aux)
        # A model whose parameters are the gradients gives them PyTorch's layout and names.
        named = nin_jax.convert.to_torch(nnx.merge(graphdef, gradients))
        return Pass(layers, blocks, logits, np.asarray(loss), named)

    return run
