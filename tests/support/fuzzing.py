"""What every fuzz test needs: its number of cases, and the limits of one case."""

import contextlib
import faulthandler
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings

from nin_jax import UserError
from tests.support.resident_memory import growth

CASES = int(os.environ.get("NIN_FUZZ_CASES", 210))  # of all tests together
MAX_SECONDS, MAX_BYTES = 5.0, 200 * 10**6  # processor time and memory of one case
HANGS_AFTER = 120  # seconds of wall time, which are longer on a busy machine

worst: dict[str, tuple[int, float]] = {}  # memory and seconds of each reader's worst case


def fuzz(share: float) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the settings of a test that gets this share of all cases."""
    return settings(
        max_examples=max(1, math.ceil(share * CASES)),
        derandomize=CASES <= 1000,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],  # no shrinking: the cases are small
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@contextlib.contextmanager
def survives(what: str) -> Iterator[None]:
    """Fail if the block raises anything but a one-line `UserError`, or takes too much."""
    faulthandler.dump_traceback_later(HANGS_AFTER, exit=True)
    grown = growth()
    started, message = time.process_time(), "a good result"
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except UserError as error:
        message = str(error)
    finally:
        faulthandler.cancel_dump_traceback_later()
    seconds = time.process_time() - started
    taken = grown()
    most, longest = worst.get(what, (0, 0.0))
    worst[what] = (max(most, taken), max(longest, seconds))
    assert taken < MAX_BYTES
    assert seconds < MAX_SECONDS
    assert 0 < len(message) < 10_000
    assert message.encode().splitlines() == [message.encode()]  # one printable line


@pytest.fixture(scope="session", autouse=True)
def report() -> Iterator[None]:
    yield
    for what, (taken, seconds) in worst.items():
        print(f"\n{what}: at most {taken / 1e6:.1f} MB and {seconds:.2f} s a case", end="")
