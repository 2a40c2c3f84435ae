"""Computation in bfloat16: float32 parameters and logits, and results close to float32's."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from nin_jax.models import processor
from parity_tests.frameworks import as_array, as_nchw, assert_close
from parity_tests.pairs import make_pair
from parity_tests.passes import flax_loss
from parity_tests.tolerances import BFLOAT16_LOGITS


@pytest.mark.parametrize(
    ("variant", "multiplies"),  # whether the processor has instructions for bfloat16
    [
        *(("nin_3x3", False), ("nin_fc", False), ("nin15", False), ("nin15", True)),
        pytest.param("nin", True, marks=pytest.mark.slow),
        pytest.param("nin27", False, marks=pytest.mark.slow),  # the deepest
        pytest.param("nin_cifar10", False, marks=pytest.mark.slow),  # with an average pool
    ],
)
def test_logits(monkeypatch, variant, multiplies):
    monkeypatch.setattr(processor, "multiplies_bfloat16", lambda: multiplies)
    pair = make_pair(variant, precision="float32", compute_dtype="bfloat16", batch_size=4)
    graphdef, params = nnx.split(pair.model, nnx.Param)
    assert {param.dtype for param in jax.tree.leaves(params)} == {np.dtype("float32")}
    _, (layers, _, logits) = jax.jit(partial(flax_loss, graphdef))(params, pair.images, pair.labels)
    assert {layer.dtype for layer in layers} == {jnp.dtype("bfloat16")}
    with torch.no_grad():
        expected = as_array(pair.reference(as_nchw(pair.images)))
    assert_close(logits, expected, BFLOAT16_LOGITS, "logits")
