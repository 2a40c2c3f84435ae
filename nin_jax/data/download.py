"""Download files whose MD5 is known: once, with a progress bar, and never half a file."""

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress

# No file may be larger, packed or unpacked; the largest official one holds 47,040,016 bytes.
MAX_BYTES = 64 * 2**20
TIMEOUT_S = 5.0  # to connect to a server, and for each wait while reading
RETRIES = 2  # of each download; pooch waits for one second, then for two


def download_missing(url: str, md5: Mapping[str, str], folder: Path) -> None:
    """Download the files that a folder lacks or that are damaged there.

    pooch moves a file to its name when it is complete and its MD5 is right.

    Args:
        url: of the folder that has the files; ends in "/".
        md5: of each file, by its name.
        folder: created if it does not exist.

    Raises:
        OSError: a file cannot be downloaded or written; includes all errors of requests.
        ValueError: a downloaded file has another MD5.
    """
    names = [name for name in md5 if not _is_intact(folder / name, md5[name])]
    if not names:
        return
    import pooch  # here, because it takes time to import
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    pooch.get_logger().setLevel("WARNING")  # the progress bar shows what pooch would log
    registry = {name: f"md5:{md5[name]}" for name in names}
    files = pooch.create(folder, url, registry=registry, retry_if_failed=RETRIES)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        stream: Any = functools.partial(_stream, progress)  # pooch misstates the type
        for name in names:
            files.fetch(name, downloader=stream)


def _stream(progress: "Progress", url: str, path: Any, pup: Any) -> None:
    """Write the file at a URL to `path` and show the progress; pooch calls this."""
    import requests

    # A server must not label the .gz file as an encoding: requests would unpack it.
    options: Any = {"headers": {"Accept-Encoding": "identity"}, "timeout": TIMEOUT_S}
    with requests.get(url, stream=True, **options) as response, open(path, "wb") as file:
        response.raise_for_status()
        size = int(response.headers.get("Content-Length", 0))
        task = progress.add_task(url.rpartition("/")[2], total=size or None)
        for chunk in response.iter_content(2**16):
            file.write(chunk)
            progress.advance(task, len(chunk))
            if file.tell() > MAX_BYTES:
                raise OSError(f"{url} sends more than {MAX_BYTES:,} bytes")


def _is_intact(path: Path, md5: str) -> bool:
    return path.is_file() and md5_of(read_limited(path)) == md5


def read_limited(path: Path) -> bytes:
    """Return a file's contents; nothing if it is too large to be an official file."""
    return path.read_bytes() if path.stat().st_size <= MAX_BYTES else b""


def md5_of(data: bytes) -> str:
    """Return the MD5 in hexadecimal; it protects against damage, not against an attacker."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def root_cause(error: BaseException) -> str:
    """Return the first error's message: requests wraps "Connection refused" into 300 characters."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return " ".join(str(error).split()) or type(error).__name__
