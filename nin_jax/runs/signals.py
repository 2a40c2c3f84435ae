"""Ctrl-C and SIGTERM: finish the steps in progress, save a checkpoint, then end the run.

A signal is recorded here, `loop` stops after the current dispatch or during an evaluation,
`failure` saves the checkpoint, and the command exits with 128 plus the number of the signal.
"""

import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """A context in which the first signal is recorded and a second one ends the process at once.

    SLURM and cloud services announce preemption with SIGTERM. A signal that the process ignores,
    as in a background job of a shell, stays ignored. Outside the main thread, where Python handles
    no signals, nothing changes.

    Attributes:
        signal: the signal that was received, or None.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._handlers: dict[signal.Signals, Any] = {}  # from before

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            handled = [n for n in SIGNALS if signal.getsignal(n) != signal.SIG_IGN]
            self._handlers = {number: signal.signal(number, self._record) for number in handled}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _record(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.signal = signal.Signals(number)
        for each in self._handlers:  # the system's default action ends the process at once
            signal.signal(each, signal.SIG_DFL)
