"""The options of scripts/bench.py."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from nin_jax.errors import UserError, option_of
from nin_jax.models.geometry import trace
from nin_jax.models.variants import EXERCISE, get_variant
from nin_jax.runs import workdir

Job = Literal[
    "train",
    "predict",
    "epoch",
    "memory",
    "startup",
    "images",
    "ops",
    "settings",
    "profile",
    "summary",
    "gpu",
    "sweep",
    "scale",
    "accuracy",
]

GPU_RESULTS = Path("benchmarks/results/gpu-defaults")


@dataclass(frozen=True)
class BenchConfig:
    """Measure nin_jax against PyTorch and plain Flax, in interleaved rounds.

    Default: all benchmarks except ops, settings, profile, summary, gpu, sweep, scale and accuracy.
    A ratio is the best rival's median over ours; above 1, nin_jax is faster. Progress goes to
    standard error, results to standard output.
    """

    jobs: Annotated[tuple[Job, ...], tyro.conf.Positional] = ()
    """train and predict: one step or batch against PyTorch. epoch: a whole epoch, data included.
    memory: peak memory of each contender. startup: seconds to the first step. images: cost per
    image by size of the dataset. ops: the step with one of our operations replaced at a time.
    settings: the step in bfloat16, and with Muon, against float32 and SGD. profile: on a CPU, where
    the time of a step goes, here and in PyTorch. summary: the comparisons of nin and nin15 in
    docs/benchmarks.md except epoch, memory and accuracy, each in a process of its own, in one
    table; 80 minutes on two cores; its only options are --rounds, --format and --out. gpu: on a
    GPU, a step and a batch against PyTorch in TF32 and bfloat16, and an epoch with other settings
    than the defaults (steps per dispatch, micro-batches, streamed images); exit code 1 if one of
    them is faster. No part starts after seven minutes; such a part is an error. sweep: cost by
    batch and image size, and the roofline. scale: the overhead of a mesh, several devices, and the
    communication between them. accuracy: seconds to a test accuracy, with recipe modern in nin_jax
    and in PyTorch, and d2l in PyTorch."""

    variants: tuple[str, ...] = ()
    """Networks to measure. The benchmarks other than train, ops, sweep and accuracy use them only
    if --batch-sizes is given. Default: those of the exercise; for accuracy nin."""

    batch_sizes: tuple[int, ...] = ()
    """Images per step; for scale, per step and device. Default: each benchmark's own. Not used by
    accuracy, which takes the recipes' batch sizes."""

    image_size: int | None = None
    """Side of the images, in pixels. Default: 224; for accuracy 96."""

    in_channels: int = 1
    """Channels of the images; accuracy takes those of the dataset."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Of our computation; for bfloat16, PyTorch runs with autocast and without. On a GPU float32
    means TF32 on both sides. Not used by settings and gpu, which take both."""

    rounds: int = 7
    """Measured rounds. Rivals that take over 1.3 times as long as the best rival drop out after two
    rounds; those that take over three times as long drop out after the warm-up."""

    workers: int = 2
    """Processes of PyTorch's DataLoader, for epoch."""

    dataset: str = "fashion_mnist"
    """For accuracy: a name as for scripts/train.py."""

    data_dir: Path | None = None
    """Folder with the dataset's files. Default: $NIN_DATA_DIR, or the user's data folder."""

    epochs: int = 1
    """For accuracy: planned length of recipe modern. The published recipe has none."""

    targets: tuple[float, ...] = (0.85, 0.90)
    """For accuracy: the test accuracies to reach, in (0, 1)."""

    cap_seconds: float = 1800
    """For accuracy: training seconds after which a contender is stopped."""

    format: Literal["table", "json", "csv", "markdown"] = "table"
    """Of the results on standard output."""

    out: Path | None = None
    """Folder for results.json, results.csv, results.md and sweep.png. All but the figure are
    written after each row, so an interrupted call leaves what it has measured. Default: none; for
    gpu benchmarks/results/gpu-defaults."""

    @property
    def folder(self) -> Path | None:
        """The folder of the results, or None."""
        return GPU_RESULTS if self.out is None and "gpu" in self.jobs else self.out

    def check(self) -> None:
        """Check everything that needs neither PyTorch nor data.

        Raises:
            UserError: an option has a wrong value, or a network cannot take the images.
        """
        for name in ("image_size", "in_channels", "rounds", "workers", "epochs"):
            least = 0 if name == "workers" else 1
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"{option_of(name)} must be a whole number >= {least}")
        if any(size < 1 for size in self.batch_sizes):
            raise UserError("--batch-sizes must be whole numbers >= 1")
        if not self.targets or not all(0 < target < 1 for target in self.targets):
            raise UserError("--targets must be numbers in (0, 1)")
        if not 1 <= self.cap_seconds < math.inf:
            raise UserError("--cap-seconds must be a finite number >= 1")
        if set(self.jobs) != {"accuracy"}:
            for variant in self.variants or EXERCISE:
                trace(get_variant(variant), self.in_channels, 10, self.image_size or 224)
        if self.folder is not None:
            workdir.check_folder("--out", self.folder)
