"""Exceptions for mistakes of the user and for runs that end early; errors as one line."""

import contextlib
import difflib
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


class UserError(ValueError):
    """An input of the user is wrong.

    The message is one line that says what is wrong and what would be right. Scripts print it as
    ``error: ...`` and exit with code 2. Callers of the library may catch it as a `ValueError`.
    """


class DivergedError(UserError):
    """The loss or the gradient of a run was not finite.

    Attributes:
        what: what was not finite, and at which step; the message also has remedies.
    """

    def __init__(self, what: str, remedy: str):
        super().__init__(what, remedy)
        self.what = what

    def __str__(self) -> str:
        return ": ".join(self.args)


@dataclass(eq=False)
class NotFinite(Exception):  # noqa: N818 - `nin_jax.runs.failure` makes it a DivergedError
    """A step whose loss or gradient is infinite or not a number.

    Attributes:
        step: counted from 1.
        loss: mean over the batch, in nats.
        gradient_norm: norm of the mean gradient.
        learning_rate: learning rate of the step.
    """

    step: int
    loss: float
    gradient_norm: float
    learning_rate: float


class RunError(RuntimeError):
    """A run ended for a reason other than a mistake of the user, such as a full disk.

    The message is one line. Scripts print it as ``error: ...`` and exit with code 1.
    """


class Interrupted(KeyboardInterrupt):
    """A signal ended the run, after it saved a checkpoint.

    Scripts exit with ``code``, which is 128 plus the signal's number, as a shell expects.

    Attributes:
        number: the signal.
    """

    def __init__(self, number: signal.Signals, saved: str = ""):
        super().__init__(saved)
        self.number = number

    @property
    def code(self) -> int:
        """The exit code."""
        return 128 + self.number

    def __str__(self) -> str:
        saved = f": {self.args[0]}" if self.args[0] else ""
        return f"interrupted by {self.number.name}{saved}"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether JAX raised the error because a device has too little memory."""
    text = str(error)
    return "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower()


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its type if it has none."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def reason(error: BaseException) -> str:
    """Return what the system says of an error, without a file's name; else its first line."""
    return getattr(error, "strerror", None) or first_line(error)


@contextlib.contextmanager
def one_line(
    problem: str, caught: type[Exception] = OSError, raised: type[Exception] = UserError
) -> Iterator[None]:
    """Turn an error into one line that begins with ``problem``. A `UserError` passes unchanged."""
    try:
        yield
    except UserError:
        raise
    except caught as error:
        # Where an OSError is expected, the problem names the file, which `reason` leaves out.
        text = reason(error) if caught is OSError else first_line(error)
        raise raised(f"{problem}: {text}") from error


def option_of(field: str) -> str:
    """Return the option of a configuration's field.

    >>> option_of("image_size")
    '--image-size'
    """
    return f"--{field.replace('_', '-')}"


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Return a `UserError` for an unknown name; its message lists the nearest names.

    >>> str(unknown_name("variant", "nin51", ["nin", "nin15", "nin_fc"]))
    "unknown variant 'nin51': did you mean nin15? (known: nin, nin15, nin_fc)"
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    listing = f"known: {', '.join(names)}"
    return UserError(f"unknown {kind} {name!r}: {hint}{f'({listing})' if hint else listing}")
