"""Where a run's numbers go: metrics.jsonl, TensorBoard's events, the screen."""

import json
import sys
import time
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

PLAIN_LINE_EVERY = 30.0  # seconds between lines of progress where there is no bar


class JsonlWriter:
    """Appends one JSON object a line, each on disk when the call returns."""

    def __init__(self, path: Path):
        self._file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115

    def write(self, row: dict[str, Any]) -> None:
        self._file.write(json.dumps(row) + "\n")

    def close(self) -> None:
        self._file.close()


class TensorBoardWriter:
    """Every number of a row as a scalar of its name, at the row's step."""

    def __init__(self, folder: Path):
        # TensorBoard's own writer, which needs no TensorFlow; imported late as it is slow.
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = event_pb2, summary_pb2
        self._writer = EventFileWriter(str(folder))

    def write(self, row: dict[str, Any]) -> None:
        values = [
            self._summary.Summary.Value(tag=name, simple_value=value)
            for name, value in row.items()
            if isinstance(value, int | float) and name != "step"
        ]
        summary = self._summary.Summary(value=values)
        self._writer.add_event(
            self._event.Event(step=row["step"], wall_time=time.time(), summary=summary)
        )

    def close(self) -> None:
        self._writer.close()


class Screen:
    """A progress bar on a terminal, plain lines elsewhere; one line an epoch on both."""

    def __init__(self, total_steps: int, first_step: int = 0):
        self._total_steps, self._last_line = total_steps, time.monotonic()
        self._console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
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
        figures = f"loss {row['train_loss']:.3f}  accuracy {row['train_accuracy']:.3f}"
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
        UserError: it cannot be read, or a line is not a JSON object.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError:
            raise UserError(f"{path}, line {number}: not a JSON object") from None
        rows.append(row)
    return rows


def keep_rows_up_to(path: Path, step: int) -> None:
    """Drops rows of later steps than the checkpoint's, which a resumed run writes again."""
    rows = [row for row in read_metrics(path) if row["step"] <= step] if path.exists() else []
    _write_rows(path, rows)


def _write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
