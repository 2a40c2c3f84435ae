"""Check that a model has only layers that the accounting counts."""

import jax
import jax.numpy as jnp
from flax import nnx

from nin_jax.accounting.memory import ITEMSIZE
from nin_jax.accounting.programs import abstract_model
from nin_jax.models.geometry import Layer
from nin_jax.models.nin import NiN, count_params
from nin_jax.training.config import Precision


def check_model(model: NiN) -> tuple[Precision, list[Layer]]:
    """Return the precision and the layers of a model, which may have other layers than its variant.

    Raises:
        ValueError: a layer is of another kind or has another setting, or the model computes in a
            precision that the accounting has no rule for.
    """
    _check_types(model)
    layers = model.layers
    if not all(block.last_relu for block in model.blocks):
        raise ValueError("the model has a block without its last ReLU; only the head may lack it")
    params, counted = count_params(model), sum(layer.params for layer in layers)
    if params != counted:
        raise ValueError(f"the model has {params:,} parameters, where its layers have {counted:,}")
    return _precision(model), layers


def _check_types(model: NiN) -> None:
    geometry = model.variant, model.in_channels, model.num_classes, model.image_size
    built = abstract_model(*geometry, "float32", logit_relu=True)
    known = tuple({type(module) for _, module in nnx.iter_modules(built)})
    for path, module in nnx.iter_modules(model):
        if not isinstance(module, known):
            where = ".".join(map(str, path))
            raise ValueError(f"no rule counts {where}, a {type(module).__name__}")


def _precision(model: NiN) -> Precision:
    """Return the precision of all layers; parameters must be float32."""
    dtypes = [getattr(module, "dtype", None) for _, module in nnx.iter_modules(model)]
    found = {jnp.dtype(dtype).name for dtype in dtypes if dtype is not None}
    params = {leaf.dtype.name for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))}
    for precision in ITEMSIZE:
        if found == {precision} and params == {"float32"}:
            return precision
    raise ValueError(
        f"no rule counts a model that computes in {' and '.join(sorted(found))} with parameters "
        f"in {' and '.join(sorted(params))}; only float32 or bfloat16 with float32 parameters"
    )
