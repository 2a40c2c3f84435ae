"""Run the benchmarks that a configuration names, and print and save their results."""

from pathlib import Path

from rich.console import Console

from benchmarks.speed import accuracy, gpu, jobs, output, profile
from benchmarks.speed.config import BenchConfig
from benchmarks.speed.plan import Plan
from benchmarks.speed.work import Row
from nin_jax.errors import RunError
from nin_jax.models.variants import EXERCISE


def run_benchmarks(config: BenchConfig, command: str) -> None:
    """Run the benchmarks, print the results, and save them if the configuration has a folder.

    Args:
        config: checked.
        command: the command line, for the results.

    Raises:
        UserError: the dataset of `accuracy` is missing, or a network cannot take its images; `gpu`
            without a GPU, or `profile` with one.
        RunError: `gpu` found that PyTorch or another setting is faster, or could not measure all.
    """
    if "accuracy" in config.jobs:
        accuracy.check(config)
    if "gpu" in config.jobs:
        gpu.check()
    if "profile" in config.jobs:
        profile.check()
    console = Console(stderr=True, highlight=False, emoji=False)
    rows: list[Row] = []
    written: list[Path] = []
    defeats: list[str] = []
    with console.status("starting") as status:
        plan = Plan(
            variants=config.variants or EXERCISE,
            batch_sizes=config.batch_sizes or None,
            image_size=config.image_size or 224,
            in_channels=config.in_channels,
            precision=config.precision,
            rounds=config.rounds,
            workers=config.workers,
            config=config,
            say=status.update,
        )
        for job in dict.fromkeys(config.jobs or jobs.HEADLINE):  # each once, if named twice
            for row in jobs.JOBS[job](plan):
                rows.append(row)
                if job == "gpu":
                    defeats += gpu.defeats([row])
                console.print(output.line(row), soft_wrap=True)
                if config.folder is not None:  # after each row, in case of an interruption
                    written = output.write(config.folder, rows, output.header(), command)
    print(output.FORMATS[config.format](rows, output.header(), command), end="")
    if config.folder is not None:
        written += output.draw(config.folder, rows)
    for path in written:
        console.print(f"wrote {path}")
    if defeats:
        raise RunError("not shown to be the fastest: " + "; ".join(defeats))
