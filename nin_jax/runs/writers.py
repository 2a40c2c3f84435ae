"""Where a run's numbers go: metrics.jsonl, TensorBoard's events, the screen."""

import contextlib
import errno
import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from nin_jax.errors import UserError
from nin_jax.reading import parse_json, read_text

MAX_FILE_BYTES = 2**30  # of a metrics.jsonl; ten million steps take less
PLAIN_LINE_EVERY = 30.0  # seconds between lines of progress where there is no bar


class JsonlWriter:
    """Appends one JSON object a line, each in the file when the call returns.

    While the file cannot be written, a full disk say, rows are kept and written later; half a line
    never stays.

    Attributes:
        size: bytes of the file that are whole lines of ours.
        pending: rows that wait for room, as bytes.
    """

    what = "metrics.jsonl"

    def __init__(self, path: Path):
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - closed in close()
        self.size, self.pending = self._file.tell(), b""

    def write(self, row: dict[str, Any]) -> None:
        """Raises an OSError if the row has to wait."""
        self.pending += json.dumps(row, allow_nan=False).encode() + b"\n"
        self.flush()

    def flush(self) -> None:
        """Writes what waits; raises an OSError if it has to wait longer."""
        if not self.pending:
            return
        try:
            if self._file.write(self.pending) != len(self.pending):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(self.size)
            raise
        self.size, self.pending = self.size + len(self.pending), b""

    def sync(self) -> None:
        """Brings all rows to the disk; raises an OSError if that cannot be."""
        self.flush()
        os.fsync(self._file)

    def close(self) -> None:
        self._file.close()


class Nowhere:
    """Stands in for `JsonlWriter` where another process of the run writes the file."""

    size = 0

    def write(self, row: dict[str, Any]) -> None:
        del row

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass


class TensorBoardWriter:
    """Every number of a row as a scalar of its name, at the row's step.

    The events hold what ``metrics.jsonl`` holds: a run that is resumed writes them anew from there,
    so that each step stands in them once.

    Args:
        folder: of the events; made if need be, and emptied of event files.
        rows: those that are written already.
    """

    what = "TensorBoard's events"

    def __init__(self, folder: Path, rows: Iterable[dict[str, Any]] = ()):
        # TensorBoard's own record format, which needs no TensorFlow; imported late as it is slow.
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event: Any = event_pb2  # made by protobuf, which leaves type checkers in the dark
        self._summary: Any = summary_pb2
        folder.mkdir(exist_ok=True)
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        name = f"events.out.tfevents.{int(time.time()):010d}.{platform.node()}"
        # A row is one small write: what a killed run leaves is whole but for its last event.
        self._records = RecordWriter(open(folder / name, "wb", buffering=0))  # noqa: SIM115
        version = self._event.Event(wall_time=time.time(), file_version="brain.Event:2")
        self._records.write(version.SerializeToString())
        for row in rows:
            self.write(row)

    def write(self, row: dict[str, Any]) -> None:
        """Raises an OSError if the event cannot be written."""
        values = [
            self._summary.Summary.Value(tag=name, simple_value=value)
            for name, value in row.items()
            if isinstance(value, int | float) and name not in ("step", "time")
        ]
        summary = self._summary.Summary(value=values)
        event = self._event.Event(step=row["step"], wall_time=row["time"], summary=summary)
        self._records.write(event.SerializeToString())

    def close(self) -> None:
        self._records.close()


class Screen:
    """A progress bar on a terminal, plain lines elsewhere; one line an epoch on both."""

    def __init__(self, total_steps: int, first_step: int = 0, quiet: bool = False):
        self._total_steps, self._last_line = total_steps, time.monotonic()
        self._console = Console(file=sys.stdout, highlight=False, soft_wrap=True, quiet=quiet)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task(
            "training", total=total_steps, completed=first_step, figures=""
        )

    def __enter__(self) -> "Screen":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def line(self, text: str) -> None:
        """Prints a line above the bar."""
        self._console.print(text, markup=False)
        self._last_line = time.monotonic()

    def step(self, row: dict[str, Any]) -> None:
        """Shows a step's figures beside the bar."""
        loss, accuracy = row["train_loss"], row["train_accuracy"]
        figures = "skipped" if loss is None else f"loss {loss:.3f}  accuracy {accuracy:.3f}"
        if row["images_per_second"] is not None:
            figures += f"  {row['images_per_second']:.0f} images/s"
        self._progress.update(self._task, completed=row["step"], figures=figures)
        if not self._console.is_terminal and time.monotonic() - self._last_line > PLAIN_LINE_EVERY:
            self.line(f"step {row['step']}/{self._total_steps}  {figures}")

    def evaluating(self, done: int, total: int) -> None:
        """Says how far the evaluation is."""
        self._progress.update(self._task, figures=f"evaluating {done}/{total}")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl.

    Raises:
        UserError: it cannot be read, or a line is not a JSON object with a kind and a step.
    """
    rows = []
    for number, line in enumerate(read_text(path, limit=MAX_FILE_BYTES).splitlines(), start=1):
        try:
            row = parse_json(line)
            good = isinstance(row["kind"], str) and type(row["step"]) is int and row["step"] >= 0
        except (ValueError, TypeError, KeyError):
            good = False
        if not good:
            raise UserError(f"{path}, line {number}: not a JSON object with a kind and a step")
        rows.append(row)
    return rows


def cut(path: Path, size: int) -> None:
    """Cuts the file back to its first ``size`` bytes: a resumed run writes what follows again.

    Warns:
        UserWarning: it is shorter than that.
    """
    with open(path, "a+b") as file:
        there = file.tell()
        if there < size:
            file.seek(0)
            size = file.read().rfind(b"\n") + 1
            warnings.warn(
                f"{path} has lost rows that the checkpoint knows of; the run goes on, its curves "
                "are incomplete",
                stacklevel=2,
            )
        file.truncate(size)
