"""bfloat16 computation: float32 parameters and logits, and close to float32 throughout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import nin_jax
from parity_tests.forward import flax_forward, torch_forward
from parity_tests.frameworks import assert_close
from parity_tests.pairs import make_pair
from parity_tests.tolerances import BFLOAT16_LOGITS


@pytest.mark.parametrize("variant", nin_jax.list_variants())
def test_logits(variant):
    pair = make_pair(
        variant, image_size=(96, 96), precision="float32", compute_dtype="bfloat16", batch_size=4
    )
    params = jax.tree.leaves(nnx.state(pair.model, nnx.Param))
    assert {param.dtype for param in params} == {np.dtype("float32")}
    actual = flax_forward(pair.model, pair.images)
    assert {layer.dtype for layer in actual.layers} == {jnp.dtype("bfloat16")}
    assert_close(actual.logits, torch_forward(pair).logits, BFLOAT16_LOGITS, "logits")
