"""scripts/train.py to which something happens: python -m tests.one_process STEP WHAT OPTION...

WHAT is the number of a signal, 0 for an error of our own making, or `FULL_DISK`; it happens when
the devices have been given that step. STEP 0 leaves the run alone.
"""

import errno
import os
import runpy
import sys
from pathlib import Path

from nin_jax.metrics import JsonlWriter
from nin_jax.recorder import Recorder

TRAIN = Path(__file__).resolve().parent.parent / "scripts" / "train.py"
FULL_DISK = 1000


def happen(what: int) -> None:
    if what == FULL_DISK:
        sync = JsonlWriter.sync

        def full(self: JsonlWriter) -> None:
            JsonlWriter.sync = sync  # once
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        JsonlWriter.sync = full
    elif what == 0:
        raise ZeroDivisionError("of our own making")
    else:
        os.kill(os.getpid(), what)


def happen_at(step: int, what: int) -> None:
    dispatched = Recorder.dispatched

    def then(self: Recorder, count: int, figures) -> None:
        dispatched(self, count, figures)
        if self.progress.step + count == step:
            happen(what)

    Recorder.dispatched = then


if __name__ == "__main__":
    step, what, *sys.argv[1:] = sys.argv[1:]
    if int(step):
        happen_at(int(step), int(what))
    runpy.run_path(str(TRAIN), run_name="__main__")
