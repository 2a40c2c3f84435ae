"""A contender in a process of its own: python -m benchmarks.speed.worker JSON.

Users run one framework in a process: two of them change each other's speed. Only the contender's
own framework is imported.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from types import TracebackType
from typing import Self

from benchmarks.speed.probe import command_of, failure
from benchmarks.speed.work import OURS, PLAIN, Call, Work, error_text


class FailedError(Exception):
    """A contender could not be built or called; the message is the text of its row."""


class Worker:
    """A contender that another process builds and calls; leaving the context ends the process.

    Args:
        work: what to do.
        contender: its name.
    """

    def __init__(self, work: Work, contender: str):
        request = {"work": asdict(work), "contender": contender}
        command, environment = command_of("benchmarks.speed.worker", request)
        self._first: str | None = None  # what it has printed before the first call
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in __exit__
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            text=True,
            bufsize=1,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.communicate()
        self._errors.close()

    def __call__(self) -> None:
        """Make a call."""
        self.repeat(1)

    def wait(self) -> None:
        """Wait until the process has built the contender, or has failed; `repeat` says why."""
        if self._first is None:
            assert self.process.stdout is not None
            self._first = self.process.stdout.readline()

    def repeat(self, times: int) -> None:
        """Let the process make that many calls, and wait for their end.

        Raises:
            FailedError: the contender could not be built, or the call failed.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.wait()
        answer = self._first
        if answer == "ready\n":
            with contextlib.suppress(BrokenPipeError):  # it has ended; its answer says why
                self.process.stdin.write(f"{times}\n")
            answer = self.process.stdout.readline()
        if answer == "done\n":
            return
        if answer:
            raise FailedError(json.loads(answer))
        code = self.process.wait()
        self._errors.seek(0)
        raise FailedError(failure(code, self._errors.read()))


def build(work: Work, contender: str) -> Call:
    """Build a contender in this process."""
    if contender in (OURS, PLAIN):
        from benchmarks.speed import ours

        return {OURS: ours.nin_jax_call, PLAIN: ours.plain_flax_call}[contender](work)
    from benchmarks.speed.pytorch import rivals

    return rivals(work)[contender]()


def serve(work: Work, contender: str) -> None:
    """Build a contender, then call it as many times as each line of standard input says."""
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)  # a framework may print
        try:
            call = build(work, contender)
            print("ready", file=answers)
            for times in sys.stdin:
                for _ in range(int(times)):
                    call()
                print("done", file=answers)
        except Exception as error:  # whatever a framework raises becomes its row
            print(json.dumps(error_text(error)), file=answers)


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    serve(Work(**asked["work"]), asked["contender"])
