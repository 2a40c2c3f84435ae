"""Download files whose MD5 is known: once, with a progress bar, and never half a file."""

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nin_jax.errors import UserError

if TYPE_CHECKING:
    from rich.progress import Progress

# No IDX file may be larger, packed or unpacked; the largest official one holds 47,040,016 bytes.
MAX_BYTES = 64 * 2**20
TIMEOUT_S = 5.0  # to connect to a server, and for each wait while reading
RETRIES = 2  # of each download; pooch waits for one second, then for two


class DownloadError(UserError):
    """The files are not in the user's data folder and could not be downloaded."""

    @classmethod
    def of(cls, title: str, url: str, files: str, error: Exception) -> "DownloadError":
        """Return the error of a dataset whose download failed.

        Args:
            title: of the dataset.
            url: from which the files were asked for.
            files: their names.
            error: what went wrong.
        """
        return cls(
            f"{title} is not on this machine and cannot be downloaded from {url} "
            f"({root_cause(error)}); either try again with a network, or put {files} into a folder "
            "and name it with --data-dir or NIN_DATA_DIR"
        )


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
    names = [name for name in md5 if not _is_intact(folder / name, md5[name], limit)]
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
        stream: Any = functools.partial(_stream, progress, limit)  # pooch misstates the type
        for name in names:
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


def _is_intact(path: Path, md5: str, limit: int) -> bool:
    if not path.is_file() or path.stat().st_size > limit:
        return False
    return checksum_of(path, "MD5") == md5


def checksum_of(path: Path, kind: str) -> str:
    """Return a file's MD5 or SHA-1 in hexadecimal, without keeping the file in memory.

    Raises:
        OSError: it cannot be read.
    """
    algorithm = {"MD5": hashlib.md5, "SHA-1": hashlib.sha1}[kind]
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: algorithm(usedforsecurity=False)).hexdigest()


def root_cause(error: BaseException) -> str:
    """Return the first error's message: requests wraps "Connection refused" into 300 characters."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return " ".join(str(error).split()) or type(error).__name__
