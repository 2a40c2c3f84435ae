"""Judge each fact: a check says what was found, whether it is a problem, and what to do.

An unknown fact is reported as "not available" and is not a warning.
"""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.version import InvalidVersion

from nin_jax.doctor import facts
from nin_jax.doctor.facts import PREALLOCATE, Devices, Libraries, Nvidia, Torch
from nin_jax.errors import UserError
from nin_jax.runs import workdir
from nin_jax.tables import UNKNOWN

DRIVERS = {12: 525, 13: 580}  # CUDA version -> oldest NVIDIA driver, from JAX's installation guide
LARGE_CACHE_BYTES = 10 * 2**30
FRACTIONS = ("XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_CLIENT_MEM_FRACTION")  # old name, new name
# JAX may round to TF32 on a GPU with these settings, and also if nothing is set.
TF32_PRECISIONS = (None, "default", "high", "tensorfloat32", "TF32_TF32_F32")


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: what was checked.
        found: what was found, as text.
        status: "warning" if something is wrong or will go wrong.
        advice: what to do; empty if nothing is needed.
    """

    name: str
    found: str
    status: Literal["ok", "warning"] = "ok"
    advice: str = ""


def warning(name: str, found: str, advice: str) -> Check:
    """Return a check that found a problem."""
    return Check(name, found, "warning", advice)


def format_size(count: int | None) -> str:
    """Format a number of bytes in GiB or MiB."""
    if count is None:
        return UNKNOWN
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"


def version_checks(bounds: Sequence[tuple[str, Requirement]]) -> list[Check]:
    """Check the versions of Python, this project and its packages.

    Args:
        bounds: pairs (package, requirement of that package).
    """
    version = facts.installed_version("nin_jax")
    own = Check("nin_jax", version or "not installed")
    if version is None:
        own = warning("nin_jax", own.found, "pip install -e . (its requirements are unknown now)")
    return [
        Check("python", platform.python_version()),
        own,
        *(
            version_check(who, needed, facts.installed_version(needed.name))
            for who, needed in bounds
        ),
    ]


def version_check(who: str, needed: Requirement, version: str | None) -> Check:
    """Check that a package is installed in a version that ``who`` accepts."""
    advice = f"pip install '{needed.name}{needed.specifier}'"
    if version is None:
        return warning(needed.name, "not installed", f"{who} needs it: {advice}")
    try:
        if needed.specifier.contains(version, prereleases=True):
            return Check(needed.name, version)
    except InvalidVersion:
        pass
    return warning(needed.name, f"{version}, but {who} needs {needed.specifier}", advice)


def torch_check(torch: Torch | None, needed: Requirement | None) -> Check:
    """Check that torch, if installed, can be imported and has the parity tests' version."""
    if torch is None:
        return Check("torch", "not installed", "ok", "only the parity tests and bench.py need it")
    if torch.error:
        found = f"{torch.version or 'version ' + UNKNOWN}; {torch.error}"
        advice = "reinstall it or remove it: only the parity tests and bench.py need it"
        return warning("torch", found, advice)
    if needed is None:
        return Check("torch", torch.version or UNKNOWN)
    return version_check("nin_jax[test]", needed, torch.version)


def cuda_checks(of_jax: Libraries | None, of_torch: Libraries | None) -> list[Check]:
    """Check that JAX and torch can share a process: same CUDA major and cuDNN minor version."""
    cuda = of_jax.cuda if of_jax else None
    own_folder = (
        "their cuDNN wheels use the same folder: install a torch built for CUDA "
        f"{(cuda or '').partition('.')[0]}, or use two virtual environments"
    )
    one_process = (
        "a process loads only one cuDNN, the first: reinstall JAX and torch with the same cuDNN, "
        "or install a CPU build of torch"
    )
    return [
        _library_check("CUDA", of_jax, of_torch, 1, own_folder),
        _library_check("cuDNN", of_jax, of_torch, 2, one_process),
    ]


def _library_check(
    name: str, of_jax: Libraries | None, of_torch: Libraries | None, parts: int, advice: str
) -> Check:
    """Compare the first parts of two versions of a library."""
    versions = [
        "none" if libraries is None else getattr(libraries, name.lower()) or UNKNOWN
        for libraries in (of_jax, of_torch)
    ]
    found = f"JAX {versions[0]}, torch {versions[1]}"
    known = {"none", UNKNOWN}.isdisjoint(versions)
    if known and len({tuple(version.split(".")[:parts]) for version in versions}) == 2:
        return warning(name, found, advice)
    return Check(name, found)


def devices_check(
    devices: Devices, nvidia: Nvidia | None, plugin: int | None, environ: Mapping[str, str]
) -> Check:
    """Check that JAX finds a device, and the GPU if there is one."""
    if devices.platform is None:
        chosen = environ.get("JAX_PLATFORMS")
        advice = f"unset JAX_PLATFORMS, now {chosen}" if chosen else "reinstall JAX"
        return warning("JAX", f"none: {devices.error}", advice)
    if devices.platform != "cpu" or nvidia is None or not nvidia.gpus:
        return Check("JAX", devices.name)
    hiding = _setting_that_hides_gpus(environ)
    if hiding:
        return Check("JAX", f"{devices.name}, because {hiding} is set")
    advice = f"JAX's plugin for CUDA {plugin} failed: read its error message, and check cuDNN"
    if plugin is None:
        advice = "pip install -e '.[cuda12]', or '.[cuda13]' beside a torch for CUDA 13"
    return warning("JAX", f"{devices.name}, although there is a GPU", advice)


def _setting_that_hides_gpus(environ: Mapping[str, str]) -> str:
    platforms, visible = environ.get("JAX_PLATFORMS", ""), environ.get("CUDA_VISIBLE_DEVICES", "0")
    if platforms and {"cuda", "gpu"}.isdisjoint(platforms.split(",")):
        return f"JAX_PLATFORMS={platforms}"
    return f"CUDA_VISIBLE_DEVICES={visible}" if visible.strip() in ("", "-1") else ""


def driver_check(nvidia: Nvidia | None, plugin: int | None) -> Check:
    """Check that the GPU driver works and is new enough for JAX's CUDA version."""
    name = "NVIDIA driver"
    if nvidia is None:
        return Check(name, UNKNOWN, "ok", "nvidia-smi is not installed")
    if nvidia.error:
        advice = "reinstall NVIDIA's driver, or ignore this on a machine without a GPU"
        return warning(name, f"nvidia-smi: {nvidia.error}", advice)
    if not nvidia.gpus:
        return Check(name, "no GPU")
    driver = nvidia.gpus[0].driver
    found = f"{driver}, {', '.join(gpu.name for gpu in nvidia.gpus)}"
    major, oldest = driver.partition(".")[0], DRIVERS.get(plugin or 0, 0)
    if major.isdigit() and int(major) < oldest:
        return warning(name, found, f"JAX with CUDA {plugin} needs driver {oldest} or newer")
    return Check(name, found)


def preallocation_check(environ: Mapping[str, str], on_gpu: bool, torch: Torch | None) -> Check:
    """Check the share of GPU memory that JAX takes when it starts, and the settings for it."""
    given = {name: environ[name] for name in (PREALLOCATE, *FRACTIONS) if environ.get(name)}
    fractions = [given[name] for name in FRACTIONS if name in given]
    percentage = _percentage((fractions or ["0.75"])[0])
    off = given.get(PREALLOCATE) in ("false", "False", "0")
    amount = f"{percentage} of a GPU's memory" if percentage else "an invalid fraction"
    settings = ", ".join(f"{name}={value}" for name, value in given.items()) or "the default"
    found = f"{'off, up to' if off else 'on,'} {amount} ({settings})"
    if not on_gpu:
        found += "; no GPU in use"
    advice = ""
    if len(fractions) == 2:
        advice = f"JAX accepts only one of the two fractions: unset {FRACTIONS[0]}"
    elif percentage is None:
        advice = f"set {FRACTIONS[0]} to a number above 0 and up to 1"
    elif not off and given.get(PREALLOCATE, "true") not in ("true", "True", "1"):
        advice = f"JAX reads {given[PREALLOCATE]!r} as true: set {PREALLOCATE} to true or false"
    elif on_gpu and not off and torch is not None and torch.cuda:
        advice = f"torch in the same process gets the rest: set {PREALLOCATE}=false to compare them"
    return Check("JAX's memory", found, "warning" if advice else "ok", advice)


def _percentage(text: str) -> str | None:
    try:
        fraction = float(text)
    except ValueError:
        return None
    return f"{100 * fraction:g}%" if 0 < fraction <= 1 else None


def precision_checks(
    precision: str | None, environ: Mapping[str, str], on_gpu: bool, torch: Torch | None
) -> list[Check]:
    """Check how float32 products are rounded, and whether JAX and torch round alike."""
    override, name = environ.get("NVIDIA_TF32_OVERRIDE"), "NVIDIA_TF32_OVERRIDE"
    override_check = Check(name, "not set" if override is None else "0: no TF32")
    if override not in (None, "0"):
        override_check = warning(name, override, "set it to 0 to turn TF32 off, or unset it")
    return [
        _jax_precision_check(precision, on_gpu),
        override_check,
        _torch_precision_check(torch, precision in TF32_PRECISIONS, on_gpu),
    ]


def _jax_precision_check(precision: str | None, on_gpu: bool) -> Check:
    name, found = "jax_default_matmul_precision", precision or "not set"
    if precision in TF32_PRECISIONS:
        found += ": TF32 if the GPU supports it" if on_gpu else ": float32 on a CPU"
    low = (precision or "").lower()
    exact_enough = low.endswith(("_x3", "_x6", "_x9"))  # the sum of several rounded products
    if low.startswith(("bfloat16", "bf16", "f16", "any_f8")) and not exact_enough:
        return warning(name, found, "float32 products lose most digits: set float32 or nothing")
    return Check(name, found)


def _torch_precision_check(torch: Torch | None, jax_rounds: bool, on_gpu: bool) -> Check:
    name = "torch TF32"
    if torch is None:
        return Check(name, "torch is not installed")
    if torch.matmul_precision is None:
        return Check(name, UNKNOWN)
    tf32 = {True: "on", False: "off", None: UNKNOWN}[torch.cudnn_tf32]
    found = f"matmul precision {torch.matmul_precision}, in cuDNN {tf32}"
    if not on_gpu or not torch.cuda or (torch.matmul_precision != "highest") == jax_rounds:
        return Check(name, found)
    advice = (
        f"only {'JAX' if jax_rounds else 'torch'} rounds matrix products to TF32: set "
        "jax_default_matmul_precision=highest or torch.set_float32_matmul_precision('high') "
        "to compare the two"
    )
    return warning(name, found, advice)


def cache_check(folder: str | None, files: int | None, size_bytes: int | None) -> Check:
    """Check that compiled programs can be stored, and that the cache is not too large."""
    if folder is None:
        advice = "unset JAX_ENABLE_COMPILATION_CACHE for faster starts"
        return Check("folder", "off", "ok", advice)
    count = UNKNOWN if files is None else f"{files:,} files"
    found = f"{folder}, {count}, {format_size(size_bytes)}"
    if "://" in folder:
        return Check("folder", found)
    problem = folder_problem("cache folder", Path(folder))
    if problem:
        advice = "every run compiles again: set JAX_COMPILATION_CACHE_DIR to another folder"
        return warning("folder", problem, advice)
    if size_bytes is not None and size_bytes > LARGE_CACHE_BYTES:
        return warning("folder", found, "it never shrinks: delete it, the next run creates it")
    return Check("folder", found)


def folder_problem(what: str, folder: Path) -> str:
    """Say why a folder cannot be written to. Return nothing if it can."""
    try:
        workdir.check_folder(what, folder)
    except UserError as error:
        return str(error)
    except OSError as error:
        return f"{what} {folder} cannot be read: {error.strerror}"
    return ""
