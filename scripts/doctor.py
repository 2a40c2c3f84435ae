"""See whether this machine is fit for a run: python scripts/doctor.py."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nin_jax import cli


@dataclass(frozen=True)
class DoctorConfig:
    """Look at versions, devices, CUDA, precision, cache, data, memory and disk; say what to do.

    Nothing is downloaded or written. The exit code is 0 also with warnings.
    """

    data_dir: Path | None = None
    """Folder of the data sets, as for scripts/train.py. Default: $NIN_DATA_DIR, or the user's."""

    workdir: Path = Path()
    """Folder that runs are to be written into, for its free disk."""

    format: Literal["table", "json", "markdown"] = "table"
    """How to print the findings."""

    strict: bool = False
    """Exit with code 1 if there is any warning."""


def run(config: DoctorConfig) -> None:
    from nin_jax import doctor

    findings = doctor.examine(config.data_dir, config.workdir)
    doctor.report(findings, config.format)
    if config.strict and doctor.count_warnings(findings):
        sys.exit(1)


if __name__ == "__main__":
    cli.main(DoctorConfig, run)
