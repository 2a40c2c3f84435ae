"""One device for both frameworks, arrays between them, and how they are compared."""

from typing import Any

import jax
import numpy as np
import numpy.typing as npt
import torch


def _devices() -> tuple[torch.device, Any]:
    """The GPU if both frameworks see one, else the CPU, for both."""
    if jax.default_backend() == "gpu" and torch.cuda.is_available():
        return torch.device("cuda"), jax.devices()[0]
    return torch.device("cpu"), jax.devices("cpu")[0]


TORCH_DEVICE, JAX_DEVICE = _devices()


def as_tensor(array: npt.ArrayLike) -> torch.Tensor:
    """A copy on the reference's device, axes as they are."""
    return torch.tensor(np.asarray(array), device=TORCH_DEVICE)


def as_nchw(images: npt.ArrayLike) -> torch.Tensor:
    """[B, H, W, C] -> tensor [B, C, H, W], contiguous."""
    return as_tensor(images).permute(0, 3, 1, 2).contiguous()


def as_array(tensor: torch.Tensor) -> np.ndarray:
    """The tensor's values in host memory, axes as they are."""
    return tensor.detach().cpu().numpy()


def as_nhwc(maps: torch.Tensor) -> np.ndarray:
    """[B, C, H, W] -> array [B, H, W, C]; anything without four axes stays as it is."""
    return as_array(maps.permute(0, 2, 3, 1) if maps.ndim == 4 else maps)


def worst_error(actual: npt.ArrayLike, expected: npt.ArrayLike) -> float:
    """Largest absolute difference, over the largest expected; NaN if either has a NaN."""
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
    """Same shape, same dtype, and a worst error within the tolerance.

    ``expected`` is PyTorch's, and must hold something other than zero unless ``all_zero``
    admits that: two arrays of zeros agree about nothing.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, what
    assert actual.dtype == expected.dtype, what
    assert all_zero or np.any(expected), f"{what}: all zero, which proves nothing"
    error = worst_error(actual, expected)
    assert error <= tolerance, f"{what}: worst error {error:.2e}, bound {tolerance:.0e}"
