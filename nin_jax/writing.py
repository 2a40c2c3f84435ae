"""Write files so that a failure or a power cut leaves none in part."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path


def sync(paths: Iterable[Path]) -> None:
    """Write files and folders through to the disk."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield where to write a new file; afterwards sync it and move it to ``path``.

    A failure leaves the old file unchanged and removes the new one.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        sync([partial])
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
