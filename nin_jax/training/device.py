"""Which device a run takes, what it keeps of compiled programs, and how it divides its work."""

import math
import os
from typing import Any, Literal

import jax

from nin_jax.errors import UserError
from nin_jax.models.geometry import trace
from nin_jax.models.nin import NiN

# As much of the largest activation as a CPU's caches keep; measured with scripts/train.py.
CPU_ACTIVATION_BYTES = 8 * 2**20

# A line of metrics. Between two steps a GPU waits for the host about as long as a step of a small
# network takes; on a CPU a step takes so long that it does not matter.
GPU_STEPS_PER_DISPATCH = 10


# No atomics in reductions and scatters, and the same algorithm in every process.
DETERMINISTIC_FLAGS = "--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0"


def select_device(wanted: Literal["auto", "cpu", "gpu"]) -> None:
    """Makes ``wanted`` the device that JAX uses by default.

    Raises:
        UserError: a GPU is asked for and JAX finds none.
    """
    if wanted == "auto":
        return
    try:
        device = jax.local_devices(backend=wanted)[0]
    except RuntimeError:
        have = ", ".join(sorted({device.platform for device in jax.devices()}))
        raise UserError(
            f"--device {wanted}: JAX finds none here, only {have}; for an NVIDIA GPU install "
            "with pip install -e '.[cuda12]'"
        ) from None
    jax.config.update("jax_default_device", device)


def devices_for(count: int | Literal["all"]) -> list[Any]:
    """The devices of a run: all of the platform that `select_device` chose, or the first of them.

    Raises:
        UserError: there are fewer, or some would leave a process without any.
    """
    found = jax.devices(_platform())
    if count == "all":
        return found
    if count > len(found):
        raise UserError(
            f"--devices {count} are more than there are: {len(found)} ({found[0].device_kind}); on "
            "a CPU XLA_FLAGS=--xla_force_host_platform_device_count=8 makes 8 of it"
        )
    if jax.process_count() > 1 and count != len(found):
        raise UserError(
            f"--devices {count}: the devices of all processes are used, which are {len(found)}"
        )
    return found[:count]


def make_deterministic(wanted: bool) -> None:
    """Tells XLA to take only operations on a GPU that give the same bits each time.

    Works before JAX has touched a device; after that, XLA has read its flags.
    """
    if wanted:
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} {DETERMINISTIC_FLAGS}".strip()


def use_compilation_cache(wanted: bool) -> None:
    """Keeps compiled programs in the user's cache folder, so that a second run starts at once.

    A folder that ``$JAX_COMPILATION_CACHE_DIR`` names is left as it is. Where the cache folder
    cannot be written, programs are compiled anew each time, as without a cache.
    """
    if not wanted:
        jax.config.update("jax_enable_compilation_cache", False)
        return
    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        from platformdirs import user_cache_path  # not needed by who imports a model

        folder = user_cache_path("nin_jax") / "xla"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return
        if not os.access(folder, os.W_OK | os.X_OK):
            return
        jax.config.update("jax_compilation_cache_dir", str(folder))
    # A start compiles dozens of small programs; each is worth keeping.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def default_micro_batch_size(model: NiN) -> int | None:
    """Images per micro-batch: on a CPU a power of two that fits its cache, else None, for all."""
    if _platform() != "cpu":
        return None
    layers = trace(model.variant, model.in_channels, model.num_classes, model.image_size)
    largest = 4 * max(math.prod(layer.out_shape) for layer in layers)  # float32
    fitting = max(1, CPU_ACTIVATION_BYTES // largest)
    return 1 << (fitting.bit_length() - 1)


def default_steps_per_dispatch() -> int:
    """Optimiser steps that the device is given at once."""
    return 1 if _platform() == "cpu" else GPU_STEPS_PER_DISPATCH


def _platform() -> str:
    chosen = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    return (chosen or jax.devices()[0]).platform
