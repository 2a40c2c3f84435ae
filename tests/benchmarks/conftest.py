"""A plan that takes a second."""

import pytest

from benchmarks.speed.plan import Plan


@pytest.fixture
def plan(tiny) -> Plan:
    """Return the plan to measure steps of two images, a tiny network, once."""
    return Plan((str(tiny),), (2,), 16, 1, "float32", rounds=1, workers=0)
