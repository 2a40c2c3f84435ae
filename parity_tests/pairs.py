"""One network in both frameworks, with the same weights."""

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from jax.typing import DTypeLike

import nin_jax
import nin_torch_ref
from nin_jax.data.datasets import Dataset, load_dataset
from nin_jax.models.init import Init
from parity_tests.frameworks import TORCH_DEVICE, as_array
from parity_tests.tolerances import Precision

# The size of most tests, (height, width): small, odd and not square, and the head's maps have more
# than one pixel. One size for all lets tests share compiled programs. The second is for networks of
# small images.
IMAGE_SIZE, SMALL_IMAGE_SIZE = (99, 83), (37, 29)


def distinct_variants() -> list[str]:
    """Return the names of the variants, without those that repeat a network under another name."""
    names = reversed(nin_jax.list_variants())
    distinct = {
        replace(nin_jax.get_variant(name), name="one", published_lr=1.0): name for name in names
    }
    return list(distinct.values())[::-1]


def image_size_of(variant: str | nin_jax.Variant) -> tuple[int, int]:
    """Return the size at which tests compute a network."""
    return IMAGE_SIZE if nin_jax.get_variant(variant).image_size == 224 else SMALL_IMAGE_SIZE


@dataclass(frozen=True)
class Pair:
    """The reference and the model, in eval mode, and a batch for them."""

    reference: nin_torch_ref.NiN
    model: nin_jax.NiN
    images: np.ndarray  # [B, H, W, C] in [0, 1]
    labels: np.ndarray  # [B]


def fast(*names: str) -> list[Any]:
    """Return all networks as test parameters; tests of those that are not named are slow."""
    return [
        variant if variant in names else pytest.param(variant, marks=pytest.mark.slow)
        for variant in distinct_variants()
    ]


def random_cases(examples: int) -> settings:
    """Return the settings of a property test: so many cases, the same ones each time."""
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


def fashion_mnist() -> Dataset | None:
    """Return Fashion-MNIST if NIN_DATA_DIR has it, else None; nothing is downloaded."""
    if not os.environ.get("NIN_DATA_DIR"):
        return None
    try:
        return load_dataset("fashion_mnist")
    except nin_jax.UserError:  # the folder holds other datasets
        return None


def real_images(count: int) -> np.ndarray:
    """Return test images of Fashion-MNIST, or digits where it is missing: uint8 [N, H, W, 1]."""
    if (found := fashion_mnist()) is not None:
        return found.test.images[:count]
    digits = load_dataset("digits")
    return np.concatenate([digits.train.images, digits.test.images])[:count]


def make_pair(
    variant: str | nin_jax.Variant,
    architecture: nin_torch_ref.Architecture | None = None,
    *,
    in_channels: int = 1,
    num_classes: int = 10,
    image_size: tuple[int, int] | None = None,
    init: Init = "xavier",
    logit_relu: bool = True,
    precision: Precision = "float64",
    compute_dtype: DTypeLike | None = None,
    batch_size: int = 2,
    seed: int = 0,
) -> Pair:
    """Make a reference, and a model with the reference's weights.

    Args:
        variant: nin_jax's side.
        architecture: the reference's side; needed if the variant is not built in.
        in_channels, num_classes, init, logit_relu, seed: as for `create_model`.
        image_size: (height, width); None for `image_size_of`.
        precision: dtype of the parameters and of the images.
        compute_dtype: dtype of the model's computation, if it is not the precision.
        batch_size: number of images.

    Raises:
        ValueError: the reference refuses the arguments.
        nin_jax.UserError: nin_jax refuses them.
    """
    image_size = image_size or image_size_of(variant)
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
