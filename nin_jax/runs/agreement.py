"""How the processes of a run decide together.

The first process owns the run's folder, its log and its screen. Whatever depends on the disk, the
clock or a signal is decided by agreement, so that all processes take the same path.
"""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from nin_jax.errors import UserError, one_line
from nin_jax.training.sharding import EVERYWHERE, Layout

T = TypeVar("T")

MESSAGE_BYTES = 1 << 14
ERROR_CHARACTERS = 1000  # each takes at most twelve bytes in JSON
SHARED_SECONDS = 10.0  # a network file system may take this long to show another host's file


def is_first() -> bool:
    """Return whether this process owns the run's folder."""
    return jax.process_index() == 0


def agree(action: Callable[[], T]) -> T:
    """Call ``action`` in the first process and return its result in all processes.

    Args:
        action: returns plain data for JSON.

    Raises:
        UserError, OSError: raised by ``action``; raised in all processes. Any other error becomes a
            RuntimeError in the other processes.
    """
    if jax.process_count() == 1:
        return action()
    message, error = _attempt(action) if is_first() else ({}, None)
    received = _gather(message)[0]
    if error is not None:
        raise error
    return _result(received)


def in_all(action: Callable[[], T]) -> T:
    """Call ``action`` in every process; if it fails in any of them, raise the first error in all.

    Args:
        action: its result stays in its own process.

    Raises:
        UserError, OSError: raised by ``action``, here or in another process. Any other error
            becomes a RuntimeError in the processes without an error of their own.
    """
    if jax.process_count() == 1:
        return action()
    results: list[T] = []
    message, error = _attempt(lambda: results.append(action()))
    for received in _gather(message):
        if error is not None and received == message:
            raise error
        _result(received)
    return results[0]


def _attempt(action: Callable[[], Any]) -> tuple[dict[str, Any], Exception | None]:
    """Return a message about the action's result or error, and the error."""
    try:
        return {"value": action()}, None
    except Exception as error:
        kinds = [kind.__name__ for kind in _SHARED_ERRORS if isinstance(error, kind)]
        return {"kind": (*kinds, "")[0], "error": str(error)[:ERROR_CHARACTERS]}, error


def _result(message: dict[str, Any]) -> Any:
    if "error" in message:
        kinds = {kind.__name__: kind for kind in _SHARED_ERRORS}
        raise kinds.get(message["kind"], RuntimeError)(message["error"])
    return message["value"]


_SHARED_ERRORS = (UserError, OSError)


def _gather(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the messages of all processes, in their order."""
    text = json.dumps(message).encode()
    if len(text) > MESSAGE_BYTES:
        raise ValueError(f"a message of {len(text)} bytes is longer than {MESSAGE_BYTES}")
    own = np.frombuffer(text.ljust(MESSAGE_BYTES), np.uint8)
    rows = np.asarray(multihost_utils.process_allgather(own))  # [P, bytes]
    return [json.loads(bytes(row)) for row in rows]


def check_same(text: str) -> None:
    """Check that all processes were given the same options, data, weights and settings of JAX.

    Args:
        text: those of this process.

    Raises:
        UserError: in all processes, if one of them differs from the first.
    """
    if jax.process_count() == 1:
        return
    digests = _gather({"digest": hashlib.sha256(text.encode()).hexdigest()})
    different = [i for i, digest in enumerate(digests) if digest != digests[0]]
    if different:
        raise UserError(
            f"process {different[0]} has other options, data, weights or settings of JAX than "
            "process 0: give all processes the same"
        )


def check_shared(folder: Path) -> None:
    """Check that all processes see the files that the first one writes into a folder.

    Raises:
        UserError: in all processes, if one does not, or if the first one cannot write there.
    """
    if jax.process_count() == 1:
        return

    def make() -> str:
        with one_line(f"--workdir {folder} is not writable"):
            descriptor, name = tempfile.mkstemp(prefix=".seen-", dir=folder)
        os.close(descriptor)
        return os.path.basename(name)

    mark = folder / agree(make)
    deadline = time.monotonic() + SHARED_SECONDS
    while not os.path.exists(mark) and time.monotonic() < deadline:
        time.sleep(0.1)
    seen = [message["seen"] for message in _gather({"seen": os.path.exists(mark)})]
    if is_first():
        mark.unlink()
    if not all(seen):
        raise UserError(
            f"--workdir {folder} must be on a file system that all processes share: process "
            f"{seen.index(False)} does not see it"
        )


class Requests:
    """Requests of single processes to all of them: to stop after a signal, to save a checkpoint.

    A single process gets its answer at once. Several processes all get the same answer one call
    later, so that no process has to wait for the others.
    """

    def __init__(self, layout: Layout):
        self._single = jax.process_count() == 1
        self._layout = layout
        self._pending: jax.Array | None = None
        self._has_saved = False
        everywhere = layout.sharding(EVERYWHERE)
        self._largest = jax.jit(lambda requests: requests.max(0), out_shardings=everywhere)

    def __call__(self, number: int, save: bool) -> tuple[int, bool]:
        """Return the number of a received signal (0: none), and whether to save a checkpoint."""
        if self._single:
            return number, save
        own = np.array([[number, save and is_first()]], np.int32)
        requests = self._layout.divide(dict.fromkeys(self._layout.own, own))
        before, self._pending = self._pending, self._largest(requests)
        if before is None:
            return 0, False
        answer = jax.device_get(before)
        # A request made just before a checkpoint is answered by that checkpoint.
        self._has_saved = bool(answer[1]) and not self._has_saved
        return int(answer[0]), self._has_saved
