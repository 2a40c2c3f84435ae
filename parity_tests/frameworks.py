"""One device for both frameworks, and conversion and comparison of their arrays."""

from typing import Any

import jax
import numpy as np
import numpy.typing as npt
import pytest
import torch


def _devices() -> tuple[torch.device, Any]:
    """Return the GPU if both frameworks have one, else the CPU, for both."""
    if jax.default_backend() == "gpu" and torch.cuda.is_available():
        return torch.device("cuda"), jax.devices()[0]
    return torch.device("cpu"), jax.devices("cpu")[0]


TORCH_DEVICE, JAX_DEVICE = _devices()

# For tests of a form that a GPU's programs do not have.
of_the_cpu = pytest.mark.skipif(JAX_DEVICE.platform != "cpu", reason="a form of the CPU's program")


def as_tensor(array: npt.ArrayLike) -> torch.Tensor:
    """Copy an array to the reference's device, with the same axes."""
    return torch.tensor(np.asarray(array), device=TORCH_DEVICE)


def as_nchw(images: npt.ArrayLike) -> torch.Tensor:
    """Copy images [B, H, W, C] to a contiguous tensor [B, C, H, W]."""
    return as_tensor(images).permute(0, 3, 1, 2).contiguous()


def as_array(tensor: torch.Tensor) -> np.ndarray:
    """Return the tensor's values in host memory, with the same axes."""
    return tensor.detach().cpu().numpy()


def as_nhwc(maps: torch.Tensor) -> np.ndarray:
    """Return maps [B, C, H, W] as an array [B, H, W, C]; others keep their axes."""
    return as_array(maps.permute(0, 2, 3, 1) if maps.ndim == 4 else maps)


def worst_error(actual: npt.ArrayLike, expected: npt.ArrayLike) -> float:
    """Return max |actual - expected| / max |expected|; NaN if either contains NaN."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    difference, largest = np.abs(actual - expected).max(), np.abs(expected).max()
    if difference == 0:
        return 0.0
    return float(difference / largest) if largest > 0 else np.inf


def assert_close(
    actual: npt.ArrayLike,
    expected: npt.ArrayLike,
    tolerance: float,
    what: str,
    *,
    all_zero: bool = False,
) -> None:
    """Assert equal shapes and dtypes, and an error within the tolerance.

    ``expected`` is PyTorch's. It must not be all zero, unless ``all_zero`` allows that: equal
    zeros would prove nothing.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, what
    assert actual.dtype == expected.dtype, what
    assert all_zero or np.any(expected), f"{what}: all zero, which proves nothing"
    error = worst_error(actual, expected)
    assert error <= tolerance, f"{what}: worst error {error:.2e}, bound {tolerance:.0e}"
