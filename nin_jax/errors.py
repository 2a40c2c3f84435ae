"""The one exception for everything a user can get wrong."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something the user gave is wrong; the message says what, and what would be right.

    The message is one line. Scripts print it as ``error: ...`` and exit with code 2;
    library callers may catch it as a `ValueError`.
    """


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """A `UserError` for a name that is not in a table, offering the nearest names.

    >>> str(unknown_name("variant", "nin51", ["nin", "nin15", "nin_fc"]))
    "unknown variant 'nin51': did you mean nin15? (known: nin, nin15, nin_fc)"
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    listing = f"known: {', '.join(names)}"
    return UserError(f"unknown {kind} {name!r}: {hint}{f'({listing})' if hint else listing}")
