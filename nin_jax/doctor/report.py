"""Check data, memory and disk against what a run needs, and report every check of this machine."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from nin_jax.accounting.account import account
from nin_jax.accounting.memory import PaperMemory
from nin_jax.accounting.programs import abstract_model
from nin_jax.data import datasets, download, idx
from nin_jax.data.built_in import official_sets
from nin_jax.data.official import OfficialSet, find
from nin_jax.doctor import checks, facts
from nin_jax.doctor.checks import Check, folder_problem, format_size, warning
from nin_jax.doctor.facts import Nvidia
from nin_jax.models.variants import get_variant
from nin_jax.tables import UNKNOWN, Table, markdown_section
from nin_jax.training.device import default_micro_batch_size

Findings = dict[str, list[Check]]
Format = Literal["table", "json", "markdown"]


HEADINGS = ("topic", "check", "found", "status", "advice")
# Free memory and disk are compared with the needs of this run.
VARIANT, BATCH_SIZE, IMAGE_SIZE, RECIPE = "nin15", 128, 224, "modern"
# What a process holds besides a training step: libraries, data, programs. The memory measured in
# benchmarks/results/cpu-memory is 817 MiB in all, of which a step in micro-batches takes 71.
PROCESS_BYTES = 750 * 2**20
CHECKPOINTS = 4  # the two newest, the best, and the one being written


@dataclass(frozen=True)
class DoctorConfig:
    """Check versions, devices, CUDA, precision, cache, data, memory and disk; print advice.

    Nothing is downloaded or written. Without --strict, warnings do not change the exit code.
    """

    data_dir: Path | None = None
    """Folder of the datasets, as for scripts/train.py. Default: $NIN_DATA_DIR, or the user's."""

    workdir: Path = Path()
    """Folder that runs will be written to; its free disk space is checked."""

    format: Format = "table"
    """Output format of the findings."""

    strict: bool = False
    """Exit with code 1 if there is any warning."""


def examine(data_dir: Path | None, run_folder: Path) -> Findings:
    """Read every fact once and return all checks by topic.

    Args:
        data_dir: as for `load_dataset`.
        run_folder: where runs will be written; it need not exist.
    """
    environ = dict(os.environ)
    nvidia = facts.read_nvidia()  # before JAX takes GPU memory
    devices, torch, plugin = facts.read_devices(), facts.read_torch(), facts.read_plugin()
    on_gpu = devices.platform == "gpu"
    precision = facts.jax_setting("jax_default_matmul_precision")
    host_bytes = PROCESS_BYTES + (0 if on_gpu else step_bytes())
    free_disk = facts.read_free_disk(run_folder)
    return {
        "versions": [
            *checks.version_checks(facts.read_bounds(plugin)),
            checks.torch_check(torch, facts.read_torch_bound()),
        ],
        "devices": [
            checks.devices_check(devices, nvidia, plugin, environ),
            checks.driver_check(nvidia, plugin),
        ],
        "CUDA": checks.cuda_checks(facts.jax_libraries(plugin), facts.torch_libraries(torch)),
        "preallocation": [checks.preallocation_check(environ, on_gpu, torch)],
        "precision": checks.precision_checks(precision, environ, on_gpu, torch),
        "compilation cache": [checks.cache_check(*facts.read_cache())],
        "data": data_checks(data_dir),
        "memory and disk": [
            memory_check(facts.read_available_memory(), host_bytes),
            gpu_memory_check(nvidia, step_memory().total_bytes),
            disk_check(run_folder, free_disk, checkpoint_bytes()),
        ],
    }


def count_warnings(findings: Findings) -> int:
    """Return the number of warnings."""
    return sum(check.status == "warning" for topic in findings.values() for check in topic)


def report(findings: Findings, form: Format) -> None:
    """Print the findings."""
    warnings = count_warnings(findings)
    conclusion = f"{warnings or 'No'} warning{'' if warnings == 1 else 's'}."
    rows = [
        ("" if i else topic, check.name, check.found, check.status, check.advice)
        for topic, found in findings.items()
        for i, check in enumerate(found)
    ]
    if form == "json":
        plain = {topic: [asdict(check) for check in found] for topic, found in findings.items()}
        print(json.dumps(plain, indent=1))
    elif form == "markdown":
        print(markdown_section(Table("Doctor", HEADINGS, rows, conclusion)), end="")
    else:
        _print_table(rows, conclusion)


def _print_table(rows: list[tuple[str, ...]], conclusion: str) -> None:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable()
    for heading in HEADINGS:
        drawn.add_column(heading, overflow="fold")  # a path that is cut off is of no use
    for row in rows:
        style = "yellow" if row[3] == "warning" else ""
        drawn.add_row(*(Text(cell, style) for cell in row))  # in a str, '[cuda12]' would be markup
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200
    console.print(drawn)
    console.print(conclusion)


def data_checks(data_dir: Path | None) -> list[Check]:
    """Check each dataset of files where `load_dataset` would look for it. Download nothing."""
    given = datasets.given_folder(data_dir)
    folder = given or download.user_folder()
    found = [dataset_check(name, folder, given is not None) for name in idx.IDX_SETS]
    for name, official in official_sets().items():
        found.append(official_check(name, official, folder, given is not None))
    if given is not None and not os.path.isdir(folder):
        problem = f"{folder} is not a folder"
        return [warning("folder", problem, "correct --data-dir or NIN_DATA_DIR"), *found]
    return [Check("folder", str(folder)), *found]


def dataset_check(name: str, root: Path, is_given: bool) -> Check:
    """Check that the four files of a dataset are in or below a folder, with the official MD5s.

    Args:
        name: a key of `idx.IDX_SETS`.
        root: the data folder.
        is_given: whether the user named the folder; nothing is downloaded into such a folder.
    """
    idx_set = idx.IDX_SETS[name]
    folder = idx.locate(idx_set, root)
    states = {file: idx.state_of(idx_set, folder, file) for file in idx.FILE_NAMES}
    problems = [f"{file} is {state}" for file, state in states.items() if state != "intact"]
    if not problems:
        return Check(name, f"4 files with the official MD5s in {folder}")
    if not {"intact", "damaged", "unreadable"}.isdisjoint(states.values()):
        return _damaged(name, f"in {folder}: {', '.join(problems)}", idx_set.url, is_given)
    return _not_found(name, idx_set.url, is_given)


def official_check(name: str, official: OfficialSet, root: Path, is_given: bool) -> Check:
    """Check that a dataset's official files are in or below a folder, as `dataset_check`."""
    found = find(official, root)
    if found.paths:
        (folder, *_) = {path.parent for path in found.paths.values()}
        files = f"{len(found.paths)} file{'' if len(found.paths) == 1 else 's'}"
        return Check(name, f"{files} with the official checksums in {folder}")
    if found.problem:
        return _damaged(name, found.problem, official.url, is_given)
    return _not_found(name, official.url, is_given)


def _damaged(name: str, problem: str, url: str, is_given: bool) -> Check:
    return warning(name, problem, f"get it from {url}" if is_given else "the next run downloads it")


def _not_found(name: str, url: str, is_given: bool) -> Check:
    if not is_given:
        return Check(name, "not found", "ok", "the first run that needs it downloads it")
    advice = f"put it there from {url}, or name no folder to download it"
    # A run that names no dataset needs Fashion-MNIST; the others are used only on request.
    return Check(name, "not found", "warning" if name == "fashion_mnist" else "ok", advice)


def step_memory(batch_size: int = BATCH_SIZE) -> PaperMemory:
    """Return the memory of a training step, computed from the shapes."""
    found = account(VARIANT, image_size=IMAGE_SIZE, batch_size=batch_size, recipe=RECIPE, xla=False)
    return found.memory["train"].paper


def step_bytes() -> int:
    """Return the bytes of a step on JAX's device. A CPU works on a few images at a time."""
    model = abstract_model(get_variant(VARIANT), 1, 10, IMAGE_SIZE, "float32", False)
    try:
        at_once = default_micro_batch_size(model, BATCH_SIZE)
    except Exception:  # JAX finds no device; another check reports that
        at_once = BATCH_SIZE
    return step_memory(at_once).total_bytes


def checkpoint_bytes() -> int:
    """Return the most bytes that a run's checkpoints take: parameters and optimizer state."""
    step = step_memory(1)
    return CHECKPOINTS * (step.params_bytes + step.optimizer_bytes)


def memory_check(available: int | None, needed: int) -> Check:
    """Check that the host's memory is enough for a run."""
    name, run = "host memory", f"training {VARIANT}, batch {BATCH_SIZE}"
    found = f"{format_size(available)} free; {run}: about {format_size(needed)}"
    if available is not None and available < needed:
        return warning(name, found, "end other programs, or use a smaller batch")
    return Check(name, found)


def gpu_memory_check(nvidia: Nvidia | None, needed: int) -> Check:
    """Check that the memory of the first GPU, which JAX uses by default, is enough for a step."""
    if nvidia is None or not nvidia.gpus:
        return Check("GPU memory", UNKNOWN)
    gpu = nvidia.gpus[0]
    found = (
        f"{format_size(gpu.free_bytes)} free of {format_size(gpu.total_bytes)}; "
        f"a step of {VARIANT}, batch {BATCH_SIZE}: at least {format_size(needed)}"
    )
    if gpu.free_bytes is not None and gpu.free_bytes < needed:
        advice = "end the programs that nvidia-smi lists, or use --micro-batch-size"
        return warning("GPU memory", found, advice)
    return Check("GPU memory", found)


def disk_check(folder: Path, free: int | None, needed: int) -> Check:
    """Check that a folder is writable and has room for a run's checkpoints."""
    problem = folder_problem("--workdir", folder)
    if problem:
        return warning("disk", problem, "name another folder with --workdir")
    found = f"{format_size(free)} free; checkpoints of {VARIANT}: {format_size(needed)}"
    if free is not None and free < needed:
        return warning("disk", found, "free some space, or name another folder with --workdir")
    return Check("disk", found)
