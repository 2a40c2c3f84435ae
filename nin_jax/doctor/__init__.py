"""What stands in a run's way on this machine, and what to do about it."""

from nin_jax.doctor.check import Check, Findings, count_warnings
from nin_jax.doctor.examination import examine
from nin_jax.doctor.output import Format, report

__all__ = ["Check", "Findings", "Format", "count_warnings", "examine", "report"]
