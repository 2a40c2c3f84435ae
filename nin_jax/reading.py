"""Read text and JSON files that a user provides.

Only regular files of a limited size are read: a pipe would block, and /dev/zero never ends. Values
in error messages are shortened, so that a message is one line of a limited length.
"""

import contextlib
import json
import os
import reprlib
import stat
from pathlib import Path
from typing import Any

from nin_jax.errors import UserError, reason

MAX_BYTES = 64 * 2**20


class _Short(reprlib.Repr):
    """Like `repr`, but shorten long or deep values, and never fail."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 100
        self.maxlevel = 4

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to print an integer of more than 4,300 digits.
        return repr(x) if x.bit_length() < 200 else f"<a number of {x.bit_length()} bits>"

    def repr_instance(self, x: Any, level: int) -> str:
        return " ".join(super().repr_instance(x, level).split())  # an array has several lines


def shown(value: object) -> str:
    """Return a short `repr` of a value for an error message.

    >>> shown("x" * 10**6)[:12], len(shown([[10**9999] * 99] * 99)) < 500
    ("'xxxxxxxxxxx", True)
    """
    return _Short().repr(value)


def read_text(
    path: str | Path, what: str = "", limit: int = MAX_BYTES, errors: str = "strict"
) -> str:
    """Return the text of a file.

    Args:
        path: of the file.
        what: precedes the path in messages, such as "variant file ".
        limit: the maximum size in bytes.
        errors: how to handle bytes that are not UTF-8, as in `open`.

    Raises:
        UserError: the path cannot be read, is not a regular file, is too large, or is not UTF-8.
    """
    problem = f"cannot read {what}{path}"
    try:
        check_file(path, limit, problem)
        return Path(path).read_text(encoding="utf-8", errors=errors)
    except UnicodeDecodeError:
        raise UserError(f"{problem}: not a UTF-8 text file") from None
    except OSError as error:
        raise UserError(f"{problem}: {reason(error)}") from None


def check_file(path: str | Path, limit: int, problem: str) -> None:
    """Check that a path is a regular file of a limited size, without opening it.

    Args:
        path: of the file.
        limit: the maximum size in bytes.
        problem: the start of every message.

    Raises:
        UserError: the file is missing, is not a regular file, or is too large.
    """
    try:
        found = os.stat(path)
    except (OSError, TypeError, ValueError) as error:  # also a NUL in the path, or not a path
        raise UserError(f"{problem}: {reason(error)}") from None
    if stat.S_ISDIR(found.st_mode):
        raise UserError(f"{problem}: Is a directory")
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{problem}: not a file")
    if found.st_size > limit:
        raise UserError(f"{problem}: {found.st_size:,} bytes, more than {limit:,}")


def is_torch(path: str | Path) -> bool:
    """Return whether a file's first bytes are those of a file of ``torch.save``.

    It is a ZIP archive or, in the old format, a pickle. A safetensors file has a brace after eight
    bytes. A file that cannot be read, or is neither, is judged by its name.
    """
    start = b""
    with contextlib.suppress(OSError, ValueError):
        if stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would block
            with open(path, "rb") as file:
                start = file.read(9)
    if start[8:] == b"{":
        return False
    named = Path(path).suffix.lower() in (".pt", ".pth")
    return start.startswith((b"PK\x03\x04", b"\x80")) or named


def parse_json(text: str) -> Any:
    """Parse JSON; a key that appears twice is an error, as in TOML.

    Raises:
        ValueError: the text is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique_keys)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {shown(key)} appears twice")
        found[key] = value
    return found


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        UserError: the file cannot be read, or does not hold a JSON object.
    """
    text = read_text(path)
    try:
        value = parse_json(text)
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged: not an object")
    return value
