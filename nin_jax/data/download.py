"""Download files whose MD5 is known: once, with a progress bar, and never half a file."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nin_jax.errors import UserError

if TYPE_CHECKING:
    from rich.progress import Progress

TIMEOUT_S = 5.0  # to connect to a server, and for each wait while reading
RETRIES = 2  # of each download; pooch waits for one second, then for two


class DownloadError(UserError):
    """The files are not in the user's data folder and could not be downloaded."""


def user_folder() -> Path:
    """Return this user's folder for downloaded data, by the convention of the platform."""
    import platformdirs

    return Path(platformdirs.user_data_dir("nin_jax"))


def download_missing(url: str, md5: Mapping[str, str], folder: Path, limit: int) -> None:
    """Download the files that a folder lacks or that are damaged there.

    pooch moves a file to its name when it is complete and its MD5 is right.

    Args:
        url: of the folder that has the files; ends in "/".
        md5: of each file, by its name.
        folder: created if it does not exist.
        limit: the most bytes of a file.

    Raises:
        OSError: a file cannot be downloaded or written; includes all errors of requests.
        ValueError: a downloaded file has another MD5.
    """
    import pooch  # here, because it takes time to import
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    pooch.get_logger().setLevel("WARNING")  # the progress bar shows what pooch would log
    registry = {name: f"md5:{checksum}" for name, checksum in md5.items()}
    files = pooch.create(folder, url, registry=registry, retry_if_failed=RETRIES)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        stream: Any = functools.partial(_stream, progress, limit)  # pooch misstates the type
        for name in md5:
            files.fetch(name, downloader=stream)


def _stream(progress: "Progress", limit: int, url: str, path: Any, pup: Any) -> None:
    """Write the file at a URL to `path` and show the progress; pooch calls this."""
    import requests

    # A server must not label the .gz file as an encoding: requests would unpack it. Some servers
    # refuse the names of Python's libraries.
    headers = {"Accept-Encoding": "identity", "User-Agent": "nin_jax"}
    options: Any = {"headers": headers, "timeout": TIMEOUT_S}
    with requests.get(url, stream=True, **options) as response, open(path, "wb") as file:
        response.raise_for_status()
        size = int(response.headers.get("Content-Length", 0))
        task = progress.add_task(url.rpartition("/")[2], total=size or None)
        for chunk in response.iter_content(2**16):
            file.write(chunk)
            progress.advance(task, len(chunk))
            if file.tell() > limit:
                raise OSError(f"{url} sends more than {limit:,} bytes")


def root_cause(error: BaseException) -> str:
    """Return the first error's message: requests wraps "Connection refused" into 300 characters."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return " ".join(str(error).split()) or type(error).__name__
