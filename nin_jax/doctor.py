"""What stands in a run's way on this machine, and what to do: `machine`'s facts, judged.

Every check is a function of the facts it judges. What is not known is "not available" and no
warning.
"""

import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion

import nin_jax
from nin_jax import datasets, idx, machine, workdir
from nin_jax.accounting.account import account
from nin_jax.accounting.memory import PaperMemory
from nin_jax.accounting.programs import abstract_model
from nin_jax.accounting.tables import UNKNOWN, Table, markdown
from nin_jax.device import default_micro_batch_size
from nin_jax.errors import UserError
from nin_jax.machine import PREALLOCATE, Devices, Libraries, Nvidia, Torch, VersionOf
from nin_jax.variants import get_variant

Format = Literal["table", "json", "markdown"]
Findings = dict[str, list["Check"]]

HEADINGS = ("topic", "what", "found", "status", "what to do")

# The run that free memory and disk are held against.
VARIANT, BATCH_SIZE, IMAGE_SIZE, RECIPE = "nin15", 128, 224, "modern"
# A process holds that much besides a step: libraries, data, programs. benchmarks/cpu-memory saw
# 817 MiB in all, of which a step in parts takes 71.
PROCESS_BYTES = 750 * 2**20
CHECKPOINTS = 4  # the two newest, the best, and the one that is being written
LARGE_CACHE_BYTES = 10 * 2**30
DRIVERS = {12: 525, 13: 580}  # the oldest NVIDIA driver for each CUDA, by JAX's installation guide
FRACTIONS = ("XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_CLIENT_MEM_FRACTION")  # old name, new name
# What JAX may round to TF32 on a GPU; it rounds also where nothing is set.
TF32_PRECISIONS = (None, "default", "high", "tensorfloat32", "TF32_TF32_F32")


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at.
        found: what is there, for people.
        status: "warning" if something is wrong or will go wrong.
        advice: what to do; empty where there is nothing.
    """

    name: str
    found: str
    status: Literal["ok", "warning"] = "ok"
    advice: str = ""


def examine(data_dir: Path | None, run_folder: Path) -> Findings:
    """Everything there is to say about this machine, by topic.

    Args:
        data_dir: as for `load_dataset`.
        run_folder: where runs are to be written; it need not be there.
    """
    environ, version_of = dict(os.environ), machine.installed_version
    nvidia = machine.read_nvidia()  # before JAX takes memory of its own
    devices, torch = machine.read_devices(), machine.read_torch()
    plugin, on_gpu = machine.read_plugin(version_of), devices.platform == "gpu"
    precision = machine.jax_setting("jax_default_matmul_precision")
    needed = PROCESS_BYTES + (0 if on_gpu else step_bytes())
    return {
        "versions": [
            *version_checks(read_bounds(plugin), version_of),
            torch_check(torch, _torch_bound()),
        ],
        "devices": [devices_check(devices, nvidia, plugin, environ), driver_check(nvidia, plugin)],
        "CUDA": cuda_checks(
            machine.jax_libraries(plugin, version_of), machine.torch_libraries(torch)
        ),
        "preallocation": [preallocation_check(environ, on_gpu, torch)],
        "precision": precision_checks(precision, environ, on_gpu, torch),
        "compilation cache": [cache_check(*machine.read_cache())],
        "data": data_checks(data_dir),
        "memory and disk": [
            memory_check(machine.read_available_memory(), needed),
            gpu_memory_check(nvidia, _step().total_bytes),
            disk_check(run_folder, machine.read_free_disk(run_folder), checkpoint_bytes()),
        ],
    }


def count_warnings(findings: Findings) -> int:
    """How many of the findings are warnings."""
    return sum(check.status == "warning" for checks in findings.values() for check in checks)


# Versions


def read_bounds(plugin: int | None) -> list[tuple[str, Requirement]]:
    """Who needs which version: this project of its packages, and JAX of its own parts."""
    bounds = [("nin_jax", needed) for needed in machine.read_requirements("nin_jax")]
    parts = [("jax", "", "jaxlib")]
    if plugin is not None:
        parts.append(("jax", f"cuda{plugin}", f"jax-cuda{plugin}-plugin"))
        # With CUDA of the system's there is no such wheel, and nothing to compare.
        if machine.installed_version(f"nvidia-cudnn-cu{plugin}"):
            parts.append((f"jax-cuda{plugin}-plugin", "with-cuda", f"nvidia-cudnn-cu{plugin}"))
    for who, extra, name in parts:
        bounds += [
            (who, needed) for needed in machine.read_requirements(who, extra) if needed.name == name
        ]
    return bounds


def version_checks(
    bounds: Sequence[tuple[str, Requirement]],
    version_of: VersionOf,
    python: str = platform.python_version(),
) -> list[Check]:
    """Python's version, this project's, and those of the packages against their bounds."""
    own = version_of("nin_jax")
    checks = [Check("python", python), Check("nin_jax", own or nin_jax.__version__)]
    if own is None:
        advice = "not installed, so what it needs is not known: pip install -e ."
        checks[1] = Check("nin_jax", f"{nin_jax.__version__}, from its folder", "warning", advice)
    return checks + [version_check(who, needed, version_of(needed.name)) for who, needed in bounds]


def version_check(who: str, needed: Requirement, version: str | None) -> Check:
    """Whether a package is there, in a version that suits who needs it."""
    advice = f"pip install '{needed.name}{needed.specifier}'"
    if version is None:
        return Check(needed.name, "not installed", "warning", f"{who} needs it: {advice}")
    if _within(version, needed.specifier):
        return Check(needed.name, version)
    found = f"{version}, but {who} needs {needed.specifier}"
    return Check(needed.name, found, "warning", advice)


def _within(version: str, bounds: SpecifierSet) -> bool:
    try:
        return bounds.contains(version, prereleases=True)
    except InvalidVersion:
        return False


# torch


def _torch_bound() -> Requirement | None:
    needed = machine.read_requirements("nin_jax", "test")
    return next((requirement for requirement in needed if requirement.name == "torch"), None)


def torch_check(torch: Torch | None, needed: Requirement | None) -> Check:
    """Whether torch works, where there is one, in the version of the parity tests."""
    if torch is None:
        return Check("torch", "not installed", "ok", "only the parity tests and bench.py need it")
    if torch.error:
        found = f"{torch.version or 'version ' + UNKNOWN}; {torch.error}"
        advice = "install it anew, or remove it: only the parity tests and bench.py need it"
        return Check("torch", found, "warning", advice)
    if needed is None:
        return Check("torch", torch.version or UNKNOWN)
    return version_check("nin_jax[test]", needed, torch.version)


# Devices


def devices_check(
    devices: Devices, nvidia: Nvidia | None, plugin: int | None, environ: Mapping[str, str]
) -> Check:
    """Whether JAX finds the devices that there are."""
    if devices.platform is None:
        chosen = environ.get("JAX_PLATFORMS")
        advice = f"unset JAX_PLATFORMS, now {chosen}" if chosen else "install JAX anew"
        return Check("JAX", f"none: {devices.error}", "warning", advice)
    if devices.platform != "cpu" or nvidia is None or not nvidia.gpus:
        return Check("JAX", devices.name)
    hiding = _hiding(environ)
    if hiding:
        return Check("JAX", f"{devices.name}, as {hiding} asks for")
    advice = f"JAX's plugin for CUDA {plugin} failed: it says why on standard error; see cuDNN too"
    if plugin is None:
        advice = "pip install -e '.[cuda12]'"
    return Check("JAX", f"{devices.name}, though there is a GPU", "warning", advice)


def _hiding(environ: Mapping[str, str]) -> str:
    """The setting that keeps JAX off a GPU, if there is one."""
    platforms, visible = environ.get("JAX_PLATFORMS", ""), environ.get("CUDA_VISIBLE_DEVICES", "0")
    if platforms and {"cuda", "gpu"}.isdisjoint(platforms.split(",")):
        return f"JAX_PLATFORMS={platforms}"
    return f"CUDA_VISIBLE_DEVICES={visible}" if visible.strip() in ("", "-1") else ""


def driver_check(nvidia: Nvidia | None, plugin: int | None) -> Check:
    """Whether the GPUs' driver works, and is new enough for JAX's CUDA."""
    if nvidia is None:
        return Check("NVIDIA driver", UNKNOWN, "ok", "there is no nvidia-smi")
    if nvidia.error:
        advice = "install NVIDIA's driver anew; without a GPU nothing is lost"
        return Check("NVIDIA driver", f"nvidia-smi: {nvidia.error}", "warning", advice)
    if not nvidia.gpus:
        return Check("NVIDIA driver", "no GPU")
    driver, names = nvidia.gpus[0].driver, ", ".join(gpu.name for gpu in nvidia.gpus)
    major, oldest = driver.partition(".")[0], DRIVERS.get(plugin or 0, 0)
    if major.isdigit() and int(major) < oldest:
        advice = f"JAX with CUDA {plugin} needs driver {oldest} or newer"
        return Check("NVIDIA driver", f"{driver}, {names}", "warning", advice)
    return Check("NVIDIA driver", f"{driver}, {names}")


# CUDA and cuDNN


def cuda_checks(ours: Libraries | None, theirs: Libraries | None) -> list[Check]:
    """Whether JAX and torch, in one process, ask for the same libraries."""
    cuda = f"JAX {_of(ours, 'cuda')}, torch {_of(theirs, 'cuda')}"
    cudnn = f"JAX {_of(ours, 'cudnn')}, torch {_of(theirs, 'cudnn')}"
    checks = [Check("CUDA", cuda), Check("cuDNN", cudnn)]
    if ours and theirs and _differ(ours.cuda, theirs.cuda, 1):
        advice = (
            f"their cuDNN wheels share one folder: install a torch built for CUDA "
            f"{(ours.cuda or '').partition('.')[0]}, or keep the two in environments of their own"
        )
        checks[0] = Check("CUDA", cuda, "warning", advice)
    if ours and theirs and _differ(ours.cudnn, theirs.cudnn, 2):
        advice = (
            "a process has one cuDNN, and the first to load decides: install JAX and torch anew "
            "with the same cuDNN, or a build of torch for CPUs"
        )
        checks[1] = Check("cuDNN", cudnn, "warning", advice)
    return checks


def _of(libraries: Libraries | None, name: str) -> str:
    return "none" if libraries is None else getattr(libraries, name) or UNKNOWN


def _differ(one: str | None, other: str | None, parts: int) -> bool:
    """Whether two known versions differ in their first parts."""
    if one is None or other is None:
        return False
    return one.split(".")[:parts] != other.split(".")[:parts]


# What JAX is told by the environment


def preallocation_check(environ: Mapping[str, str], on_gpu: bool, torch: Torch | None) -> Check:
    """How much of a GPU's memory JAX takes at its start, and whether it reads what was meant."""
    given = {name: environ[name] for name in (PREALLOCATE, *FRACTIONS) if environ.get(name)}
    fractions = [given[name] for name in FRACTIONS if name in given]
    share = _share((fractions or ["0.75"])[0])
    off = given.get(PREALLOCATE) in ("false", "False", "0")
    amount = f"{share} of a GPU's memory" if share else "a share that cannot be read"
    settings = ", ".join(f"{name}={value}" for name, value in given.items()) or "the default"
    found = f"{'off, up to' if off else 'on,'} {amount} ({settings})"
    if not on_gpu:
        found += "; no GPU in use"
    advice = ""
    if len(fractions) == 2:
        advice = f"JAX refuses both fractions: unset {FRACTIONS[0]}"
    elif share is None:
        advice = f"set {FRACTIONS[0]} to a number above 0 and up to 1"
    elif not off and given.get(PREALLOCATE, "true") not in ("true", "True", "1"):
        advice = f"JAX takes {given[PREALLOCATE]!r} for true: set {PREALLOCATE} to true or false"
    elif on_gpu and not off and torch is not None and torch.cuda:
        advice = f"torch in the same process gets the rest: set {PREALLOCATE}=false to compare them"
    return Check("JAX's share", found, "warning" if advice else "ok", advice)


def _share(text: str) -> str | None:
    """A fraction as a percentage, or None if it is none."""
    try:
        fraction = float(text)
    except ValueError:
        return None
    return f"{100 * fraction:g}%" if 0 < fraction <= 1 else None


def precision_checks(
    precision: str | None, environ: Mapping[str, str], on_gpu: bool, torch: Torch | None
) -> list[Check]:
    """To how many bits float32 products are rounded, and whether JAX and torch agree."""
    return [
        _jax_precision_check(precision, on_gpu),
        _override_check(environ.get("NVIDIA_TF32_OVERRIDE")),
        _torch_precision_check(torch, precision in TF32_PRECISIONS, on_gpu),
    ]


def _jax_precision_check(precision: str | None, on_gpu: bool) -> Check:
    name = "jax_default_matmul_precision"
    found = precision or "not set"
    if precision in TF32_PRECISIONS:
        found += ": TF32 on this GPU, if it has it" if on_gpu else ": float32 on a CPU"
    low = (precision or "").lower()
    exact_enough = low.endswith(("_x3", "_x6", "_x9"))  # the sum of several rounded products
    if low.startswith(("bfloat16", "bf16", "f16", "any_f8")) and not exact_enough:
        advice = "float32 products lose most of their digits: set float32, or nothing"
        return Check(name, found, "warning", advice)
    return Check(name, found)


def _override_check(override: str | None) -> Check:
    name = "NVIDIA_TF32_OVERRIDE"
    if override in (None, "0"):
        return Check(name, "not set" if override is None else "0: no TF32 in NVIDIA's libraries")
    return Check(name, override, "warning", "0 turns TF32 off in NVIDIA's libraries; else unset it")


def _torch_precision_check(torch: Torch | None, jax_rounds: bool, on_gpu: bool) -> Check:
    if torch is None:
        return Check("torch TF32", "torch is not installed")
    if torch.matmul_precision is None:
        return Check("torch TF32", UNKNOWN)
    tf32 = {True: "on", False: "off", None: UNKNOWN}[torch.cudnn_tf32]
    found = f"matmul precision {torch.matmul_precision}, in cuDNN {tf32}"
    torch_rounds = torch.matmul_precision != "highest"
    if on_gpu and torch.cuda and torch_rounds != jax_rounds:
        advice = (
            f"{'JAX' if jax_rounds else 'torch'} alone rounds matrix products to TF32: set "
            "jax_default_matmul_precision=highest or torch.set_float32_matmul_precision('high') "
            "to compare the two"
        )
        return Check("torch TF32", found, "warning", advice)
    return Check("torch TF32", found)


# The compilation cache


def cache_check(folder: str | None, files: int | None, size_bytes: int | None) -> Check:
    """Whether compiled programs can be kept, and have not become too many."""
    if folder is None:
        advice = "unset JAX_ENABLE_COMPILATION_CACHE for a quick next start"
        return Check("folder", "off", "ok", advice)
    count = UNKNOWN if files is None else f"{files:,} files"
    found = f"{folder}, {count}, {size(size_bytes)}"
    if "://" in folder:
        return Check("folder", found)
    fault = _folder_fault("cache folder", Path(folder))
    if fault:
        advice = "every run compiles anew: name another with JAX_COMPILATION_CACHE_DIR"
        return Check("folder", fault, "warning", advice)
    if size_bytes is not None and size_bytes > LARGE_CACHE_BYTES:
        return Check("folder", found, "warning", "it only grows: delete it, it is made again")
    return Check("folder", found)


def _folder_fault(what: str, folder: Path) -> str:
    """Why nothing can be written there, or nothing."""
    try:
        workdir.check_folder(what, folder)
    except UserError as error:
        return str(error)
    except OSError as error:
        return f"{what} {folder} cannot be read: {error.strerror}"
    return ""


# Data


def data_checks(data_dir: Path | None) -> list[Check]:
    """Each known set of IDX files where `load_dataset` would look for it; nothing is fetched."""
    given = datasets._given_folder(data_dir)
    folder = given or idx.user_folder()
    checks = [data_set_check(name, folder, given is not None) for name in idx.IDX_SETS]
    if given is not None and not os.path.isdir(folder):
        fault = f"{folder} is no folder"
        return [Check("folder", fault, "warning", "correct --data-dir or NIN_DATA_DIR"), *checks]
    return [Check("folder", str(folder)), *checks]


def data_set_check(name: str, root: Path, is_given: bool) -> Check:
    """Whether a set's four files lie in or below a folder, with the official MD5s.

    Args:
        name: of a set in `idx.IDX_SETS`.
        root: the data folder.
        is_given: the user named it; nothing is downloaded into such a folder.
    """
    idx_set = idx.IDX_SETS[name]
    folder = idx._locate(idx_set, root)
    states = {file: file_state(folder / file, idx_set) for file in idx.FILE_NAMES}
    faults = [f"{file} is {state}" for file, state in states.items() if state != "intact"]
    if not faults:
        return Check(name, f"4 files with the official MD5s in {folder}")
    if {"intact", "damaged", "unreadable"}.isdisjoint(states.values()):
        return _not_found(name, is_given)
    advice = f"get it from {idx_set.url}" if is_given else "the next run that needs it fetches it"
    return Check(name, f"in {folder}: {', '.join(faults)}", "warning", advice)


def _not_found(name: str, is_given: bool) -> Check:
    if not is_given:
        return Check(name, "not found", "ok", "the first run that needs it downloads it")
    advice = f"put it there from {idx.IDX_SETS[name].url}, or name no folder to download it"
    # Without it a run that names no data set fails; the others have to be asked for.
    return Check(name, "not found", "warning" if name == "fashion_mnist" else "ok", advice)


def file_state(path: Path, idx_set: idx.IdxSet) -> str:
    """ "intact", "missing", "damaged", "unreadable", or whose file it is: "MNIST's"."""
    try:
        if not path.is_file():
            return "missing"
        if path.stat().st_size > idx.MAX_BYTES:
            return "damaged"
        with path.open("rb") as file:
            md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError:
        return "unreadable"
    if md5 == idx_set.md5[path.name]:
        return "intact"
    others = (other for other in idx.IDX_SETS.values() if md5 in other.md5.values())
    owner = next(others, None)
    return "damaged" if owner is None else f"{owner.title}'s"


# Memory and disk


def _step(batch_size: int = BATCH_SIZE) -> PaperMemory:
    """What a training step has to hold at once, on paper."""
    options: dict[str, Any] = {"image_size": IMAGE_SIZE, "batch_size": batch_size}
    return account(VARIANT, recipe=RECIPE, xla=False, **options).memory["train"].paper


def step_bytes() -> int:
    """What a step holds on JAX's device, in bytes; a CPU works on a few images at a time."""
    model = abstract_model(get_variant(VARIANT), 1, 10, IMAGE_SIZE, "float32", False)
    try:
        at_once = default_micro_batch_size(model)
    except Exception:  # JAX finds no device, as another check says
        at_once = None
    return _step(at_once or BATCH_SIZE).total_bytes


def checkpoint_bytes() -> int:
    """What a run's checkpoints take at most: parameters and the optimiser's state, each time."""
    step = _step(1)
    return CHECKPOINTS * (step.params_bytes + step.optimizer_bytes)


def memory_check(available: int | None, needed: int) -> Check:
    """Whether the host's memory is enough for a run."""
    found = f"{size(available)} free; training {VARIANT}, batch {BATCH_SIZE}: about {size(needed)}"
    if available is not None and available < needed:
        return Check("host memory", found, "warning", "end other programs, or take a smaller batch")
    return Check("host memory", found)


def gpu_memory_check(nvidia: Nvidia | None, needed: int) -> Check:
    """Whether the first GPU's memory, which JAX takes by default, is enough for a step."""
    if nvidia is None or not nvidia.gpus:
        return Check("GPU memory", UNKNOWN)
    gpu = nvidia.gpus[0]
    found = (
        f"{size(gpu.free_bytes)} free of {size(gpu.total_bytes)}; "
        f"a step of {VARIANT}, batch {BATCH_SIZE}: at least {size(needed)}"
    )
    if gpu.free_bytes is not None and gpu.free_bytes < needed:
        advice = "nvidia-smi names who holds it; or work in parts, with --micro-batch-size"
        return Check("GPU memory", found, "warning", advice)
    return Check("GPU memory", found)


def disk_check(folder: Path, free: int | None, needed: int) -> Check:
    """Whether a run can be written into a folder, and its checkpoints fit."""
    fault = _folder_fault("--workdir", folder)
    if fault:
        return Check("disk", fault, "warning", "name another folder with --workdir")
    found = f"{size(free)} free; checkpoints of {VARIANT}: {size(needed)}"
    if free is not None and free < needed:
        return Check("disk", found, "warning", "make room, or name another folder with --workdir")
    return Check("disk", found)


def size(count: int | None) -> str:
    """Bytes for people; what is not known said so."""
    if count is None:
        return UNKNOWN
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"


# Output


def report(findings: Findings, form: Format) -> None:
    """Prints the findings."""
    if form == "json":
        plain = {topic: [asdict(check) for check in checks] for topic, checks in findings.items()}
        print(json.dumps(plain, indent=1))
    elif form == "markdown":
        rows = [[cell.replace("|", r"\|") for cell in row] for row in _rows(findings)]
        print(markdown(Table("Doctor", HEADINGS, rows, _conclusion(findings))), end="")
    else:
        _print_table(findings)


def _print_table(findings: Findings) -> None:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable()
    for heading in HEADINGS:
        drawn.add_column(heading, overflow="fold")  # a path is worth nothing when cut short
    for row in _rows(findings):
        style = "yellow" if row[3] == "warning" else ""
        # As Text, because '.[cuda12]' is no markup.
        drawn.add_row(*(Text(cell, style) for cell in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200
    console.print(drawn)
    console.print(_conclusion(findings))


def _rows(findings: Findings) -> list[tuple[str, ...]]:
    """A row for each check; the topic stands in its first one alone."""
    return [
        ("" if i else topic, check.name, check.found, check.status, check.advice)
        for topic, checks in findings.items()
        for i, check in enumerate(checks)
    ]


def _conclusion(findings: Findings) -> str:
    warnings = count_warnings(findings)
    return f"{warnings or 'No'} warning{'' if warnings == 1 else 's'}."
