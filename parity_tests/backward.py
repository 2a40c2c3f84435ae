"""The loss and its gradients in each framework."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from flax import nnx

import nin_jax
from parity_tests.forward import recording_flax, recording_torch
from parity_tests.frameworks import as_array, as_nchw, as_tensor, assert_close
from parity_tests.pairs import Pair
from parity_tests.tolerances import FORWARD, GRADIENT, Precision

# The suite compiles without LLVM's optimisation (see conftest.py at the top); this is what users
# get. The operations are the same.
AS_USERS_COMPILE_IT: dict[str, bool | str | int | float] = {
    "xla_backend_optimization_level": 3,
    "xla_cpu_use_fusion_emitters": True,
}


@dataclass(frozen=True)
class Backward:
    """A forward and backward pass: gradients of the loss, by the reference's names."""

    logits: np.ndarray
    loss: np.ndarray  # mean cross entropy
    gradients: dict[str, np.ndarray]
    layers: list[np.ndarray]  # [B, H, W, C] after every ReLU and pool

    def assert_close(
        self, expected: "Backward", precision: Precision, *, all_zero: bool = False
    ) -> None:
        """Every array within its bound of the reference's."""
        forward, gradient = FORWARD[precision], GRADIENT[precision]
        assert_close(self.logits, expected.logits, forward, "logits", all_zero=all_zero)
        assert_close(self.loss, expected.loss, forward, "loss", all_zero=all_zero)
        assert self.gradients.keys() == expected.gradients.keys()
        for name, value in expected.gradients.items():
            assert_close(self.gradients[name], value, gradient, name, all_zero=all_zero)


def torch_backward(pair: Pair) -> Backward:
    """The reference's pass over the pair's batch."""
    pair.reference.zero_grad()
    with recording_torch(pair.reference) as (layers, _):
        logits = pair.reference(as_nchw(pair.images))
    loss = F.cross_entropy(logits, as_tensor(pair.labels))
    loss.backward()
    gradients = {
        name: as_array(parameter.grad)
        for name, parameter in pair.reference.named_parameters()
        if parameter.grad is not None
    }
    return Backward(as_array(logits), as_array(loss), gradients, layers)


def flax_loss(
    graphdef: nnx.GraphDef,
    params: nnx.State,
    images: Any,
    labels: Any,
    dropout_key: jax.Array | None = None,
) -> tuple[jax.Array, tuple[jax.Array, list[jax.Array]]]:
    """Mean cross entropy of the model that graphdef and params make; its logits and layers."""
    rngs = None if dropout_key is None else nnx.Rngs(dropout=dropout_key)
    with recording_flax() as (layers, _):
        logits = nnx.merge(graphdef, params)(images, rngs=rngs)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return loss, (logits, layers)


def compile_loss_and_gradient(graphdef: nnx.GraphDef, **jit_options: Any) -> Callable[..., Any]:
    """`flax_loss` with the gradient for its parameters."""
    return jax.jit(jax.value_and_grad(partial(flax_loss, graphdef), has_aux=True), **jit_options)


def flax_backward(model: nin_jax.NiN, **jit_options: Any) -> Callable[..., Backward]:
    """A function of a pair, and of a dropout key if there is to be dropout; compiled once."""
    graphdef, params = nnx.split(model, nnx.Param)
    compiled = compile_loss_and_gradient(graphdef, **jit_options)

    def backward(pair: Pair, dropout_key: jax.Array | None = None) -> Backward:
        (loss, aux), gradients = compiled(params, pair.images, pair.labels, dropout_key)
        logits, layers = jax.tree.map(np.asarray, aux)
        # A model whose parameters are gradients: so they get the layout and names of PyTorch's.
        named = nin_jax.convert.to_torch(nnx.merge(graphdef, gradients))
        return Backward(logits, np.asarray(loss), named, layers)

    return backward
