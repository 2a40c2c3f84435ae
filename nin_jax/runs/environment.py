"""The machine and the software that a run's numbers depend on."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

from nin_jax.models import processor
from nin_jax.training.device import default_device

# Settings of JAX that change the numbers of a run; environment variables set them too.
JAX_SETTINGS = (
    "jax_enable_x64",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_random_seed_offset",
    "jax_default_matmul_precision",
    "jax_numpy_dtype_promotion",
    "jax_allow_f16_reductions",
    "jax_softmax_custom_jvp",
    "jax_high_dynamic_range_gumbel",
    "jax_disable_jit",
    "jax_disable_most_optimizations",
    "jax_optimization_level",
    "jax_exec_time_optimization_effort",
    "jax_memory_fitting_level",
    "jax_memory_fitting_effort",
    "jax_compiler_enable_remat_pass",
    "jax_use_shardy_partitioner",
    "eager_constant_folding",
)
# Environment variables that change the numbers of the libraries below JAX.
VARIABLES = ("NVIDIA_TF32_OVERRIDE", "LIBTPU_INIT_ARGS")
# Flags of XLA that change no number: how many devices a CPU stands for, and what is dumped.
HARMLESS_FLAGS = ("xla_force_host_platform_device_count", "xla_dump", "xla_log")


def settings() -> dict[str, Any]:
    """Return the settings that change the numbers of a run, as plain data for JSON.

    Compiler flags for another platform than the run's are left out.
    """
    found: dict[str, Any] = {}
    for name in JAX_SETTINGS:
        if name in jax.config.values:  # JAX removes settings over time
            # The attribute, where there is one, is the value in the present context.
            value = getattr(jax.config, name, jax.config.values[name])
            plain = value is None or isinstance(value, bool | int | float | str)
            found[name] = value if plain else str(value)
    found |= {name: os.environ.get(name) for name in VARIABLES}
    return found | {"XLA_FLAGS": " ".join(_compiler_flags(default_device().platform))}


def _compiler_flags(platform_name: str) -> list[str]:
    """Return the flags in ``$XLA_FLAGS`` that change numbers, sorted, the last of each name."""
    words = os.environ.get("XLA_FLAGS", "").split()
    if words and not words[0].startswith("-"):  # XLA reads the flags from this file
        try:
            words = Path(words[0]).read_text(encoding="utf-8").split()
        except (OSError, ValueError):
            words = []
    others = {"cpu", "gpu", "tpu"} - {platform_name}
    skipped = (*HARMLESS_FLAGS, *(f"xla_{name}_" for name in others))
    last = {word.lstrip("-").partition("=")[0]: word for word in words}
    return [word for name, word in sorted(last.items()) if not name.startswith(skipped)]


def machine() -> dict[str, str]:
    """Return the device and the libraries that the numbers of a run depend on.

    On a CPU the number of threads is a part of it: XLA splits sums by thread.
    """
    device = default_device()
    kind = device.device_kind
    if device.platform == "cpu":
        kind = f"{cpu_model()}, {_cpu_threads()} threads"
    libraries = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "optax")}
    return {"machine": f"{device.platform}, {kind}"} | libraries


def cpu_model() -> str:
    """Return the name of the processor, or of its architecture where Linux has no name."""
    name = processor.info("model name")
    return name if name and name.isprintable() else platform.machine()


def _cpu_threads() -> int:
    """Return the size of XLA's thread pool."""
    for name in ("PJRT_NPROC", "NPROC"):
        if (given := os.environ.get(name, "")).isdecimal() and int(given):
            return int(given)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def device_name(count: int | None = None) -> str:
    """Return what JAX computes on: ``cpu, 8 cores, x86_64`` or the accelerator's name.

    Args:
        count: number of devices; all if None.
    """
    device = default_device()
    count = count or jax.device_count(device.platform)
    if device.platform == "cpu":
        several = f", {count} devices" if count > 1 else ""
        return f"cpu, {os.cpu_count()} cores, {platform.machine()}{several}"
    return f"{device.platform}, {count} x {device.device_kind}"


def versions() -> dict[str, str]:
    """Return the versions of Python, nin_jax and the libraries that compute."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    found = {package: importlib.metadata.version(package) for package in packages}
    own = installed_version("nin_jax") or "not installed"  # it may run from its source folder
    return {"python": platform.python_version(), "nin_jax": own} | found


def installed_version(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """Return the commit of the source tree; None without a repository of its own."""
    root = Path(__file__).resolve().parent.parent.parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != root:
            return None
        return git("describe", "--always", "--dirty", "--abbrev=40")
    except (OSError, subprocess.SubprocessError):
        return None
