"""Processes that die, fail, are stopped or cannot write: what the others do, and resuming."""

import os
import re
import signal

import pytest

from tests.support.one_process import FULL_DISK
from tests.support.real_processes import LOST_WITHIN, STEPS, alone, assert_like, lost, run

pytestmark = pytest.mark.slow
__all__ = ["alone"]  # a fixture: pytest looks it up among the names of the module


@pytest.mark.parametrize(("killed", "place"), [(0, 18), (1, "write"), (0, "draw")])
def test_if_a_process_dies_the_others_exit_and_the_run_can_resume(tmp_path, alone, killed, place):
    ended = run(tmp_path, 2, signals={killed: (place, signal.SIGKILL)})
    assert ended[killed].code == -signal.SIGKILL
    assert lost(ended[1 - killed]), ended
    (done,) = run(tmp_path)
    assert done.code == 0, done
    assert_like(tmp_path, alone)


def test_if_a_process_fails_the_others_exit(tmp_path):
    ended = run(tmp_path, 2, signals={1: (8, 0)})
    assert [process.code for process in ended] == [1, 1], ended
    assert "ZeroDivisionError" in ended[1].err
    assert "another process of the run is gone" in ended[0].err
    assert ended[0].seconds < LOST_WITHIN


def test_if_a_process_cannot_write_its_part_of_a_checkpoint_the_run_ends(tmp_path, alone):
    ended = run(tmp_path, 2, signals={1: ("write", FULL_DISK)})
    assert [process.code for process in ended] == [1, 1], ended
    assert "could not be written by process 1 (No space left on device): make room" in ended[1].err
    assert lost(ended[0]), ended[0]
    (done,) = run(tmp_path)
    assert done.code == 0, done
    assert_like(tmp_path, alone)


def test_the_first_process_decides_when_to_save_and_a_full_disk_does_not_end_the_run(tmp_path):
    """It sleeps until a checkpoint is due, cannot write it, and training continues."""
    ended = run(tmp_path, 2, "--checkpoint-every", "2s", signals={0: (30, FULL_DISK)})
    assert [process.code for process in ended] == [0, 0], ended
    reason = "could not be saved (No space left on device)"
    (line,) = [line for line in ended[0].out.splitlines() if reason in line]
    assert re.search(r"a checkpoint of step 3[01] could", line)
    steps = [int(name[:8]) for name in os.listdir(tmp_path / "run" / "checkpoints")]
    assert max(steps) == STEPS


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
