"""Official files of a dataset: found in a folder by their checksums, or downloaded once."""

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from nin_jax.data import download
from nin_jax.errors import UserError


@dataclass(frozen=True)
class OfficialSet:
    """The files of a dataset, as its authors distribute them.

    The checksums protect against damage, not against an attacker.

    Attributes:
        title: of the dataset, for messages.
        url: of the folder that has the files; ends in "/".
        folder: below a data folder, for downloads.
        md5: of each file, by its name.
        limit: the most bytes that a file may hold, packed or unpacked.
        inner: the folder inside the archive, if it may also be unpacked.
        unpacked: SHA-1 of each file that is read there, by its name.
        others: versions that are refused. The key is the name of their file or folder. The value is
            the MD5 (empty if unknown, or for a folder) and a description for the message.
    """

    title: str
    url: str
    folder: str
    md5: Mapping[str, str]
    limit: int
    inner: str = ""
    unpacked: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, tuple[str, str]] = field(default_factory=dict)


class Found(NamedTuple):
    """What a folder holds of a dataset.

    Attributes:
        paths: of the intact files, by their official names; empty if they are not complete.
        problem: what is wrong with the files; empty if there are none.
    """

    paths: dict[str, Path]
    problem: str = ""


def files_of(official: OfficialSet, given_folder: Path | None) -> dict[str, Path]:
    """Return the paths of a dataset's files by name.

    They are either all files of ``md5`` or all files of ``unpacked``. Without a given folder, the
    user's data folder is searched, and what is missing or damaged there is downloaded.

    Raises:
        UserError: a file is missing or damaged, or is another version.
        DownloadError: no folder was given, and the download failed.
    """
    if given_folder is not None:
        check_folder(given_folder, ways(official))
    root = download.user_folder() if given_folder is None else given_folder
    found = find(official, root)
    if found.paths:
        return found.paths
    if given_folder is None:
        folder = root / official.folder
        download_files(official, folder, official.md5)
        return {name: folder / name for name in official.md5}
    nothing = f"{str(root)!r} has no {official.title} files"
    problem = found.problem or next(_other_versions(official, root), nothing)
    raise UserError(f"{problem}; {ways(official)}")


def find(official: OfficialSet, root: Path) -> Found:
    """Search a folder, and those in it with the usual names, for a dataset's files."""
    places = _places(official, root)
    problems = []
    for checksums in (official.md5, official.unpacked):
        # Path.is_file would raise where a folder cannot be read.
        best = max(
            places, key=lambda place: sum(os.path.isfile(place / name) for name in checksums)
        )
        paths = {name: best / name for name in checksums if os.path.isfile(best / name)}
        if not paths:
            continue
        wrong = [_problem(official, path, checksums[name]) for name, path in paths.items()]
        wrong = [problem for problem in wrong if problem]
        missing = [name for name in checksums if name not in paths]
        if not wrong and not missing:
            return Found(paths)
        problems += wrong or [f"{str(best)!r} lacks {', '.join(missing)}"]
    return Found({}, problems[0] if problems else "")


def ways(official: OfficialSet) -> str:
    """Return the end of a message: how to get a dataset."""
    return (
        f"to get {official.title}, either leave out --data-dir and NIN_DATA_DIR to download it, "
        f"or put {', '.join(official.md5)} from {official.url} there"
    )


def check_folder(folder: Path, remedy: str) -> None:
    """Raise a `UserError` with this remedy if a data folder is not a folder."""
    if not os.path.isdir(folder):
        problem = "is not a folder" if os.path.lexists(folder) else "does not exist"
        raise UserError(f"data folder {str(folder)!r} {problem}; {remedy}")


def names_in(folder: Path) -> list[str]:
    """Return the sorted names in a folder; none if it cannot be read."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def plain(name: str) -> str:
    """Return a folder's name in lower case without dashes: CIFAR-10 as cifar10."""
    return name.lower().replace("-", "").replace("_", "")


def _places(official: OfficialSet, root: Path) -> list[Path]:
    """Return the folders that may hold the files: two levels of the usual names, and the root."""
    usual = {plain(official.folder), plain(official.inner), "raw"}

    def below(folder: Path) -> list[Path]:
        return [folder / name for name in names_in(folder) if plain(name) in usual]

    inside = below(root)
    return [*(place for each in inside for place in below(each)), *inside, root]


def _problem(official: OfficialSet, path: Path, checksum: str) -> str:
    """Say what is wrong with a file; nothing if it has its checksum."""
    where, found = repr(str(path)), ""
    kind, new = ("MD5", hashlib.md5) if len(checksum) == 32 else ("SHA-1", hashlib.sha1)
    try:
        size = path.stat().st_size
        if size <= official.limit:  # a larger file is not read
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, lambda: new(usedforsecurity=False))
            found = digest.hexdigest()
    except OSError as error:
        return f"cannot read {where}: {error.strerror or error}"
    if found == checksum:
        return ""
    for md5, what in official.others.values():
        if md5 and found == md5:
            return f"{where} is {official.title}'s {what}"
    return (
        f"{where} is damaged or not {official.title}'s: it has {size:,} bytes, "
        f"and its {kind} is not {checksum}"
    )


def _other_versions(official: OfficialSet, root: Path) -> Iterator[str]:
    """Yield a message for each other version that a folder holds."""
    for place in _places(official, root):
        for name, (_, what) in official.others.items():
            if os.path.exists(place / name):
                yield f"{str(place / name)!r} is {official.title}'s {what}"


def download_files(official: OfficialSet, folder: Path, names: Collection[str]) -> None:
    """Download those of a dataset's files into a folder.

    Raises:
        DownloadError: a file cannot be downloaded or written, or has another MD5.
    """
    md5 = {name: official.md5[name] for name in names}
    try:
        download.download_missing(official.url, md5, folder, official.limit)
    except (OSError, ValueError) as error:
        raise download.DownloadError(
            f"{official.title} is not on this machine and cannot be downloaded from {official.url} "
            f"({download.root_cause(error)}); either try again with a network, or put "
            f"{', '.join(official.md5)} into a folder and name it with --data-dir or NIN_DATA_DIR"
        ) from error
