"""Fetching files whose MD5 is known: once, with a progress bar, and never half a file."""

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

TIMEOUT_S = 5.0  # to connect, and for each wait while reading


def md5_hex(data: bytes | bytearray) -> str:
    """The MD5 by which a file is recognised; it guards against damage, not against an attacker."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def fetch_files(url: str, folder: Path, md5: Mapping[str, str], max_bytes: int) -> None:
    """Downloads into `folder` each file of `md5` that is not there intact.

    Args:
      url: what a file's name is appended to.
      folder: made if need be; several processes may fetch into it at once.
      md5: the MD5 of each file, by name.
      max_bytes: no file is read beyond this size.

    Raises:
      OSError: the network, the server or the disk failed, or a file came with another MD5.
    """
    needed = [name for name in md5 if not _is_intact(folder / name, md5[name], max_bytes)]
    if not needed:
        return
    import http.client

    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    folder.mkdir(parents=True, exist_ok=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    try:
        with Progress(*columns, console=Console(stderr=True)) as progress:
            for name in needed:
                _download(url + name, folder / name, md5[name], max_bytes, progress)
    except http.client.HTTPException as error:  # a server that does not speak HTTP
        raise OSError(str(error) or type(error).__name__) from error


def _is_intact(path: Path, md5: str, max_bytes: int) -> bool:
    if not path.is_file() or path.stat().st_size > max_bytes:
        return False
    return md5_hex(path.read_bytes()) == md5


def _download(url: str, path: Path, md5: str, max_bytes: int, progress: "Progress") -> None:
    import urllib.error
    import urllib.request

    data = bytearray()
    try:
        response = urllib.request.urlopen(url, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()  # the error is also the response, and holds the connection
        raise
    with response:
        task = progress.add_task(path.name, total=response.length)
        while len(data) <= max_bytes and (chunk := response.read(2**16)):
            data += chunk
            progress.advance(task, len(chunk))
    if md5_hex(data) != md5:
        raise OSError(f"{url} sent {len(data)} bytes with the wrong MD5")
    _write_atomically(path, data)


def _write_atomically(path: Path, data: bytes | bytearray) -> None:
    """The file appears under its name whole or not at all, whoever else is writing it."""
    descriptor, temporary = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
