"""The one exception for everything a user can get wrong, and two for what befalls a run."""

import difflib
import signal
from collections.abc import Iterable


class UserError(ValueError):
    """Something the user gave is wrong; the message says what, and what would be right.

    The message is one line. Scripts print it as ``error: ...`` and exit with code 2;
    library callers may catch it as a `ValueError`.
    """


class RunError(RuntimeError):
    """A run came to an end that the user did not cause, such as a disk that is full.

    The message is one line. Scripts print it as ``error: ...`` and exit with code 1.
    """


class Interrupted(KeyboardInterrupt):
    """A signal asked the run to end, and it has saved what it has.

    Scripts exit with ``code``, 128 and the signal's number, as a shell expects.
    """

    def __init__(self, number: signal.Signals, saved: str = ""):
        super().__init__(saved)
        self.number = number

    @property
    def code(self) -> int:
        return 128 + self.number

    def __str__(self) -> str:
        saved = f": {self.args[0]}" if self.args[0] else ""
        return f"interrupted by {self.number.name}{saved}"


def first_line(error: BaseException) -> str:
    """What an error of any library says, as far as it fits into a line."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


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
