"""Select devices, keep compiled programs, and choose how to divide the work."""

import ctypes
import math
import os
import sys
from typing import Any, Literal

import jax

from nin_jax.errors import UserError
from nin_jax.models.geometry import trace
from nin_jax.models.nin import NiN

# The largest activation that stays in a CPU's caches; measured with scripts/train.py.
CPU_ACTIVATION_BYTES = 8 * 2**20

# Between two dispatches a GPU waits for the host about as long as a step of a small network takes.
# On a CPU a step takes so long that the wait does not matter.
GPU_STEPS_PER_DISPATCH = 10


NVIDIA_DRIVER = "/dev/nvidiactl"  # exists where the driver is loaded

# No atomic operations in reductions and scatters, and the same algorithms in every process.
DETERMINISTIC_FLAGS = "--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0"


def allow_cpu(wanted: str) -> None:
    """Let JAX use the CPU if it is wanted and ``$JAX_PLATFORMS`` leaves it out.

    Call this before JAX initializes a device, because the platforms are then fixed.
    """
    platforms = jax.config.jax_platforms  # pyright: ignore[reportAttributeAccessIssue]
    if wanted == "cpu" and platforms and "cpu" not in platforms.split(","):
        jax.config.update("jax_platforms", "cpu")


# The device that `select_device` has made JAX's default, and the one before.
_selected: dict[str, Any] = {}


def select_device(wanted: Literal["auto", "cpu", "gpu"]) -> None:
    """Make ``wanted`` the platform that JAX uses by default.

    "auto" undoes an earlier choice of this function, and keeps one that was made without it.

    Raises:
        UserError: JAX finds no such device.
    """
    before = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    own = before is not None and before is _selected.get("device")
    if wanted == "auto":
        if own:
            jax.config.update("jax_default_device", _selected["before"])
        return
    allow_cpu(wanted)
    try:
        device = jax.local_devices(backend=wanted)[0]
    except RuntimeError:
        have = ", ".join(sorted({device.platform for device in jax.devices()}))
        raise UserError(
            f"--device {wanted}: JAX finds none here, only {have}; for an NVIDIA GPU install "
            "with pip install -e '.[cuda12]', or '.[cuda13]' beside a PyTorch for CUDA 13"
        ) from None
    jax.config.update("jax_default_device", device)
    _selected.update(device=device, before=_selected["before"] if own else before)


def devices_for(count: int | Literal["all"]) -> list[Any]:
    """Return the devices of a run: the first ``count``, or all, of the selected platform.

    Raises:
        UserError: there are fewer, or a process would get no device.
    """
    found = jax.devices(default_device().platform)
    if count == "all":
        return found
    if count > len(found):
        raise UserError(
            f"--devices {count} exceeds the number of devices: {len(found)} "
            f"({found[0].device_kind}); XLA_FLAGS=--xla_force_host_platform_device_count=8 makes 8 "
            "of a CPU"
        )
    if jax.process_count() > 1 and count != len(found):
        raise UserError(f"--devices {count}: with several processes it must be all or {len(found)}")
    return found[:count]


def make_deterministic(wanted: bool) -> None:
    """Make XLA use only GPU operations that give the same bits each time.

    Call this before JAX initializes a device, because XLA then reads its flags.
    """
    if wanted:
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} {DETERMINISTIC_FLAGS}".strip()


def keep_freed_memory() -> None:
    """Let glibc keep the memory that a step frees, for the next step.

    On a CPU, XLA allocates the arrays inside a step anew each time. glibc returns so large a block
    to the system, which hands it out again page by page (docs/benchmarks.md says what this costs).
    Call this before JAX initializes a device: its threads get their memory when they start.
    This does nothing without Linux and glibc, with an NVIDIA driver, or if the environment sets
    glibc's allocator (``MALLOC_...``).
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    # A GPU has its own memory, and one heap for all threads would slow those of XLA's compiler.
    if os.path.exists(NVIDIA_DRIVER):
        return
    try:
        set_option = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return
    # Numbers of glibc's malloc.h. M_ARENA_MAX: one heap for all threads, because the heaps of other
    # threads hold 64 MiB at most. M_MMAP_MAX: put every block into it. M_TRIM_THRESHOLD: never
    # return its end to the system.
    for option, value in ((-8, 1), (-4, 0), (-1, 2**31 - 1)):
        set_option(option, value)


def use_compilation_cache(wanted: bool) -> None:
    """Keep compiled programs in the user's cache folder, so that the next run starts faster.

    ``$JAX_COMPILATION_CACHE_DIR``, if set, names the folder; limits that JAX's environment
    variables set are kept. If the folder cannot be written, there is no cache.
    """
    if not wanted:
        jax.config.update("jax_enable_compilation_cache", False)
        return
    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        from platformdirs import user_cache_path  # not needed to import a model

        folder = user_cache_path("nin_jax") / "xla"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return
        if not os.access(folder, os.W_OK | os.X_OK):
            return
        jax.config.update("jax_compilation_cache_dir", str(folder))
    # A run compiles dozens of small programs at its start; keep all of them.
    for name, limit in (
        ("jax_persistent_cache_min_compile_time_secs", 0.0),
        ("jax_persistent_cache_min_entry_size_bytes", -1),
    ):
        if name.upper() not in os.environ:
            jax.config.update(name, limit)


def default_micro_batch_size(model: NiN, batch_size: int) -> int:
    """Return the images per micro-batch of a batch.

    On a CPU it is a power of two that fits into the caches, on other platforms the whole batch.
    """
    if default_device().platform != "cpu":
        return batch_size
    if model.convolutions is None:  # another kind of module: its variant is near enough
        layers = trace(model.variant, model.in_channels, model.num_classes, model.image_size)
    else:
        layers = model.layers
    largest = 4 * max(math.prod(layer.out_shape) for layer in layers)  # float32
    fitting = max(1, CPU_ACTIVATION_BYTES // largest)
    return min(1 << (fitting.bit_length() - 1), batch_size)


def default_steps_per_dispatch() -> int:
    """Return the number of optimizer steps of one dispatch."""
    return 1 if default_device().platform == "cpu" else GPU_STEPS_PER_DISPATCH


def default_device() -> Any:
    """Return the device that JAX uses by default: that of `select_device`, or JAX's own choice."""
    chosen = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    if chosen is None or isinstance(chosen, str):  # JAX_DEFAULT_DEVICE names a platform
        return jax.devices(chosen)[0]
    return chosen
