"""What this machine says of itself: JAX's devices and settings, memory, disk. Read, not judged.

Nothing here writes, and nothing fails: what cannot be known is None.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import platformdirs

from nin_jax.doctor.processes import first_line
from nin_jax.runs import manifest

PREALLOCATE = "XLA_PYTHON_CLIENT_PREALLOCATE"


@dataclass(frozen=True)
class Devices:
    """What JAX computes on, or why it does not."""

    platform: str | None
    name: str = ""
    error: str = ""


def read_devices() -> Devices:
    """JAX's devices; where this is the first use of them, without taking their memory."""
    before = os.environ.get(PREALLOCATE)
    os.environ[PREALLOCATE] = "false"
    try:
        return Devices(jax.devices()[0].platform, manifest.device_name())
    except Exception as error:  # a plugin raises what it likes
        return Devices(None, error=first_line(error))
    finally:
        del os.environ[PREALLOCATE]
        if before is not None:
            os.environ[PREALLOCATE] = before


def jax_setting(name: str) -> Any:
    """One of JAX's settings, of which type checkers are not told."""
    return getattr(jax.config, name)


def read_cache() -> tuple[str | None, int | None, int | None]:
    """The cache's folder, None if it is off; its files, and their bytes, None if not known."""
    if not jax_setting("jax_enable_compilation_cache"):
        return None, None, None
    given = jax_setting("jax_compilation_cache_dir")
    folder = given or str(platformdirs.user_cache_path("nin_jax") / "xla")
    return folder, *_files_and_bytes(folder)


def _files_and_bytes(folder: str) -> tuple[int | None, int | None]:
    if "://" in folder:
        return None, None

    def fail(error: OSError) -> None:
        raise error

    try:
        if not os.path.exists(folder):
            return 0, 0
        paths = [
            os.path.join(at, name)
            for at, _, names in os.walk(folder, onerror=fail)
            for name in names
        ]
        return len(paths), sum(os.lstat(path).st_size for path in paths)
    except OSError:
        return None, None


def read_available_memory(path: Path = Path("/proc/meminfo")) -> int | None:
    """Host memory that a new process can have, in bytes; None where Linux does not tell."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    values = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(values[0]) * 1024 if values else None


def read_free_disk(folder: Path) -> int | None:
    """Free bytes where a folder is or would be, or None."""
    try:
        there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
        return shutil.disk_usage(there).free
    except OSError:
        return None
