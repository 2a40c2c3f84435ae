"""Both frameworks at full precision, with fixed seeds."""

import jax
import numpy as np
import pytest
import torch

from parity_tests.frameworks import JAX_DEVICE

# OpenMP's threads spin while XLA's threads work: with two cores a step took ten times as long.
torch.set_num_threads(1)


@pytest.fixture(scope="package", autouse=True)
def _full_precision():
    """For these tests only: the others run with the defaults, as users do.

    PyTorch's settings are made here and not when the file is imported, because the tests of the
    benchmarks change them in the same process.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    with (
        jax.enable_x64(True),  # many tests are in float64
        jax.default_matmul_precision("highest"),  # no TF32, no bfloat16 passes
        jax.default_device(JAX_DEVICE),
    ):
        yield


@pytest.fixture(autouse=True)
def _seed_torch():
    torch.manual_seed(0)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
