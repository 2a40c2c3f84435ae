"""Validation with pydantic: annotations state types and bounds; errors become one line.

Types are strict: True is not a number, a string is not converted to a number, and NaN is refused.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import (
    Annotated,
    Any,
    TypeVar,
    cast,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

import pydantic.dataclasses
from pydantic import AfterValidator, ConfigDict, FailFast, Field, TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from nin_jax.errors import UserError, first_line, option_of
from nin_jax.reading import shown

T = TypeVar("T")

STRICT = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid")


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be printable, on one line")
    return text


def _without_nul(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("must be a path")
    return path


Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Accuracy = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
# A sequence from a file: a hostile file of many bad elements causes one error, not millions.
FAIL_FAST = FailFast()
Text = Annotated[str, AfterValidator(_printable)]  # a text from a file that is printed
FilePath = Annotated[Path, Field(strict=False), AfterValidator(_without_nul)]


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def validated(*, kw_only: bool = False, options: bool = False) -> Callable[[type[T]], type[T]]:
    """Return a decorator that makes a frozen dataclass whose fields are checked when it is made.

    The class raises a `UserError` for a value that its annotation does not allow.

    Args:
        kw_only: as for `dataclasses.dataclass`.
        options: whether messages name a field as an option, such as --batch-size.
    """

    def decorate(cls: type[T]) -> type[T]:
        made: Any = pydantic.dataclasses.dataclass(cls, frozen=True, kw_only=kw_only, config=STRICT)
        check, positional = made.__init__, made.__match_args__

        @functools.wraps(check)
        def init(self: T, *args: Any, **kwargs: Any) -> None:
            named = dict(zip(positional, args, strict=False))  # so that messages have names
            try:
                check(self, *args[len(named) :], **named, **kwargs)
            except ValidationError as error:
                name = _option if options else lambda place: f"{cls.__name__}.{_path(place)}"
                raise UserError(describe(error, name)) from None

        made.__init__ = init
        return made

    return decorate


def optional(cls: type) -> type:
    """Return a dataclass with the fields of ``cls``, each of which may be None, its default."""
    hints = get_type_hints(cls, include_extras=True)
    optionals = [(name, _or_none(hint), None) for name, hint in hints.items()]
    # A subclass, because tyro looks for the fields' docstrings in the bases.
    return dataclasses.make_dataclass(
        f"Optional{cls.__name__}", optionals, bases=(cls,), frozen=True, kw_only=True
    )


def _or_none(hint: Any) -> Any:
    # tyro looks for the type of a value among a union's members, but not in an annotated one.
    if get_origin(hint) is Annotated and isinstance(get_args(hint)[0], UnionType):
        union, *metadata = get_args(hint)
        return Annotated[union | None, *metadata]
    return hint | None


def from_json(cls: type[T], plain: object) -> T:
    """Return the ``cls`` that JSON data hold: a list stands for a tuple, a text for a path.

    Args:
        cls: a dataclass of `validated`, or a pydantic model.
        plain: the data, as `json.loads` returns them.

    Raises:
        UserError: a field is missing, or a value is not allowed.
    """
    try:
        return _adapter(cls).validate_json(json.dumps(plain))
    except ValidationError as error:
        raise UserError(describe(error, _path)) from None
    except (TypeError, ValueError, RecursionError) as error:  # these data are not from JSON
        raise UserError(first_line(error)) from None


def from_file(cls: type[T], plain: dict[str, Any], path: Path, complete: bool = True) -> T:
    """Return the dataclass that a JSON object from a file holds.

    Args:
        cls: a dataclass of `validated`.
        plain: the JSON object.
        path: of the file, for messages.
        complete: whether all fields must be there; else a missing one has its default.

    Raises:
        UserError: a field is missing or unknown, or a value is not allowed.
    """
    names = {each.name for each in dataclasses.fields(cast(Any, cls))}
    odd = sorted(plain.keys() ^ names if complete else plain.keys() - names)
    if odd:
        raise UserError(f"{path} is of another version of nin_jax: {shown(', '.join(odd))}")
    try:
        return from_json(cls, plain)
    except UserError as error:
        raise UserError(f"{path} is damaged: {error}") from None


def to_json(value: object) -> Any:
    """Return a dataclass as `json.loads` would: tuples as lists, paths as texts."""
    return to_jsonable_python(value)


@functools.cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def describe(error: ValidationError, name: Callable[[tuple[int | str, ...]], str]) -> str:
    """Return pydantic's first error as one line: the field, what it must be, and its value.

    Args:
        error: as pydantic raises it.
        name: returns the field's name from its place.
    """
    first = error.errors(include_url=False)[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, UserError):  # a check of several fields has a message of its own
        return str(cause)
    place = name(first["loc"])
    if first["type"] == "missing":
        return f"{place} is missing"
    if first["type"] == "unexpected_keyword_argument":
        return f"there is no field {place}"
    wanted = str(cause) if first["type"] == "value_error" else first["msg"]
    for theirs, ours in _WORDS.items():
        wanted = wanted.replace(theirs, ours)
    wanted = re.sub(r"\d{16,}", lambda digits: f"{float(digits[0]):g}", wanted)  # a bound of 1e30
    return f"{place} {wanted}, got {shown(first['input'])}".strip()


_WORDS = {
    "Input ": "",
    "String ": "",
    "Dictionary ": "",
    "List ": "",
    "Tuple ": "",
    " after validation": "",
    "should": "must",
    "greater than or equal to": ">=",
    "less than or equal to": "<=",
    "greater than": ">",
    "less than": "<",
    "a valid integer": "a whole number",
    "a valid boolean": "true or false",
    "a valid string": "a string",
    "a valid array": "a list",
    "is not a valid path for <class 'pathlib.Path'>": "must be a path",
    "a valid ": "a ",
}


def _path(place: tuple[int | str, ...]) -> str:
    path = ".".join(map(str, place))
    return path if path.isprintable() and len(path) < 100 else shown(path)


def _option(place: tuple[int | str, ...]) -> str:
    # What follows the first part is the member of a union, or a place in a tuple.
    return option_of(str(place[0]))
