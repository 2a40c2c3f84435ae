"""Command lines: options from a dataclass, and errors of one line."""

import difflib
import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import tyro
from tyro._errors import (  # the module documents this hook; pyproject.toml bounds the version
    BadValue,
    InstantiationFailure,
    InvalidChoice,
    MissingArgs,
    ParseErrorEvent,
    UnrecognizedArgs,
    on_parse_error,
)

from nin_jax.errors import Interrupted, RunError, UserError, is_out_of_memory

Config = TypeVar("Config")


def parse(
    config_type: type[Config], args: Sequence[str] | None = None, default: Config | None = None
) -> Config:
    """Return the command line as a ``config_type``.

    Args:
        config_type: a dataclass; its fields are the options.
        args: the command line. Default: that of this process.
        default: gives the options that the command line leaves out.

    Raises:
        UserError: the command line does not fit the options.
    """
    with on_parse_error(_one_line):
        if default is None:
            return tyro.cli(config_type, args=args)
        return tyro.cli(config_type, args=args, default=default)


def _one_line(event: ParseErrorEvent) -> None:
    """Raise a `UserError` of one line, where tyro would print a box."""
    match event:
        case UnrecognizedArgs(tokens=tokens):
            message = f"unknown option {' '.join(tokens)}"
        case InvalidChoice(argument=argument, value=value, choices=choices):
            known = [choice for choice in choices if choice != "None"]
            near = difflib.get_close_matches(str(value), known, n=1)
            meant = f"; did you mean {near[0]}?" if near else ""
            message = f"{_option(argument)} must be one of {', '.join(known)}, got {value!r}{meant}"
        case BadValue(argument=argument) | InstantiationFailure(argument=argument) if argument:
            wanted = (argument.lowered.metavar or "").removeprefix("{None}|")
            message = f"{_option(argument)} must be {wanted}"
        case InstantiationFailure(message=said):  # the dataclass refused the values together
            message = said
        case MissingArgs(missing_arguments=missing):
            names = ", ".join(_option(item.arg) for item in missing)
            message = f"missing {names}"
        case _:
            message = f"cannot read the command line ({type(event).__name__})"
    raise UserError(f"{' '.join(message.split())} (--help lists the options)") from None


def _option(argument: Any) -> str:
    return " or ".join(argument.lowered.name_or_flags)


def main(config_type: type[Config], run: Callable[[Config], object]) -> None:
    """Parse the command line and run, without a traceback for a mistake of the user.

    Exit codes: 0 for success, 2 for a `UserError` and 1 for a `RunError` (both print one line,
    ``error: ...``), 130 after Ctrl-C, 143 after SIGTERM.
    """
    guard(lambda: run(parse(config_type)))


def guard(action: Callable[[], object]) -> None:
    """Call the action; print our own exceptions as one line on standard error and exit."""
    warnings.showwarning = _show_warning
    for stream in (sys.stdout, sys.stderr):  # a file name may hold bytes that are not text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        _call(action)
    except (UserError, RunError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        _leave(2 if isinstance(error, UserError) else 1)
    except (RuntimeError, AssertionError) as error:
        reason = _out_of_memory(error) or _missing_platform()
        if reason is None:
            raise
        print(f"error: {reason}", file=sys.stderr)
        _leave(2)
    except Interrupted as interrupted:
        print(interrupted, file=sys.stderr)
        _leave(interrupted.code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        _leave(130)
    except BrokenPipeError:  # the program that read our output has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _leave(0)


def _call(action: Callable[[], object]) -> None:
    """Call the action, and flush what it printed.

    Raises:
        BrokenPipeError: the reader has ended. Python itself would notice this only at its exit.
    """
    try:
        action()
    except SystemExit:  # of --help, for example
        print(end="", flush=True)
        raise
    print(end="", flush=True)


def _out_of_memory(error: BaseException) -> str | None:
    """Return an error message if a device of JAX has too little memory."""
    if not is_out_of_memory(error):
        return None
    return "the device is out of memory: give smaller images, a smaller network or smaller batches"


def _missing_platform() -> str | None:
    """Return an error message if JAX has no device of the platforms that it is told to use."""
    jax = sys.modules.get("jax")
    wanted = jax and jax.config.jax_platforms
    if jax is None or not wanted:
        return None
    try:
        jax.devices()
    except (RuntimeError, AssertionError):  # JAX asserts it for CUDA
        return (
            f"JAX_PLATFORMS={wanted}: JAX finds no such device here: unset it, or give --device "
            "cpu to a script that has this option"
        )
    return None


def _leave(code: int) -> None:
    """Exit; if the run has several processes, tell the others."""
    processes = sys.modules.get("nin_jax.runs.multihost")
    if processes is not None:
        processes.leave(code)
    sys.exit(code)


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """Print a warning without the source line that Python adds."""
    print(f"WARNING: {message}", file=file or sys.stderr)
