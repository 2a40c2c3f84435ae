"""The machine and the software that a run's numbers depend on."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import jax


def device_name(count: int | None = None) -> str:
    """Return what JAX computes on: ``cpu, 8 cores, x86_64`` or the accelerator's name.

    Args:
        count: number of devices; all if None.
    """
    device, count = jax.devices()[0], count or jax.device_count()
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
