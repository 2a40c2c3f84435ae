"""Text files that a user gives: only regular files of a sane size are read, and only UTF-8.

A pipe would be waited for, and /dev/zero never ends. What is wrong in a file is shown cut short,
so that an error is one line of a sane length too.
"""

import json
import os
import reprlib
import stat
import types
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from nin_jax.errors import UserError

T = TypeVar("T")

MAX_BYTES = 64 * 2**20


class _Short(reprlib.Repr):
    """`repr`, but cut where a value is long or deep, and never failing."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 100
        self.maxlevel = 4

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to print a whole number of more than 4,300 digits.
        return repr(x) if x.bit_length() < 200 else f"<a number of {x.bit_length()} bits>"

    def repr_instance(self, x: Any, level: int) -> str:
        return " ".join(super().repr_instance(x, level).split())  # an array's repr has lines


def shown(value: object) -> str:
    """A value as an error message shows it.

    >>> shown("x" * 10**6)[:12], len(shown([[10**9999] * 99] * 99)) < 500
    ("'xxxxxxxxxxx", True)
    """
    return _Short().repr(value)


def read_text(
    path: str | Path, what: str = "", limit: int = MAX_BYTES, errors: str = "strict"
) -> str:
    """The text of a file.

    Args:
        path: of the file.
        what: put before the path in messages, such as "variant file ".
        limit: most bytes that the file may have.
        errors: as `open` takes it: what becomes of bytes that are not UTF-8.

    Raises:
        UserError: it cannot be read, is not a file, is larger than that, or is not UTF-8.
    """
    problem = f"cannot read {what}{path}"
    try:
        check_file(path, limit, problem)
        return Path(path).read_text(encoding="utf-8", errors=errors)
    except UnicodeDecodeError:
        raise UserError(f"{problem}: not a UTF-8 text file") from None
    except OSError as error:
        raise UserError(f"{problem}: {error.strerror or error}") from None


def check_file(path: str | Path, limit: int, problem: str) -> None:
    """Finds out, opening nothing, whether a path is a file that may be read whole.

    Args:
        path: of the file.
        limit: most bytes that it may have.
        problem: begins every message.

    Raises:
        UserError: it is missing, is not a file, or is larger than that.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        raise UserError(f"{problem}: {error.strerror or error}") from None
    except (TypeError, ValueError) as error:  # a NUL in the name, or no name at all
        raise UserError(f"{problem}: {error}") from None
    if stat.S_ISDIR(found.st_mode):
        raise UserError(f"{problem}: Is a directory")
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{problem}: not a file")
    if found.st_size > limit:
        raise UserError(f"{problem}: {found.st_size:,} bytes, more than {limit:,}")


def parse_json(text: str) -> Any:
    """What a JSON text holds; a key that appears twice is an error, as in TOML.

    Raises:
        ValueError: it is no JSON, or nested too deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=_table)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise ValueError(f"the key {shown(key)} appears twice")
        table[key] = value
    return table


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    text = read_text(path)
    try:
        value = parse_json(text)
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged: not an object")
    return value


def from_plain(cls: type[T], plain: dict[str, Any], path: Path) -> T:
    """Return the dataclass that a JSON object holds.

    Args:
        cls: its fields are the keys, its annotations say which values are allowed.
        plain: the object; a list in it stands for a tuple, a text for a path.
        path: of the file, for messages.

    Raises:
        UserError: a field is missing or unknown, or a value is not of its type.
    """
    hints = get_type_hints(cls)
    if plain.keys() != hints.keys():
        odd = ", ".join(sorted(plain.keys() ^ hints.keys()))
        raise UserError(f"{path} is of another version of nin_jax: {shown(odd)}")
    values = dict(plain)
    for name, hint in hints.items():
        if not _fits(plain[name], hint):
            raise UserError(f"{path} is damaged: {name} cannot be {shown(plain[name])}")
        if Path in (hint, *get_args(hint)):
            values[name] = Path(plain[name]) if plain[name] else None
        elif isinstance(plain[name], list):
            values[name] = tuple(plain[name])
    return cls(**values)


def _fits(value: object, hint: Any) -> bool:
    """Whether a value from JSON is one of an annotation's."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (types.UnionType, Union):
        return any(_fits(value, option) for option in inner)
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin is tuple:
        if not isinstance(value, list):
            return False
        inner = (inner[0],) * len(value) if inner[1:] == (...,) else inner
        return len(value) == len(inner) and all(map(_fits, value, inner))
    if origin is dict:
        return isinstance(value, dict) and all(_fits(v, inner[1]) for v in value.values())
    if hint is float:
        return isinstance(value, float | int) and not isinstance(value, bool)
    if hint is Path:
        return isinstance(value, str) and "\0" not in value
    return type(value) is hint
