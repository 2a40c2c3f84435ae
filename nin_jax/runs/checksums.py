"""The checksums of a checkpoint's files: written with it, compared before it is read."""

import hashlib
from pathlib import Path

from nin_jax.errors import reason
from nin_jax.writing import sync

CHECKSUMS = "SHA256SUMS"


def damage(folder: Path) -> str:
    """Compare every file of a checkpoint with its checksum; return what is wrong, or ""."""
    try:
        lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
        found = {path: _sha256(folder / path) for path in _files(folder)}
    except (OSError, ValueError) as error:
        return f"{CHECKSUMS} or a file cannot be read ({reason(error)})"
    recorded = {path: digest for digest, _, path in (line.partition("  ") for line in lines)}
    for path in sorted(recorded.keys() | found.keys()):
        if path not in found:
            return f"{path} is missing"
        if path not in recorded:
            return f"{path} is not in {CHECKSUMS}"
        if found[path] != recorded[path]:
            return f"{path} has changed"
    return ""


def seal(folder: Path) -> None:
    """Write the checksums, in the format of ``sha256sum --check``, and sync all files."""
    paths = _files(folder)
    text = "".join(f"{_sha256(folder / path)}  {path}\n" for path in paths)
    (folder / CHECKSUMS).write_text(text, encoding="utf-8")
    sync(folder / path for path in (*paths, CHECKSUMS))
    sync(path for path in (folder, *folder.rglob("*")) if path.is_dir())


def _files(folder: Path) -> list[str]:
    paths = sorted(path for path in folder.rglob("*") if not path.is_dir())
    return [name for path in paths if (name := path.relative_to(folder).as_posix()) != CHECKSUMS]


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
