"""A check: one finding, its status and what to do about it.

What is not known is "not available" and no warning.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nin_jax.errors import UserError
from nin_jax.runs import workdir
from nin_jax.tables import UNKNOWN

Findings = dict[str, list["Check"]]


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


def count_warnings(findings: Findings) -> int:
    """How many of the findings are warnings."""
    return sum(check.status == "warning" for checks in findings.values() for check in checks)


def size(count: int | None) -> str:
    """Bytes for people; what is not known said so."""
    if count is None:
        return UNKNOWN
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"


def folder_fault(what: str, folder: Path) -> str:
    """Why nothing can be written there, or nothing."""
    try:
        workdir.check_folder(what, folder)
    except UserError as error:
        return str(error)
    except OSError as error:
        return f"{what} {folder} cannot be read: {error.strerror}"
    return ""
