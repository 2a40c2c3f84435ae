"""Speed and memory against PyTorch and plain Flax: python scripts/bench.py."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from nin_jax import cli

Job = Literal["train", "predict", "epoch", "memory", "startup", "images", "ops", "sweep", "scale"]


@dataclass(frozen=True)
class BenchConfig:
    """Measure nin_jax against PyTorch and plain Flax, interleaved in one process.

    Without a benchmark named: all but ops, sweep and scale. A ratio is the best rival's median over
    ours; above 1, we are ahead. Progress goes to standard error, results to standard output.
    """

    jobs: Annotated[tuple[Job, ...], tyro.conf.Positional] = ()
    """train and predict: one step or batch against PyTorch. epoch: the whole job, data included.
    memory: each side's peak. startup: seconds to the first step. images: cost per image by size of
    data set. ops: what each of our operations earns. sweep: cost by batch and image size, and the
    roofline. scale: what a mesh costs, several devices, and what they send each other."""

    sweep: bool = False
    """How the cost grows with batch size, image size and number of images: the benchmarks sweep
    and images."""

    variants: tuple[str, ...] = ()
    """Networks, for train, ops and sweep, and with --batch-sizes for the others. Default: all."""

    batch_sizes: tuple[int, ...] = ()
    """Images a step; for scale a step and device. Default: each benchmark's own."""

    image_size: int = 224
    """Side of the images, in pixels."""

    in_channels: int = 1
    """Channels of the images."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Of our computation; PyTorch takes autocast. On a GPU float32 means TF32 on both sides."""

    rounds: int = 7
    """Measured rounds; contenders far behind drop out after two."""

    workers: int = 2
    """Processes of PyTorch's DataLoader, for epoch."""

    format: Literal["table", "json", "csv", "markdown"] = "table"
    """Of the results on standard output."""

    out: Path | None = None
    """Folder for results.json, results.csv, results.md and sweep.png."""


def run(config: BenchConfig) -> None:
    from nin_jax import UserError, get_variant, list_variants, workdir
    from nin_jax.geometry import trace

    for name in ("image_size", "in_channels", "rounds", "workers"):
        least = 0 if name == "workers" else 1
        if getattr(config, name) < least:
            raise UserError(f"--{name.replace('_', '-')} must be a whole number >= {least}")
    if any(size < 1 for size in config.batch_sizes):
        raise UserError("--batch-sizes must be whole numbers >= 1")
    for variant in config.variants:  # which has to be one that can be built
        trace(get_variant(variant), config.in_channels, 10, config.image_size)
    if config.out is not None:
        workdir.check_folder("--out", config.out)
    try:
        import nin_torch_ref  # noqa: F401
    except ModuleNotFoundError:
        raise UserError("the benchmark needs PyTorch: pip install -e '.[test]'") from None
    _run(config, config.variants or tuple(list_variants()))


def _run(config: BenchConfig, variants: tuple[str, ...]) -> None:
    from rich.console import Console

    from nin_bench import jobs, report

    console = Console(stderr=True, highlight=False)
    rows: list[jobs.Row] = []
    with console.status("starting") as status:

        def say(text: str) -> None:
            status.update(text)

        plan = jobs.Plan(
            variants=variants,
            batch_sizes=config.batch_sizes or None,
            image_size=config.image_size,
            in_channels=config.in_channels,
            precision=config.precision,
            rounds=config.rounds,
            workers=config.workers,
            say=say,
        )
        swept = ("sweep", "images") if config.sweep else ()
        for job in (*config.jobs, *swept) or jobs.HEADLINE:
            for row in jobs.JOBS[job](plan):
                rows.append(row)
                console.print(report.line(row), soft_wrap=True)
    command = shlex.join(["python", "scripts/bench.py", *sys.argv[1:]])
    head = report.header()
    match config.format:
        case "table":
            print(f"{command}\n" + ", ".join(f"{k} {v}" for k, v in head.items() if v))
            report.print_tables(rows)
        case "json":
            print(report.as_json(rows, head, command), end="")
        case "csv":
            print(report.as_csv(rows), end="")
        case "markdown":
            print(report.markdown(rows, head, command), end="")
    if config.out is not None:
        for path in report.write(config.out, rows, head, command):
            console.print(f"wrote {path}")


if __name__ == "__main__":
    cli.main(BenchConfig, run)
