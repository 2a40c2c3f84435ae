"""Several processes as one run: joining, deciding together, and leaving when a peer is lost.

JAX's own distributed service does the work. The first process has the run's folder, its log and its
screen; whatever depends on the disk, the clock or a signal is decided by agreement, so that all
processes go the same way.
"""

import contextlib
import ctypes
import hashlib
import json
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from nin_jax.errors import RunError, UserError, first_line
from nin_jax.training.config import TrainConfig
from nin_jax.training.sharding import EVERYWHERE, Layout

T = TypeVar("T")

HEARTBEAT_SECONDS = 30  # without a sign of life after that long, a peer is lost
MESSAGE_BYTES = 1 << 14
ERROR_CHARACTERS = 1000  # at most twelve bytes each in JSON

PEER_LOST = (
    "another process of the run is gone or cannot be reached, so this one ends too: start them all "
    "again, in any number, with --resume if the run had begun"
)
ABORTED = (
    "JAX has ended this process, as it does when another process of the run is gone: start them "
    "all again, in any number, with --resume if the run had begun"
)


def join(config: TrainConfig, timeout: int = 300) -> None:
    """Joins the other processes of the run, if it has any; before JAX touches a device.

    Args:
        config: ``coordinator``, ``processes`` and ``process_index`` where SLURM, Open MPI or
            Kubernetes do not tell them.
        timeout: seconds to wait for the others.

    Raises:
        UserError: the options do not fit together, the environment tells nothing, or the
            processes have not equally many devices.
        RunError: the others could not be reached in time.
    """
    given = (config.coordinator, config.processes, config.process_index)
    if not config.distributed:
        if any(value is not None for value in given):
            raise UserError("--coordinator, --processes and --process-index need --distributed")
        return
    _check(config)
    # It would take SIGTERM for itself, and tell nobody.
    jax.config.update("jax_enable_preemption_service", False)
    _say_at_abort(
        f"the other processes could not be reached within {timeout} s: start all of them, with the "
        "same --coordinator"
    )
    try:
        jax.distributed.initialize(
            *given, initialization_timeout=timeout, heartbeat_timeout_seconds=HEARTBEAT_SECONDS
        )
    except ValueError as error:
        raise UserError(
            f"--distributed: {str(error).rstrip('.')}: outside SLURM, Open MPI and Kubernetes give "
            "all of --coordinator HOST:PORT, --processes and --process-index"
        ) from None
    except RuntimeError as error:
        raise RunError(first_line(error)) from None
    _say_at_abort(ABORTED)
    _check_devices()


def _check(config: TrainConfig) -> None:
    if config.coordinator is not None:
        host, _, port = config.coordinator.rpartition(":")
        if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 2**16:
            raise UserError(
                f"--coordinator must be HOST:PORT, as 10.0.0.1:1234, got {config.coordinator!r}"
            )
        if config.process_index == 0:
            _check_port(int(port))
    count, index = config.processes, config.process_index
    if count is not None and index is not None and not index < count:
        raise UserError(f"--process-index must be below --processes, which is {count}, got {index}")


def _check_port(port: int) -> None:
    """JAX's service would crash on a port that is in use."""
    try:
        # As the service has it: both protocols where there are both.
        socket.create_server(
            ("", port),
            family=socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET,
            dualstack_ipv6=socket.has_dualstack_ipv6(),
        ).close()
    except OSError as error:
        raise UserError(
            f"--coordinator: port {port} cannot be had here ({os.strerror(error.errno or 0)}): "
            "take another"
        ) from None


def _check_devices() -> None:
    counts = Counter(device.process_index for device in jax.devices())
    least, most = min(counts, key=lambda i: counts[i]), max(counts, key=lambda i: counts[i])
    if counts[least] != counts[most]:
        raise UserError(
            f"process {least} has {counts[least]} of the devices, process {most} "
            f"{counts[most]}: all processes must have equally many"
        )


def _say_at_abort(text: str) -> None:
    """Has this process end in our words when JAX's service ends it.

    The service tells of peers that cannot be reached by a stack trace and abort(), in a thread of
    its own. Python's own signal handlers are not called then, so this one is the C library's.
    """

    @ctypes.CFUNCTYPE(None, ctypes.c_int)
    def handler(number: int) -> None:
        del number
        os.write(2, f"error: {text}\n".encode())
        os._exit(1)  # the others are gone: there is nobody to say goodbye to

    _kept.append(handler)  # or it would be collected
    ctypes.CDLL(None).signal(signal.SIGABRT, handler)


_kept: list[Any] = []


def is_first() -> bool:
    """Whether this process has the run's folder."""
    return jax.process_index() == 0


def agree(action: Callable[[], T]) -> T:
    """What ``action`` gives, or raises, in the first process: the same in all.

    Args:
        action: called in the first process alone; gives plain data for JSON.

    Raises:
        UserError, OSError: as ``action``; and in the others a RuntimeError for any other error.
    """
    if jax.process_count() == 1:
        return action()
    message, failed = _attempt(action) if is_first() else ({}, None)
    (told,) = _everyones(message, first_only=True)
    if failed is not None:
        raise failed
    return _result(told)


def in_all(action: Callable[[], T]) -> T:
    """What ``action`` gives here; if it fails in any process, all raise the first one's error.

    Args:
        action: called in every process.

    Raises:
        UserError, OSError: as ``action``, here or elsewhere; for any other error a RuntimeError in
            the processes that are well.
    """
    if jax.process_count() == 1:
        return action()
    given: list[T] = []
    message, failed = _attempt(lambda: given.append(action()))
    for told in _everyones(message):
        if failed is not None and told == message:
            raise failed
        _result(told)
    return given[0]


def _attempt(action: Callable[[], Any]) -> tuple[dict[str, Any], Exception | None]:
    """What there is to tell the others of what the action gave or raised, and what it raised."""
    try:
        return {"value": action()}, None
    except Exception as error:
        kinds = [kind.__name__ for kind in _AGREED if isinstance(error, kind)]
        return {"kind": (*kinds, "")[0], "error": str(error)[:ERROR_CHARACTERS]}, error


def _result(told: dict[str, Any]) -> Any:
    if "error" in told:
        kind = next((kind for kind in _AGREED if kind.__name__ == told["kind"]), RuntimeError)
        raise kind(told["error"])
    return told["value"]


_AGREED = (UserError, OSError)


def check_same(text: str) -> None:
    """Makes sure that all processes were given the same.

    Args:
        text: what this one was given.

    Raises:
        UserError: in all processes, if one was given something else than the first.
    """
    if jax.process_count() == 1:
        return
    digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
    everyones = np.asarray(multihost_utils.process_allgather(digest))  # [P, 32]
    others = [i for i, theirs in enumerate(everyones) if not np.array_equal(theirs, everyones[0])]
    if others:
        raise UserError(
            f"process {others[0]} has other options, or other data, than process 0: give all "
            "processes the same"
        )


def check_shared(folder: Path) -> None:
    """Makes sure that all processes see what the first one writes into a folder.

    Raises:
        UserError: in all processes, if one does not, or the first one cannot write there.
    """
    if jax.process_count() == 1:
        return

    def make() -> str:
        try:
            descriptor, name = tempfile.mkstemp(prefix=".seen-", dir=folder)
        except OSError as error:
            raise UserError(f"--workdir {folder} is not writable: {error.strerror}") from None
        os.close(descriptor)
        return os.path.basename(name)

    mark = folder / agree(make)
    deadline = time.monotonic() + SHARED_SECONDS
    while not os.path.exists(mark) and time.monotonic() < deadline:
        time.sleep(0.1)
    sees = np.array([os.path.exists(mark)])
    everyones = np.asarray(multihost_utils.process_allgather(sees))[:, 0]  # [P]
    if is_first():
        mark.unlink()
    if not everyones.all():
        raise UserError(
            f"--workdir {folder} must be on a file system that all processes share: process "
            f"{int(everyones.argmin())} does not see it"
        )


SHARED_SECONDS = 10.0  # until a network file system shows what another host has written


def _everyones(message: dict[str, Any], first_only: bool = False) -> list[dict[str, Any]]:
    """The messages of all processes in their order, or the first one's, in all processes."""
    text = json.dumps(message).encode()
    if len(text) > MESSAGE_BYTES:
        raise ValueError(f"a message of {len(text)} bytes is more than the {MESSAGE_BYTES} agreed")
    line = np.frombuffer(text.ljust(MESSAGE_BYTES), np.uint8)
    if first_only:
        lines = np.asarray(multihost_utils.broadcast_one_to_all(line))[np.newaxis]
    else:
        lines = np.asarray(multihost_utils.process_allgather(line))  # [P, bytes]
    return [json.loads(bytes(each)) for each in lines]


class Requests:
    """What single processes ask of all: to end at a signal, to save at a time.

    Alone, a request is answered at once. Among several processes all get the same answer one call
    later, so that none has to wait for the others.
    """

    def __init__(self, layout: Layout):
        self._alone = jax.process_count() == 1
        self._layout = layout
        self._pending: jax.Array | None = None
        self._has_saved = False
        everywhere = layout.sharding(EVERYWHERE)
        self._largest = jax.jit(lambda asked: asked.max(0), out_shardings=everywhere)

    def __call__(self, number: int, save: bool) -> tuple[int, bool]:
        """The number of a signal that came (0: none), and whether a checkpoint is due."""
        if self._alone:
            return number, save
        mine = np.array([[number, save and is_first()]], np.int32)
        asked = self._layout.divide(dict.fromkeys(self._layout.own, mine))
        before, self._pending = self._pending, self._largest(asked)
        if before is None:
            return 0, False
        answer = jax.device_get(before)
        # What was asked for just before a checkpoint is answered by it.
        self._has_saved = bool(answer[1]) and not self._has_saved
        return int(answer[0]), self._has_saved


@contextlib.contextmanager
def together() -> Iterator[None]:
    """While entered, a process that fails ends at once, and so do the others; all leave together.

    Raises:
        RunError: another process is gone.
    """
    try:
        yield
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("the end of the run")
    except (UserError, RunError, KeyboardInterrupt, BrokenPipeError):
        raise  # the command line leaves with a line of its own
    except BaseException as error:
        if jax.process_count() == 1:
            raise
        if is_lost_peer(error):
            raise RunError(f"{PEER_LOST} ({first_line(error)})") from None
        traceback.print_exc()
        leave(1)


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error is what JAX says when another process cannot be reached."""
    marks = ("Gloo", "NCCL", "Connection closed", "Connection reset", "UNAVAILABLE", "ABORTED")
    kinds = (jax.errors.JaxRuntimeError, ValueError)  # the latter for Gloo's status UNKNOWN
    text = str(error)
    return isinstance(error, kinds) and any(mark in text for mark in marks)


LAST_WORDS_SECONDS = 2.0


def leave(code: int) -> None:
    """Ends this process if it has joined others, and returns if it has not.

    JAX would have it wait for the others, which wait for it. The first one stays a moment: it has
    the service without which the others would end in other words than their own.
    """
    if not jax.distributed.is_initialized():
        return
    if is_first():
        time.sleep(LAST_WORDS_SECONDS)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
