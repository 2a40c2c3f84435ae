"""Check whether this machine is ready to train: python scripts/doctor.py."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nin_jax import cli


@dataclass(frozen=True)
class DoctorConfig:
    """Check versions, devices, CUDA, precision, cache, data, memory and disk; print advice.

    Nothing is downloaded or written. The exit code is 0 even if there are warnings.
    """

    data_dir: Path | None = None
    """Folder of the datasets, as for scripts/train.py. Default: $NIN_DATA_DIR, or the user's."""

    workdir: Path = Path()
    """Folder that runs will be written to; its free disk space is checked."""

    format: Literal["table", "json", "markdown"] = "table"
    """Output format of the findings."""

    strict: bool = False
    """Exit with code 1 if there is any warning."""


def run(config: DoctorConfig) -> None:
    from nin_jax.doctor.report import count_warnings, examine, report

    findings = examine(config.data_dir, config.workdir)
    report(findings, config.format)
    if config.strict and count_warnings(findings):
        sys.exit(1)


if __name__ == "__main__":
    cli.main(DoctorConfig, run)
