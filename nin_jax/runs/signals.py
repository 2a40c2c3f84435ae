"""Ctrl-C and SIGTERM as a request: the step under way is finished and saved, then the run ends."""

import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """While entered, the first of the signals is noted; a second one ends the process at once.

    SLURM and the clouds announce preemption with SIGTERM. A signal that the process was told to
    ignore, as by a shell that runs it in the background, stays ignored. In a thread other than the
    main one, where Python takes no signals, nothing is changed.

    Attributes:
        signal: the signal that came, or None.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            heard = [n for n in SIGNALS if signal.getsignal(n) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.signal = signal.Signals(number)
        for each in self._before:  # the system's own way of ending a process waits for no step
            signal.signal(each, signal.SIG_DFL)
