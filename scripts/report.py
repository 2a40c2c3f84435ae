"""Report the costs of a network: python scripts/report.py."""

import sys
from pathlib import Path

from nin_jax import cli
from nin_jax.accounting.request import ReportConfig

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # benchmarks/ is not installed


def run(config: ReportConfig) -> None:
    """Count, measure and print; the measurement needs benchmarks/."""
    from benchmarks.speed.memory import measure_account
    from nin_jax.accounting.report import make_report

    make_report(config, measure_account)


if __name__ == "__main__":
    cli.main(ReportConfig, run)
