"""What is installed: packages, their needs, and the CUDA and cuDNN that JAX's wheels bring."""

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass

from packaging.requirements import Requirement

VersionOf = Callable[[str], str | None]


@dataclass(frozen=True)
class Libraries:
    """The CUDA and cuDNN versions that a framework loads; None where they cannot be known."""

    cuda: str | None
    cudnn: str | None


def installed_version(package: str) -> str | None:
    """The version of an installed package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def read_requirements(package: str, extra: str = "") -> list[Requirement]:
    """What an installed package needs here, with what its extra adds."""
    try:
        needed = map(Requirement, importlib.metadata.requires(package) or [])
    except importlib.metadata.PackageNotFoundError:
        return []
    return [n for n in needed if n.marker is None or n.marker.evaluate({"extra": extra})]


def read_plugin(version_of: VersionOf) -> int | None:
    """The major CUDA version that JAX's plugin is for, or None without a plugin."""
    # JAX looks for them in this order too.
    return next((major for major in (13, 12) if version_of(f"jax-cuda{major}-plugin")), None)


def jax_libraries(plugin: int | None, version_of: VersionOf) -> Libraries | None:
    """What JAX loads, by the wheels installed for it; None without a plugin."""
    if plugin is None:
        return None
    runtime = version_of(f"nvidia-cuda-runtime-cu{plugin}") or version_of("nvidia-cuda-runtime")
    if runtime is None or not runtime.startswith(f"{plugin}."):
        runtime = str(plugin)  # the plugin's name says that much
    return Libraries(runtime, version_of(f"nvidia-cudnn-cu{plugin}"))
