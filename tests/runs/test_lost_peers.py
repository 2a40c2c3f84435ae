"""Processes that die, fail, are stopped or cannot write: what the others do, and resuming."""

import signal

import pytest

from tests.support.one_process import FULL_DISK
from tests.support.real_processes import LOST_WITHIN, alone, assert_like, lost, run

pytestmark = pytest.mark.slow
__all__ = ["alone"]  # a fixture: pytest looks it up among the names of the module


def test_if_a_process_dies_or_cannot_save_the_others_exit_and_the_run_resumes(tmp_path, alone):
    ended = run(tmp_path, 2, signals={1: ("write", FULL_DISK)})
    assert [process.code for process in ended] == [1, 1], ended
    assert "could not be written by process 1 (No space left on device): make room" in ended[1].err
    assert lost(ended[0]), ended[0]
    for killed, place in ((0, 9), (1, "write"), (0, "draw")):
        ended = run(tmp_path, 2, signals={killed: (place, signal.SIGKILL)})
        assert ended[killed].code == -signal.SIGKILL, (place, ended)
        assert lost(ended[1 - killed]), (place, ended)
    (done,) = run(tmp_path)
    assert done.code == 0, done
    assert_like(tmp_path, alone)


def test_if_a_process_fails_the_others_exit(tmp_path):
    ended = run(tmp_path, 2, signals={1: (8, 0)})
    assert [process.code for process in ended] == [1, 1], ended
    assert "ZeroDivisionError" in ended[1].err
    assert "another process of the run is gone" in ended[0].err
    assert ended[0].seconds < LOST_WITHIN


def test_sigterm_before_the_first_step_ends_the_process(tmp_path):
    """JAX's preemption service does not catch the signal."""
    ended = run(tmp_path, 2, signals={1: ("load", signal.SIGTERM)})
    assert ended[1].code == -signal.SIGTERM
    assert lost(ended[0]), ended[0]
    assert not (tmp_path / "run").exists()


def test_ctrl_c_before_the_first_step_prints_no_traceback(tmp_path):
    ended = run(tmp_path, 2, signals={1: ("load", signal.SIGINT)})
    assert ended[1].code == 130
    assert ended[1].err.splitlines()[-1] == "interrupted"
    assert "Traceback" not in ended[1].err
    assert lost(ended[0]), ended[0]
