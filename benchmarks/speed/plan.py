"""What the benchmarks measure, and how often."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.speed.config import BenchConfig
from benchmarks.speed.work import Task, Work

# The networks of the published comparison.
MAIN = ("nin", "nin15")


@dataclass(frozen=True)
class Plan:
    """What to measure, and how often.

    Attributes:
        variants: names or files.
        batch_sizes: None for each benchmark's own variants and batch sizes.
        image_size: side in pixels.
        in_channels: channels of the images.
        precision: of our computation, and of PyTorch's by autocast.
        rounds: measured rounds.
        workers: processes of PyTorch's DataLoader.
        config: the options, for `accuracy`.
        say: receives a text about what is being measured.
    """

    variants: Sequence[str]
    batch_sizes: Sequence[int] | None
    image_size: int
    in_channels: int
    precision: Any
    rounds: int
    workers: int
    config: BenchConfig = field(default_factory=BenchConfig)
    say: Callable[[str], None] = lambda text: None

    def works(self, task: Task, variants: Sequence[str], *batch_sizes: int) -> Iterator[Work]:
        """Yield work for these variants and batch sizes, or for the plan's if it has any."""
        for variant in self.variants if self.batch_sizes else variants:
            for batch_size in self.batch_sizes or batch_sizes:
                yield self.work(task, variant, batch_size)

    def work(self, task: Task, variant: str, batch_size: int) -> Work:
        """Return the work of a benchmark on a variant, with the settings of this plan."""
        return Work(task, variant, batch_size, self.image_size, self.in_channels, self.precision)
