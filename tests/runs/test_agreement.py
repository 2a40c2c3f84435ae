"""What the processes of a run agree on; the messages of the other processes are made up."""

import json
import signal
from contextlib import nullcontext
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from nin_jax import UserError
from nin_jax.runs import agreement, multihost
from nin_jax.training.sharding import make_layout


@pytest.fixture
def other(monkeypatch):
    """A function that sets the message of another process, which comes first."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)

    def set_message(message: dict[str, object]) -> None:
        text = json.dumps(message).encode().ljust(agreement.MESSAGE_BYTES)
        theirs = np.frombuffer(text, np.uint8)
        monkeypatch.setattr(
            multihost_utils, "process_allgather", lambda mine: np.stack([theirs, mine])
        )

    return set_message


def test_a_folder_that_is_not_shared_is_refused(tmp_path, monkeypatch, other):
    monkeypatch.setattr(agreement, "agree", lambda action: action())
    monkeypatch.setattr(agreement, "SHARED_SECONDS", 0.0)
    other({"seen": False})
    with pytest.raises(UserError, match="on a file system that all processes share: process 0"):
        agreement.check_shared(tmp_path)
    other({"seen": True})
    agreement.check_shared(tmp_path)
    assert not list(tmp_path.iterdir())


def test_requests_are_answered_one_call_later_and_only_the_first_process_asks_to_save(monkeypatch):
    """The other one of two processes makes no request."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    requests = agreement.Requests(make_layout(jax.devices()[:1]))
    assert requests(0, True) == (0, False)
    assert requests(0, True) == (0, True)
    assert requests(0, False) == (0, False)  # requested before that checkpoint
    assert requests(signal.SIGTERM, True) == (0, False)
    assert requests(0, False) == (signal.SIGTERM, True)
    monkeypatch.setattr(agreement, "is_first", lambda: False)
    assert [requests(0, True) for _ in range(3)] == [(0, False)] * 3


def test_an_error_of_one_process_is_raised_in_all(other):
    """The other process succeeds or fails; the first error counts."""

    def fail() -> None:
        raise UserError("é" * 5000)

    other({"value": "None"})
    assert agreement.in_all(lambda: {3}) == {3}
    with pytest.raises(UserError, match="é" * 5000):
        agreement.in_all(fail)
    other({"kind": "UserError", "error": "a.png is torn"})
    for action in (fail, lambda: {3}):
        with pytest.raises(UserError, match="torn"):
            agreement.in_all(action)


def test_processes_must_have_the_same_number_of_devices(monkeypatch):
    for owners, refused in (((0, 0, 1, 1), False), ((0, 0, 0, 1), True)):
        devices = [SimpleNamespace(process_index=owner) for owner in owners]
        monkeypatch.setattr(jax, "devices", lambda devices=devices: devices)
        with pytest.raises(UserError, match=r"1 has 1 .* 0 has 3") if refused else nullcontext():
            multihost._check_devices()
