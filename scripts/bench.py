"""Speed and memory against PyTorch and plain Flax: python scripts/bench.py."""

import math
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from nin_jax import cli

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # benchmarks/ is not installed

Job = Literal[
    "train", "predict", "epoch", "memory", "startup", "images", "ops", "sweep", "scale", "accuracy"
]


@dataclass(frozen=True)
class BenchConfig:
    """Measure nin_jax against PyTorch and plain Flax, interleaved in one process.

    Without a benchmark named: all but ops, sweep, scale and accuracy. A ratio is the best rival's
    median over ours; above 1, we are ahead. Progress goes to standard error, results to standard
    output.
    """

    jobs: Annotated[tuple[Job, ...], tyro.conf.Positional] = ()
    """train and predict: one step or batch against PyTorch. epoch: the whole job, data included.
    memory: each side's peak. startup: seconds to the first step. images: cost per image by size of
    data set. ops: what each of our operations earns. sweep: cost by batch and image size, and the
    roofline. scale: what a mesh costs, several devices, and what they send each other. accuracy:
    seconds to a test accuracy, of recipe modern in nin_jax and of recipe d2l in PyTorch."""

    sweep: bool = False
    """How the cost grows with batch size, image size and number of images: the benchmarks sweep
    and images."""

    variants: tuple[str, ...] = ()
    """Networks, for train, ops, sweep and accuracy, and with --batch-sizes for the others.
    Default: all; for accuracy nin."""

    batch_sizes: tuple[int, ...] = ()
    """Images a step; for scale a step and device. Default: each benchmark's own. Not for accuracy,
    where they are the recipes'."""

    image_size: int | None = None
    """Side of the images, in pixels. Default: 224; for accuracy 96."""

    in_channels: int = 1
    """Channels of the images; for accuracy they are the data set's."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Of our computation; PyTorch takes autocast. On a GPU float32 means TF32 on both sides."""

    rounds: int = 7
    """Measured rounds; contenders far behind drop out after two."""

    workers: int = 2
    """Processes of PyTorch's DataLoader, for epoch."""

    dataset: str = "fashion_mnist"
    """For accuracy: fashion_mnist, mnist, kmnist, digits, tfds:NAME or folder:PATH."""

    data_dir: Path | None = None
    """Folder with the data set's files. Default: $NIN_DATA_DIR, or the user's data folder."""

    epochs: int = 3
    """For accuracy: planned length of recipe modern. The published recipe has none."""

    targets: tuple[float, ...] = (0.85, 0.90)
    """For accuracy: the test accuracies to reach, in (0, 1)."""

    cap_seconds: float = 1800
    """For accuracy: time after which a contender is stopped, evaluations not counted."""

    format: Literal["table", "json", "csv", "markdown"] = "table"
    """Of the results on standard output."""

    out: Path | None = None
    """Folder for results.json, results.csv, results.md and sweep.png."""


def run(config: BenchConfig) -> None:
    from nin_jax import UserError, get_variant, list_variants
    from nin_jax.models.geometry import trace
    from nin_jax.runs import workdir

    for name in ("image_size", "in_channels", "rounds", "workers", "epochs"):
        least = 0 if name == "workers" else 1
        value = getattr(config, name)
        if value is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')} must be a whole number >= {least}")
    if any(size < 1 for size in config.batch_sizes):
        raise UserError("--batch-sizes must be whole numbers >= 1")
    if not config.targets or not all(0 < target < 1 for target in config.targets):
        raise UserError("--targets must be numbers in (0, 1)")
    if not 1 <= config.cap_seconds < math.inf:
        raise UserError("--cap-seconds must be a finite number >= 1")
    if set(config.jobs) != {"accuracy"}:
        for variant in config.variants:  # which has to be one that can be built
            trace(get_variant(variant), config.in_channels, 10, config.image_size or 224)
    if config.out is not None:
        workdir.check_folder("--out", config.out)
    try:
        import nin_torch_ref  # noqa: F401
    except ModuleNotFoundError:
        raise UserError("the benchmark needs PyTorch: pip install -e '.[test]'") from None
    _run(config, config.variants or tuple(list_variants()))


def _run(config: BenchConfig, variants: tuple[str, ...]) -> None:
    from rich.console import Console

    from benchmarks.speed import jobs, output
    from benchmarks.speed.accuracy import Comparison

    comparison = Comparison(
        variants=config.variants or ("nin",),
        image_size=config.image_size or 96,
        dataset=config.dataset,
        data_dir=config.data_dir,
        epochs=config.epochs,
        targets=config.targets,
        cap_seconds=config.cap_seconds,
        precision=config.precision,
    )
    if "accuracy" in config.jobs:
        comparison.check()
    console = Console(stderr=True, highlight=False)
    rows: list[jobs.Row] = []
    with console.status("starting") as status:

        def say(text: str) -> None:
            status.update(text)

        plan = jobs.Plan(
            variants=variants,
            batch_sizes=config.batch_sizes or None,
            image_size=config.image_size or 224,
            in_channels=config.in_channels,
            precision=config.precision,
            rounds=config.rounds,
            workers=config.workers,
            comparison=comparison,
            say=say,
        )
        swept = ("sweep", "images") if config.sweep else ()
        for job in (*config.jobs, *swept) or jobs.HEADLINE:
            for row in jobs.JOBS[job](plan):
                rows.append(row)
                console.print(output.line(row), soft_wrap=True)
    command = shlex.join(["python", "scripts/bench.py", *sys.argv[1:]])
    head = output.header()
    match config.format:
        case "table":
            print(f"{command}\n" + ", ".join(f"{k} {v}" for k, v in head.items() if v))
            output.print_tables(rows)
        case "json":
            print(output.as_json(rows, head, command), end="")
        case "csv":
            print(output.as_csv(rows), end="")
        case "markdown":
            print(output.markdown(rows, head, command), end="")
    if config.out is not None:
        for path in output.write(config.out, rows, head, command):
            console.print(f"wrote {path}")


if __name__ == "__main__":
    cli.main(BenchConfig, run)
