"""What processes agree on, each by itself: the others are made up."""

import json
import signal
from contextlib import nullcontext
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from nin_jax import UserError
from nin_jax.runs import multihost
from nin_jax.training.sharding import make_layout


def test_a_folder_that_is_not_shared_is_told_of(tmp_path, monkeypatch):
    sees = iter([np.array([[True], [False]]), np.array([[True], [True]])])
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda mine: next(sees))
    monkeypatch.setattr(multihost, "agree", lambda action: action())
    monkeypatch.setattr(multihost, "SHARED_SECONDS", 0.0)
    with pytest.raises(UserError, match="on a file system that all processes share: process 1"):
        multihost.check_shared(tmp_path)
    multihost.check_shared(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_request_is_answered_one_call_later_and_saving_is_the_first_ones(monkeypatch):
    """As two processes have it, whose other one asks for nothing."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    requests = multihost.Requests(make_layout(jax.devices()[:1]))
    assert requests(0, True) == (0, False)
    assert requests(0, True) == (0, True)
    assert requests(0, False) == (0, False)  # was asked before that checkpoint
    assert requests(signal.SIGTERM, True) == (0, False)
    assert requests(0, False) == (signal.SIGTERM, True)
    monkeypatch.setattr(multihost, "is_first", lambda: False)
    assert [requests(0, True) for _ in range(3)] == [(0, False)] * 3


def test_an_error_of_one_process_is_that_of_all(monkeypatch):
    """The other one is well, or fails too; the first error counts."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)

    def others(message: dict[str, str]) -> None:
        other = np.frombuffer(json.dumps(message).encode().ljust(multihost.MESSAGE_BYTES), np.uint8)
        monkeypatch.setattr(
            multihost_utils, "process_allgather", lambda mine: np.stack([other, mine])
        )

    def fail() -> None:
        raise UserError("é" * 5000)

    well, torn = {"value": "None"}, {"kind": "UserError", "error": "a.png is torn"}
    others(well)
    assert multihost.in_all(lambda: {3}) == {3}
    with pytest.raises(UserError, match="é" * 5000):
        multihost.in_all(fail)
    others(torn)
    for action in (fail, lambda: {3}):
        with pytest.raises(UserError, match="torn"):
            multihost.in_all(action)


def test_processes_must_have_equally_many_devices(monkeypatch):
    for owners, refused in (((0, 0, 1, 1), False), ((0, 0, 0, 1), True)):
        devices = [SimpleNamespace(process_index=owner) for owner in owners]
        monkeypatch.setattr(jax, "devices", lambda devices=devices: devices)
        with pytest.raises(UserError, match=r"1 has 1 of .* 0 3: ") if refused else nullcontext():
            multihost._check_devices()
