"""Sizes of memory as people write them."""

import re

from nin_jax.errors import UserError

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def parse_memory(text: str) -> int:
    """Bytes of a text such as ``8GiB`` or ``500 MB``.

    Raises:
        UserError: it is none, or more than there is in the world.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*((?:[kmgt]i?)?b)?\s*", text, re.IGNORECASE)
    if found is None:
        raise UserError(f"--memory must be a size such as 8GiB or 500MB, got {text!r}")
    size = float(found[1]) * UNITS[(found[2] or "").upper()]
    if size >= 2**63:
        raise UserError(f"--memory {text[:20]}... is more than there is in the world")
    return int(size)
