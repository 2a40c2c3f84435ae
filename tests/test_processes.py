"""Several real processes as one run: the same numbers, one log, a peer that is lost."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import IO, NamedTuple

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from nin_jax import UserError, convert, loop, processes, workdir
from nin_jax.config import TrainConfig
from nin_jax.metrics import read_metrics
from nin_jax.sharding import make_layout
from nin_soak.small_run import rows_of
from parity_tests.tolerances import LAYOUT
from tests.conftest import TINY_TOML
from tests.one_process import FULL_DISK

ROOT = Path(__file__).resolve().parent.parent
STEPS = 50  # two epochs of 25, the last batch of 10
BOUND = LAYOUT["float32"]
LOST_WITHIN = 60.0  # seconds


Started = list[tuple[subprocess.Popen[bytes], Sequence[IO[str]]]]


class Ended(NamedTuple):
    """A process that has ended."""

    code: int
    out: str
    err: str
    seconds: float


def options(folder: Path) -> dict[str, object]:
    path = folder / "tiny.toml"
    if not path.exists():
        path.write_text(TINY_TOML)
    return {
        "variant": str(path),
        "recipe": "modern",
        "dataset": "digits",
        "image_size": 16,
        "batch_size": 50,
        "epochs": 2,
        "limit_train": 1210,
        "limit_test": 101,  # prime, so no number of devices divides it
        "augment": "flip_shift",
        "checkpoint_every": "7",
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """The folder of the run on one device."""
    folder = tmp_path_factory.mktemp("alone")
    loop.fit(TrainConfig(**options(folder), workdir=folder / "run"))  # type: ignore[arg-type]
    return folder / "run"


def run(
    folder: Path,
    count: int = 1,
    *more: str,
    devices: int = 1,
    signals: dict[int, tuple[int | str, int]] | None = None,
    resume: bool = True,
    only: dict[int, list[str]] | None = None,
) -> list[Ended]:
    """The run in so many processes of so many devices each, to its end.

    Args:
        folder: of the run, in ``run``; there is none or it is resumed.
        count: of processes.
        more: options.
        devices: of each process.
        signals: what happens to a process: where and what, as `tests.one_process` has it.
        resume: go on with a run that is there.
        only: options of a process that the others do not have.
    """
    command = ["--workdir", str(folder / "run")]
    for name, value in options(folder).items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    command += more
    if resume and (folder / "run").exists():
        command.append("--resume")
    if count > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command += [
            "--distributed",
            "--coordinator",
            f"127.0.0.1:{port}",
            "--processes",
            str(count),
        ]
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    # A folder to compile into that all of them share, so that one compiles for the others.
    cache = {"JAX_COMPILATION_CACHE_DIR": str(folder.parent / "programs")}
    started: Started = []
    for index in range(count):
        where, what = (signals or {}).get(index, (0, 0))
        its = ["--process-index", str(index)] if count > 1 else []
        its += (only or {}).get(index, [])
        start = [sys.executable, "-m", "tests.one_process", str(where), str(int(what))]
        files = [open(folder / f"{name}.{index}", "w+") for name in ("out", "err")]  # noqa: SIM115
        process = subprocess.Popen(
            [*start, *command, *its],
            cwd=ROOT,
            env=os.environ | flags | cache,
            stdout=files[0],
            stderr=files[1],
        )
        started.append((process, files))
    try:
        return _ended(started)
    finally:
        for process, files in started:
            process.kill()
            process.wait()
            for file in files:
                file.close()


def _ended(started: Started) -> list[Ended]:
    """All of them; seconds since the first one ended."""
    first: float | None = None
    ended: dict[int, Ended] = {}
    deadline = time.monotonic() + 300
    while len(ended) < len(started):
        assert time.monotonic() < deadline, "the processes do not end"
        for i, (process, files) in enumerate(started):
            if i not in ended and process.poll() is not None:
                first = first or time.monotonic()
                since = time.monotonic() - first
                out, err = map(_read, files)
                ended[i] = Ended(process.returncode, out, err, since)
        time.sleep(0.05)
    return [ended[i] for i in range(len(started))]


def _read(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


def assert_like(folder: Path, alone: Path) -> None:
    """The run came to what the one on one device came to, but for the order of sums."""
    rows, wanted = (rows_of(each) for each in (folder / "run", alone))
    assert [(row["kind"], row["step"]) for row in rows] == [
        (row["kind"], row["step"]) for row in wanted
    ]
    for row, expected in zip(rows, wanted, strict=True):
        for name, value in expected.items():
            if isinstance(value, float):
                assert abs(row[name] - value) < BOUND, (row["step"], name)
    weights, others = (
        convert.load_safetensors(each / workdir.WEIGHTS) for each in (folder / "run", alone)
    )
    for name in others:
        assert np.abs(weights[name] - others[name]).max() < BOUND, name


def lost(left: Ended) -> bool:
    """Whether a process ended soon, and with one line, because another was gone."""
    # JAX's own log of the loss, written by another thread, may come before or after the line.
    line = next(line for line in left.err.splitlines() if line.startswith("error: "))
    assert "another process of the run is gone" in line
    assert "--resume" in line
    assert "Traceback" not in left.err
    return left.code == 1 and left.seconds < LOST_WITHIN


def test_two_processes_of_three_devices_are_one_run(tmp_path, alone):
    ended = run(tmp_path, 2, devices=3)
    assert [process.code for process in ended] == [0, 0], ended
    assert_like(tmp_path, alone)
    # One of them writes and speaks.
    assert sorted(os.listdir(tmp_path / "run")) == sorted(os.listdir(alone))
    assert "epoch 2/2" in ended[0].out
    assert "epoch" not in ended[1].out
    # 101 images, each counted once.
    accuracy = read_metrics(tmp_path / "run" / workdir.METRICS)[-1]["test_accuracy"]
    assert accuracy * 101 == pytest.approx(round(accuracy * 101), abs=1e-9)


def test_a_run_goes_on_in_other_layouts_from_the_middle_of_an_epoch(tmp_path, alone):
    """One device, then eight, then four processes of which one is told to end, then one device."""
    (stopped,) = run(tmp_path, signals={0: (13, signal.SIGTERM)})
    assert stopped.code == 143, stopped
    (stopped,) = run(tmp_path, 1, "--shard-params", devices=8, signals={0: (22, signal.SIGTERM)})
    assert stopped.code == 143, stopped
    assert "resumed after step 13" in stopped.out
    ended = run(tmp_path, 4, "--feed", "resident", signals={2: (31, signal.SIGTERM)})
    assert [process.code for process in ended] == [143] * 4, ended
    assert "resumed after step 22" in ended[0].out
    assert "is saved; go on with --resume" in ended[0].err
    (done,) = run(tmp_path)
    assert done.code == 0, done
    (line,) = [line for line in done.out.splitlines() if "resumed after step" in line]
    assert 31 <= int(line.split()[-1]) < STEPS
    assert_like(tmp_path, alone)


def test_a_process_that_fails_on_its_own_ends_the_others(tmp_path):
    ended = run(tmp_path, 2, signals={1: (8, 0)})
    assert [process.code for process in ended] == [1, 1], ended
    assert "ZeroDivisionError" in ended[1].err
    assert "another process of the run is gone" in ended[0].err
    assert ended[0].seconds < LOST_WITHIN


def test_a_checkpoint_is_due_by_the_first_ones_clock_and_the_disk_may_be_full(tmp_path):
    """It sleeps until one is due in mid-epoch, which it cannot write, and goes on."""
    ended = run(tmp_path, 2, "--checkpoint-every", "2s", signals={0: (30, FULL_DISK)})
    assert [process.code for process in ended] == [0, 0], ended
    reason = "could not be saved (No space left on device)"
    (line,) = [line for line in ended[0].out.splitlines() if reason in line]
    assert re.search(r"a checkpoint of step 3[01] could", line)
    steps = [int(name[:8]) for name in os.listdir(tmp_path / "run" / "checkpoints")]
    assert max(steps) == STEPS


def test_a_part_of_a_checkpoint_that_cannot_be_written_ends_the_run(tmp_path, alone):
    ended = run(tmp_path, 2, signals={1: ("write", FULL_DISK)})
    assert [process.code for process in ended] == [1, 1], ended
    assert "could not be written by process 1 (No space left on device): make room" in ended[1].err
    assert lost(ended[0]), ended[0]
    (done,) = run(tmp_path)
    assert done.code == 0, done
    assert_like(tmp_path, alone)


@pytest.mark.parametrize(("killed", "place"), [(0, "draw"), (0, "write"), (1, "write")])
def test_a_peer_is_lost_between_the_steps(tmp_path, alone, killed, place):
    ended = run(tmp_path, 2, signals={killed: (place, signal.SIGKILL)})
    assert ended[killed].code == -signal.SIGKILL
    assert lost(ended[1 - killed]), ended
    (done,) = run(tmp_path)
    assert done.code == 0, done
    assert_like(tmp_path, alone)


def test_sigterm_before_the_first_step_ends_the_process(tmp_path):
    """No service of JAX's takes it away."""
    ended = run(tmp_path, 2, signals={1: ("load", signal.SIGTERM)})
    assert ended[1].code == -signal.SIGTERM
    assert lost(ended[0]), ended[0]
    assert not (tmp_path / "run").exists()


def test_ctrl_c_before_the_first_step_is_no_traceback(tmp_path):
    ended = run(tmp_path, 2, signals={1: ("load", signal.SIGINT)})
    assert ended[1].code == 130
    assert ended[1].err.splitlines()[-1] == "interrupted"
    assert "Traceback" not in ended[1].err
    assert lost(ended[0]), ended[0]


@pytest.mark.parametrize("killed", [0, 1])
def test_a_lost_peer_ends_the_others_and_the_run_can_go_on(tmp_path, alone, killed):
    ended = run(tmp_path, 2, signals={killed: (18, signal.SIGKILL)})
    assert ended[killed].code == -signal.SIGKILL
    assert lost(ended[1 - killed]), ended
    (done,) = run(tmp_path)
    assert done.code == 0, done
    assert_like(tmp_path, alone)


def test_processes_with_other_options_are_refused(tmp_path):
    ended = run(tmp_path, 2, only={1: ["--lr", "0.05"]})
    assert [process.code for process in ended] == [2, 2], ended
    for process in ended:
        assert "error: process 1 has other options, or other data, than process 0" in process.err
    assert not (tmp_path / "run").exists()


def test_data_that_one_process_lacks_are_an_error_of_all(tmp_path):
    missing = str(tmp_path / "missing")
    ended = run(tmp_path, 2, only={1: ["--dataset", "mnist", "--data-dir", missing]})
    assert [process.code for process in ended] == [2, 2], ended
    for process in ended:
        (line,) = [line for line in process.err.splitlines() if line.startswith("error: ")]
        assert missing in line
        assert "does not exist" in line


def test_what_one_process_finds_wrong_ends_all(tmp_path):
    """The first one alone looks at the folder."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / workdir.CONFIG).write_text("{}")
    ended = run(tmp_path, 2, resume=False)
    assert [process.code for process in ended] == [2, 2], ended
    for process in ended:
        assert "error: --workdir" in process.err
        assert "already holds a run" in process.err


def test_a_folder_that_is_not_shared_is_told_of(tmp_path, monkeypatch):
    sees = iter([np.array([[True], [False]]), np.array([[True], [True]])])
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda mine: next(sees))
    monkeypatch.setattr(processes, "agree", lambda action: action())
    monkeypatch.setattr(processes, "SHARED_SECONDS", 0.0)
    with pytest.raises(UserError, match="on a file system that all processes share: process 1"):
        processes.check_shared(tmp_path)
    processes.check_shared(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_request_is_answered_one_call_later_and_saving_is_the_first_ones(monkeypatch):
    """As two processes have it, whose other one asks for nothing."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    requests = processes.Requests(make_layout(jax.devices()[:1]))
    assert requests(0, True) == (0, False)
    assert requests(0, True) == (0, True)
    assert requests(0, False) == (0, False)  # was asked before that checkpoint
    assert requests(signal.SIGTERM, True) == (0, False)
    assert requests(0, False) == (signal.SIGTERM, True)
    monkeypatch.setattr(processes, "is_first", lambda: False)
    assert [requests(0, True) for _ in range(3)] == [(0, False)] * 3


def test_an_error_of_one_process_is_that_of_all(monkeypatch):
    """The other one is well, or fails too; the first error counts."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)

    def others(message: dict[str, str]) -> None:
        other = np.frombuffer(json.dumps(message).encode().ljust(processes.MESSAGE_BYTES), np.uint8)
        monkeypatch.setattr(
            multihost_utils, "process_allgather", lambda mine: np.stack([other, mine])
        )

    def fail() -> None:
        raise UserError("é" * 5000)

    well, torn = {"value": "None"}, {"kind": "UserError", "error": "a.png is torn"}
    others(well)
    assert processes.in_all(lambda: {3}) == {3}
    with pytest.raises(UserError, match="é" * 5000):
        processes.in_all(fail)
    others(torn)
    for action in (fail, lambda: {3}):
        with pytest.raises(UserError, match="torn"):
            processes.in_all(action)


def test_processes_must_have_equally_many_devices(monkeypatch):
    for owners, refused in (((0, 0, 1, 1), False), ((0, 0, 0, 1), True)):
        devices = [SimpleNamespace(process_index=owner) for owner in owners]
        monkeypatch.setattr(jax, "devices", lambda devices=devices: devices)
        with pytest.raises(UserError, match=r"1 has 1 of .* 0 3: ") if refused else nullcontext():
            processes._check_devices()


def joining(timeout: int = 300, **options: object) -> subprocess.CompletedProcess[str]:
    """A process that joins others that are not there."""
    code = (
        "from nin_jax import cli, processes; from nin_jax.config import TrainConfig; "
        f"cli.guard(lambda: processes.join(TrainConfig(distributed=True, **{options}), {timeout}))"
    )
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_a_coordinator_that_is_not_there_is_told_of():
    done = joining(3, processes=2, process_index=1, coordinator="127.0.0.1:1")
    assert done.returncode == 1, done
    assert "error: the other processes could not be reached within 3 s" in done.stderr


def test_a_port_that_is_taken_is_told_of():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = joining(processes=2, process_index=0, coordinator=f"127.0.0.1:{port}")
    assert done.returncode == 2, done
    assert f"error: --coordinator: port {port} cannot be had here" in done.stderr


def test_without_a_cluster_the_options_are_asked_for():
    done = joining()
    assert done.returncode == 2, done
    assert done.stderr.startswith("error: --distributed: ")
    assert "outside SLURM, Open MPI and Kubernetes give all of --coordinator" in done.stderr
