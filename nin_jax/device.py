"""Which device a run takes, and how much of a batch it works on at a time."""

import math
from typing import Literal

import jax

from nin_jax.errors import UserError
from nin_jax.geometry import trace
from nin_jax.model import NiN

# As much of the largest activation as a CPU's caches keep; measured with scripts/train.py.
CPU_ACTIVATION_BYTES = 8 * 2**20


def select_device(wanted: Literal["auto", "cpu", "gpu"]) -> None:
    """Makes ``wanted`` the device that JAX uses by default.

    Raises:
        UserError: a GPU is asked for and JAX finds none.
    """
    if wanted == "auto":
        return
    try:
        device = jax.devices(wanted)[0]
    except RuntimeError:
        have = ", ".join(sorted({device.platform for device in jax.devices()}))
        raise UserError(
            f"--device {wanted}: JAX finds none here, only {have}; for an NVIDIA GPU install "
            "with pip install -e '.[cuda12]'"
        ) from None
    jax.config.update("jax_default_device", device)


def default_micro_batch_size(model: NiN) -> int | None:
    """Images per micro-batch: on a CPU a power of two that fits its cache, else None, for all."""
    chosen = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    device = chosen or jax.devices()[0]
    if device.platform != "cpu":
        return None
    layers = trace(model.variant, model.in_channels, model.num_classes, model.image_size)
    largest = 4 * max(math.prod(layer.out_shape) for layer in layers)  # float32
    fitting = max(1, CPU_ACTIVATION_BYTES // largest)
    return 1 << (fitting.bit_length() - 1)
