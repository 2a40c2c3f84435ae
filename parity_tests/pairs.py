"""One network in both frameworks, with the same weights."""

from dataclasses import dataclass
from typing import Any
from unittest import mock

import jax
import numpy as np
import torch
from jax.typing import DTypeLike

import nin_jax
import nin_torch_ref
from nin_jax.training.config import Init
from parity_tests.frameworks import TORCH_DEVICE, as_array
from parity_tests.tolerances import Precision


@dataclass(frozen=True)
class Pair:
    """The reference and the model, in eval mode, and a batch for them."""

    reference: nin_torch_ref.NiN
    model: nin_jax.NiN
    images: np.ndarray  # [B, H, W, C] in [0, 1]
    labels: np.ndarray  # [B]


def no_initial_draws():
    """Zeros for parameters that will be overwritten: each shape's draw takes 1 s to compile."""

    def zeros(key: Any, shape: tuple[int, ...], dtype: Any, *bounds: float) -> jax.Array:
        return jax.numpy.asarray(np.zeros(shape, dtype))

    return mock.patch.object(jax.random, "uniform", zeros)


def make_pair(
    variant: str | nin_jax.Variant,
    architecture: nin_torch_ref.Architecture | None = None,
    *,
    in_channels: int = 1,
    num_classes: int = 10,
    image_size: tuple[int, int] = (224, 224),
    init: Init = "xavier",
    logit_relu: bool = True,
    precision: Precision = "float64",
    compute_dtype: DTypeLike | None = None,
    batch_size: int = 2,
    seed: int = 0,
) -> Pair:
    """The reference's weights, converted; the architecture need only be given if it has no name.

    ``compute_dtype`` is Flax's, if not the precision of the parameters and the reference.

    Raises:
        ValueError: the reference does not take this.
        nin_jax.UserError: nin_jax does not.
    """
    options: dict[str, Any] = {
        "in_channels": in_channels,
        "num_classes": num_classes,
        "image_size": image_size,
        "logit_relu": logit_relu,
    }
    named = architecture or nin_jax.get_variant(variant).name
    reference = nin_torch_ref.create_model(named, **options, init=init, seed=seed).eval()
    reference = reference.to(TORCH_DEVICE, getattr(torch, precision))
    state_dict = {name: as_array(value) for name, value in reference.state_dict().items()}
    with no_initial_draws():
        model = nin_jax.convert.from_torch(
            state_dict,
            variant,
            **options,
            dtype=compute_dtype or precision,
            param_dtype=precision,
        )
    rng = np.random.default_rng(seed)
    images = rng.random((batch_size, *image_size, in_channels)).astype(precision)
    return Pair(reference, model, images, rng.integers(num_classes, size=batch_size))
