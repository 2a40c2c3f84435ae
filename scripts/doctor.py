"""Check whether this machine is ready to train: python scripts/doctor.py."""

import sys

from nin_jax import cli
from nin_jax.doctor.report import DoctorConfig, count_warnings, examine, report


def run(config: DoctorConfig) -> None:
    """Print the findings; with --strict, exit with 1 if there is a warning."""
    findings = examine(config.data_dir, config.workdir)
    report(findings, config.format)
    if config.strict and count_warnings(findings):
        sys.exit(1)


if __name__ == "__main__":
    cli.main(DoctorConfig, run)
