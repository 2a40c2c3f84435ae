"""Build contenders, time them in turns, and compare them with ours."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.speed import ours, pytorch
from benchmarks.speed.plan import Plan
from benchmarks.speed.timing import Timing, interleave
from benchmarks.speed.work import OURS, Call, Row, Work, error_text
from benchmarks.speed.worker import FailedError, Worker

SHORT_SECONDS = 2.0  # a shorter call is made once more in the warm-up

Builders = Mapping[str, Callable[[], Call]]
"""A function for each contender that builds it and returns its call."""


@dataclass(frozen=True)
class Measured:
    """The timings of some contenders, and the errors of the others."""

    names: Sequence[str]
    timings: Mapping[str, Timing]
    errors: Mapping[str, str]

    def rows(self, common: Row, images: int) -> Iterator[tuple[str, Row]]:
        """Yield each contender's name and row, for calls that process that many images."""
        for name in self.names:
            figures = {"error": self.errors[name]} if name in self.errors else {}
            figures = figures or self.timings[name].row(images)
            yield name, common | {"contender": name} | figures

    def rows_with_ratio(self, common: Row, images: int, rivals: Iterable[str]) -> Iterator[Row]:
        """Yield each contender's row, ours with the best of the rivals and its time over ours."""
        measured = [name for name in rivals if name in self.timings]
        best = min(measured, key=lambda name: self.timings[name].median, default=None)
        for name, row in self.rows(common, images):
            if name == OURS and best is not None and "error" not in row:
                ratio = self.timings[best].median / self.timings[OURS].median
                row |= {"best_rival": best, "best_rival_over_ours": round(ratio, 3)}
                row |= self._ratios_of_rounds(best)
            yield row

    def _ratios_of_rounds(self, name: str) -> Row:
        """Return the least and the largest ratio of a contender's time to ours in one round."""
        pairs = zip(self.timings[name].seconds, self.timings[OURS].seconds, strict=False)
        ratios = [theirs / mine for theirs, mine in pairs]
        return {"least_ratio": round(min(ratios), 3), "largest_ratio": round(max(ratios), 3)}

    def rows_over_ours(self, common: Row, images: int) -> Iterator[Row]:
        """Yield each contender's row with its time over ours."""
        for name, row in self.rows(common, images):
            if name in self.timings and OURS in self.timings:
                ratio = self.timings[name].median / self.timings[OURS].median
                row |= {"over_ours": round(ratio, 3)} | self._ratios_of_rounds(name)
            yield row


def measure(plan: Plan, contenders: Builders, what: str, screening: int = 2) -> Measured:
    """Build and warm up every contender, then time those that work."""
    calls: dict[str, Call] = {}
    expected: dict[str, float] = {}
    errors: dict[str, str] = {}
    for name, build in contenders.items():
        plan.say(f"{what}: preparing {name}")
        try:
            calls[name] = build()
            calls[name]()  # some contenders compile now
            expected[name] = _seconds(calls[name])
            if expected[name] < SHORT_SECONDS:  # PyTorch records CUDA graphs in its second call
                expected[name] = _seconds(calls[name])
        except Exception as error:  # whatever a framework raises becomes its row
            calls.pop(name, None)
            expected.pop(name, None)
            errors[name] = _text(error)

    def say(text: str) -> None:
        plan.say(f"{what}, {text}")

    def failed(name: str, error: Exception) -> None:
        errors[name] = _text(error)

    timings = interleave(calls, plan.rounds, OURS, say, screening, expected, failed)
    return Measured(list(contenders), timings, errors)


def _seconds(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _text(error: Exception) -> str:
    return str(error) if isinstance(error, FailedError) else error_text(error)


def against_rivals(plan: Plan, work: Work, more: Iterable[str] = ()) -> Iterator[Row]:
    """Time ours, PyTorch's and further contenders, each in a process of its own."""
    rivals = list(pytorch.rivals(work))
    with contextlib.ExitStack() as workers:
        # They start at once, which takes less time; none is called before all are built.
        plan.say(f"{work.task} {work.variant} {work.batch_size}: starting the processes")
        started = {n: workers.enter_context(Worker(work, n)) for n in (OURS, *rivals, *more)}
        for worker in started.values():
            worker.wait()
        contenders = {name: partial(started.__getitem__, name) for name in started}
        measured = measure(plan, contenders, f"{work.task} {work.variant} {work.batch_size}")
    yield from measured.rows_with_ratio(work.row(), work.batch_size, rivals)


def over_ours(plan: Plan, work: Work, benchmark: str, others: Builders) -> Iterator[Row]:
    """Time our step and changed ones; a row has the changed one's time over ours."""
    contenders = {OURS: partial(ours.nin_jax_call, work), **others}
    yield from compared(plan, work, benchmark, contenders, work.batch_size)


def compared(
    plan: Plan, work: Work, benchmark: str, contenders: Builders, images: int
) -> Iterator[Row]:
    """Time contenders in turns, and yield each one's row with its time over ours."""
    measured = measure(plan, contenders, f"{benchmark} {work.variant}", screening=plan.rounds)
    yield from measured.rows_over_ours(work.row() | {"benchmark": benchmark}, images)
