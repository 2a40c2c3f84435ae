"""Several real processes as one run: the same numbers, one log, the same options and data."""

import os
import re
import signal
import socket
import subprocess
import sys
from functools import partial

import pytest

from nin_jax.runs import workdir
from nin_jax.runs.writers import read_metrics
from tests.support.one_process import FULL_DISK
from tests.support.real_processes import ROOT, STEPS, alone, assert_like, run

__all__ = ["alone"]  # a fixture: pytest looks it up among the names of the module


@pytest.mark.slow
def test_two_processes_of_two_devices_are_one_run(tmp_path, alone):
    """The first one sleeps until a checkpoint is due, cannot write it, and training continues."""
    ended = run(tmp_path, 2, "--checkpoint-every", "2s", devices=2, signals={0: (15, FULL_DISK)})
    assert [process.code for process in ended] == [0, 0], ended
    assert_like(tmp_path, alone)
    reason = "could not be saved (No space left on device)"
    (line,) = [line for line in ended[0].out.splitlines() if reason in line]
    assert re.search(r"a checkpoint of step 1[56] could", line)
    steps = [int(name[:8]) for name in os.listdir(tmp_path / "run" / "checkpoints")]
    assert max(steps) == STEPS
    # Only the first one writes and prints.
    assert sorted(os.listdir(tmp_path / "run")) == sorted(os.listdir(alone))
    assert "epoch 2/2" in ended[0].out
    assert "epoch" not in ended[1].out
    # 101 images, each counted once.
    accuracy = read_metrics(tmp_path / "run" / workdir.METRICS)[-1]["test_accuracy"]
    assert accuracy * 101 == pytest.approx(round(accuracy * 101), abs=1e-9)


@pytest.mark.slow
def test_a_run_resumes_in_other_layouts_from_the_middle_of_an_epoch(tmp_path, alone):
    """Eight devices, then three processes of which one is stopped, then eight devices again.

    The eight devices divide the parameters, the processes do not.
    """
    sharded = partial(run, tmp_path, 1, "--shard-params", devices=8)
    (stopped,) = sharded(signals={0: (5, signal.SIGTERM)})
    assert stopped.code == 143, stopped
    ended = run(tmp_path, 3, "--feed", "resident", signals={2: (14, signal.SIGTERM)})
    assert [process.code for process in ended] == [143] * 3, ended
    assert "resumed after step 5" in ended[0].out
    assert "is saved; continue with --resume" in ended[0].err
    (done,) = sharded()
    assert done.code == 0, done
    (line,) = [line for line in done.out.splitlines() if "resumed after step" in line]
    assert 14 <= int(line.split()[-1]) < STEPS
    assert_like(tmp_path, alone)


@pytest.mark.slow
def test_processes_with_other_options_are_refused(tmp_path):
    ended = run(tmp_path, 2, only={1: ["--lr", "0.05"]})
    assert [process.code for process in ended] == [2, 2], ended
    for process in ended:
        assert "error: process 1 has other options, data, weights or settings" in process.err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_data_missing_in_one_process_is_an_error_in_all(tmp_path):
    missing = str(tmp_path / "missing")
    ended = run(tmp_path, 2, only={1: ["--dataset", "mnist", "--data-dir", missing]})
    assert [process.code for process in ended] == [2, 2], ended
    for process in ended:
        (line,) = [line for line in process.err.splitlines() if line.startswith("error: ")]
        assert missing in line
        assert "does not exist" in line


@pytest.mark.slow
def test_an_error_found_by_one_process_ends_all(tmp_path):
    """Only the first one checks the folder."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / workdir.CONFIG).write_text("{}")
    ended = run(tmp_path, 2, resume=False)
    assert [process.code for process in ended] == [2, 2], ended
    for process in ended:
        assert "error: --workdir" in process.err
        assert "already holds a run" in process.err


def joining(timeout: int = 300, **options: object) -> subprocess.CompletedProcess[str]:
    """Let a process join others that do not exist."""
    code = (
        "from nin_jax import cli; from nin_jax.runs import multihost; "
        "from nin_jax.training.config import TrainConfig; "
        f"cli.guard(lambda: multihost.join(TrainConfig(distributed=True, **{options}), {timeout}))"
    )
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_a_coordinator_that_cannot_be_reached():
    done = joining(3, processes=2, process_index=1, coordinator="127.0.0.1:1")
    assert done.returncode == 1, done
    assert "error: the first process could not be reached at 127.0.0.1:1 within 3 s" in done.stderr


def test_a_port_that_is_in_use():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = joining(processes=2, process_index=0, coordinator=f"127.0.0.1:{port}")
    assert done.returncode == 2, done
    assert f"error: --coordinator: port {port} is not available on this host" in done.stderr


def test_without_a_cluster_the_options_are_required():
    done = joining()
    assert done.returncode == 2, done
    assert done.stderr.startswith("error: --distributed: ")
    assert "outside SLURM, Open MPI and Kubernetes give all of --coordinator" in done.stderr
