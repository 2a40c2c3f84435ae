"""Disturb scripts/train.py: python -m tests.support.one_process WHERE WHAT OPTION...

WHERE is the step after whose dispatch it happens (0: never); or ``load``, before the data are
loaded; ``write``, in the first checkpoint after step 0; ``draw``, after training. WHAT is the
number of a signal, 0 for an unexpected error, or `FULL_DISK`.
"""

import errno
import os
import runpy
import signal
import sys
import time
from pathlib import Path

from nin_jax.runs import checkpoint, description, fit
from nin_jax.runs.progress import Recorder
from nin_jax.runs.writers import JsonlWriter

TRAIN = Path(__file__).resolve().parent.parent.parent / "scripts" / "train.py"
FULL_DISK = 1000


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def happen(what: int) -> None:
    if what == FULL_DISK:
        full_disk()
    elif what == 0:
        raise ZeroDivisionError("made by the test")
    else:
        if what == signal.SIGINT:  # ignored if the tests run in the background
            signal.signal(what, signal.default_int_handler)
        os.kill(os.getpid(), what)


def happen_in_step(step: int, what: int) -> None:
    dispatched = Recorder.dispatched

    def then(self: Recorder, count: int, figures) -> None:
        dispatched(self, count, figures)
        if self.progress.step + count != step:
            return
        if what == FULL_DISK:
            fill_disk_once()
        else:
            happen(what)

    Recorder.dispatched = then


def fill_disk_once() -> None:
    """Let the next checkpoint fail, and wait until one is due after 2 s."""
    sync = JsonlWriter.sync

    def full(self: JsonlWriter) -> None:
        JsonlWriter.sync = sync
        full_disk()

    JsonlWriter.sync = full
    time.sleep(2)


def happen_in(where: str, what: int) -> None:
    module, name = {
        "load": (fit, "load_spec"),
        "write": (checkpoint, "_write"),
        "draw": (description, "draw_curves"),
    }[where]
    before = getattr(module, name)

    def then(*arguments):
        if where != "write" or arguments[2]["step"] > 0:
            happen(what)
        return before(*arguments)

    setattr(module, name, then)


if __name__ == "__main__":
    where, what, *sys.argv[1:] = sys.argv[1:]
    if not where.isdigit():
        happen_in(where, int(what))
    elif int(where):
        happen_in_step(int(where), int(what))
    runpy.run_path(str(TRAIN), run_name="__main__")
