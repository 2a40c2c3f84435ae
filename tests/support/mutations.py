"""Damaged files: strategies for random and mutated bytes, JSON and TOML."""

import contextlib
import json
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis.strategies as st

# Bytes

EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)


def mutate(data: bytes, seed: int) -> bytes:
    """Damage a file one to four times: flips, cuts, splices, and numbers that are too large."""
    rng = random.Random(seed)
    result = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = (
            rng.randrange(len(result) + 1)
            if rng.random() < 0.5
            else rng.randrange(1 + len(result) // 8)
        )
        end = min(len(result), at + rng.randint(1, 16))
        match rng.randrange(7):
            case 0 if at < len(result):
                result[at] ^= 1 << rng.randrange(8)
            case 1:
                del result[at:]
            case 2:
                del result[at:end]
            case 3:
                result[at:at] = result[at:end] * rng.randint(1, 50)
            case 4:
                result[at:end] = rng.randbytes(end - at)
            case 5:
                width = rng.choice((1, 2, 4, 8))
                value = rng.choice(EXTREMES) % 256**width
                result[at : at + width] = value.to_bytes(width, rng.choice(("big", "little")))
            case _:
                result[at:at] = rng.choice((b"\0", b"{", b"[", b'"', b"\n", b"\xff", b"9" * 50))
    return bytes(result)


def damaged(*whole: bytes) -> st.SearchStrategy[bytes]:
    """Return random bytes, or one of these files with damage."""
    mutants = st.builds(mutate, st.sampled_from(whole), st.integers(0, 2**32))
    return st.one_of(st.binary(max_size=300), mutants, mutants, mutants)


# JSON and TOML


def nested(depth: int, kind: str) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind == "list" else {"a": value}
    return value


WEIRD: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 10**9, 10**30, 10**400, 0.5, -0.0, 1e308, 1e999, math.nan),
    *("", "../../x", "/", "a\0b", "a\nb", "\ud800", "<script>", "$\\x$", "[/b]", "x" * 10_000),
    *("nin", "float32", "auto", [], {}, [[]], [1], [1, 2], [1, 2, 3], [None], [{}], {"a": 1}),
    *(nested(50, "list"), nested(50, "table"), nested(500, "list"), [0] * 10_000),
)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a tree."""
    yield at
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in pairs:
            yield from places(inner, (*at, key))


def changed(tree: Any, at: tuple[Any, ...], how: int, new: Any) -> Any:
    """Return a copy of a tree with one value replaced, removed or added."""
    if not at:
        return new
    copy: Any = dict(tree) if isinstance(tree, dict) else list(tree)
    key, *rest = at
    if rest:
        copy[key] = changed(tree[key], tuple(rest), how, new)
    elif how == 0:
        del copy[key]
    elif how == 1 and isinstance(copy, list):
        copy.append(new)
    elif how == 1:
        copy[f"{key}2"] = new
    else:
        copy[key] = new
    return copy


def damaged_tree(tree: Any) -> st.SearchStrategy[Any]:
    """Return trees in which one or two values are changed."""
    places_ = list(places(tree))

    @st.composite
    def change(draw: st.DrawFn) -> Any:
        found = tree
        for _ in range(draw(st.integers(1, 2))):
            at = draw(st.sampled_from(places_))
            with contextlib.suppress(
                KeyError, IndexError, TypeError
            ):  # the first change removed it
                found = changed(found, at, draw(st.integers(0, 9)), draw(st.sampled_from(WEIRD)))
        return found

    return change()


def as_toml(tree: Any) -> str:
    """Return a tree as TOML, as far as TOML allows: one line per field, with inline tables."""

    def value(x: Any) -> str:
        if isinstance(x, dict):
            return "{" + ", ".join(f"{json.dumps(k)} = {value(v)}" for k, v in x.items()) + "}"
        if isinstance(x, list):
            return "[" + ", ".join(map(value, x)) + "]"
        text = json.dumps(x)
        return {"NaN": "nan", "Infinity": "inf", "null": '""'}.get(text, text)

    if not isinstance(tree, dict):
        return value(tree)
    return "".join(f"{json.dumps(key)} = {value(x)}\n" for key, x in tree.items())


def damaged_json(tree: Any, dump: Callable[[Any], str] = json.dumps) -> st.SearchStrategy[bytes]:
    """Return files of a tree: with changed values, changed bytes, a duplicate key, or intact."""
    whole = dump(tree).encode()
    twice = whole.replace(b"{", b'{"name": 1, ', 1)
    deep = dump(tree).replace("1", "[" * 3000, 1).encode()
    trees = damaged_tree(tree).map(lambda found: dump(found).encode())
    return st.one_of(trees, trees, damaged(whole, twice), st.sampled_from((whole, twice, deep)))
