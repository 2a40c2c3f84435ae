"""Whether what is installed suits: versions within bounds, torch, CUDA and cuDNN of both."""

import platform
from collections.abc import Sequence

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion

import nin_jax
from nin_jax.doctor import packages
from nin_jax.doctor.check import Check
from nin_jax.doctor.packages import Libraries, VersionOf
from nin_jax.doctor.processes import Torch
from nin_jax.tables import UNKNOWN


def read_bounds(plugin: int | None) -> list[tuple[str, Requirement]]:
    """Who needs which version: this project of its packages, and JAX of its own parts."""
    bounds = [("nin_jax", needed) for needed in packages.read_requirements("nin_jax")]
    parts = [("jax", "", "jaxlib")]
    if plugin is not None:
        parts.append(("jax", f"cuda{plugin}", f"jax-cuda{plugin}-plugin"))
        # With CUDA of the system's there is no such wheel, and nothing to compare.
        if packages.installed_version(f"nvidia-cudnn-cu{plugin}"):
            parts.append((f"jax-cuda{plugin}-plugin", "with-cuda", f"nvidia-cudnn-cu{plugin}"))
    for who, extra, name in parts:
        bounds += [
            (who, needed)
            for needed in packages.read_requirements(who, extra)
            if needed.name == name
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


def torch_bound() -> Requirement | None:
    """The torch that the parity tests ask for; None where this project is not installed."""
    needed = packages.read_requirements("nin_jax", "test")
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
