"""The trials: kills at random moments, damaged files, a run of many epochs."""

import os
import random
import shutil
import signal
import subprocess
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.soak.small_run import SmallRun, differences
from nin_jax.errors import UserError
from nin_jax.runs import manifest, workdir, writers
from nin_jax.runs.checkpoint import SAVING, Checkpoints
from nin_jax.runs.preparation import load_spec, prepare_run

Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a trial.

    Attributes:
        trial: its name.
        tried: how many times something was disturbed.
        lost: how many of these ended with a fault.
        details: further results by name.
    """

    trial: str
    tried: int
    lost: int
    details: dict[str, Any]


# Kills -------------------------------------------------------------------------------------------

UNDISTURBED = 2  # runs before the kills: from the second on, programs are in the cache


def kill_runs(small: SmallRun, kills: int, seed: int, say: Say) -> Outcome:
    """Kill runs at random moments and resume them until they are done.

    Moments are uniform over the duration of an undisturbed run, from start to end, so that
    start-up, steps, writing, evaluation and the end are all hit. A finished run must equal the
    undisturbed one, bit for bit.

    Raises:
        UserError: the undisturbed run fails.
    """
    folder = small.scratch / "undisturbed"
    for attempt in range(UNDISTURBED):
        shutil.rmtree(folder, ignore_errors=True)
        started = time.monotonic()
        process = small.start(folder)
        error = process.communicate()[1]
        if process.returncode != 0:
            raise UserError(f"the undisturbed run failed: {error}")
        say(f"undisturbed run {attempt + 1}: {time.monotonic() - started:.1f} s")
    whole = time.monotonic() - started
    moments: Counter[str] = Counter()
    faults: list[str] = []
    draw = random.Random(seed)
    runs, killed = 0, 0
    while killed < kills:
        runs += 1
        own = small.scratch / f"killed-{runs}"
        while True:
            limit = draw.uniform(0, whole) if killed < kills else None
            code, error = _run_for(small, own, limit)
            if code == -signal.SIGKILL:
                killed += 1
                moments[_moment(own)] += 1
                say(f"{killed} of {kills} kills, {runs} runs, {len(faults)} faults")
            elif code != 0:
                faults.append(f"run {runs}: exit code {code}: {error.strip()}")
                break
            if (own / workdir.SUMMARY).exists():
                faults += [f"run {runs}: {fault}" for fault in differences(own, folder)]
                break
        shutil.rmtree(own, ignore_errors=True)
    details = {"runs": runs, "moments": dict(moments), "faults": faults}
    return Outcome("SIGKILL at random moments", killed, len(faults), details)


def _run_for(small: SmallRun, folder: Path, seconds: float | None) -> tuple[int, str]:
    process = small.start(folder)
    try:
        error = process.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        error = process.communicate()[1]
    return process.returncode, error


def _moment(folder: Path) -> str:
    """Return what a killed run was doing, by the files that it left."""
    if (folder / workdir.SUMMARY).exists():
        return "after its end"
    if not (folder / workdir.CONFIG).exists():
        return "start-up"
    if (folder / workdir.CHECKPOINTS / SAVING).exists():
        return "writing a checkpoint"
    if not Checkpoints(folder / workdir.CHECKPOINTS).names():
        return "start-up"
    try:
        last = writers.read_metrics(folder / workdir.METRICS)[-1]
    except (UserError, IndexError):
        return "steps"
    at_end = last["kind"] == "step" and float(last["epoch"]).is_integer()
    return "evaluation or its end" if at_end else "steps"


# Damage ------------------------------------------------------------------------------------------


def _flip_bit(path: Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(bytes(data))


DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    "removed": lambda path, draw: path.unlink(),
    "truncated": lambda path, draw: os.truncate(path, draw.randrange(path.stat().st_size)),
    "one bit flipped": _flip_bit,
}


def damage_files(small: SmallRun, seed: int, say: Say) -> Outcome:
    """Damage every file of the newest checkpoint in turn, in each way, and restore.

    The result must be the state of the previous checkpoint, bit for bit, and a warning that names
    the damaged one.
    """
    source = small.scratch / "undisturbed"
    like = prepare_run(load_spec(manifest.read_run(source).config)).state
    folder = small.scratch / "damaged"
    shutil.copytree(source / workdir.CHECKPOINTS, folder)
    *_, before, newest = Checkpoints(folder).names()
    shutil.rmtree(folder / newest)
    expected = _restored(folder, like)
    assert expected is not None
    faults, tried = [], 0
    for path in sorted(
        p for p in (source / workdir.CHECKPOINTS / newest).rglob("*") if p.is_file()
    ):
        for name, damage in DAMAGES.items():
            shutil.rmtree(folder)
            shutil.copytree(source / workdir.CHECKPOINTS, folder)
            relative = path.relative_to(source / workdir.CHECKPOINTS)
            if path.stat().st_size == 0 and name != "removed":
                continue
            damage(folder / relative, random.Random(f"{seed} {relative} {name}"))
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                found = _restored(folder, like)
            tried += 1
            if not any(newest in str(warning.message) for warning in caught):
                faults.append(f"{relative} {name}: no warning")
            elif found is None or not _equal(found, expected):
                faults.append(f"{relative} {name}: not the state of {before}")
    say(f"{tried} damages of {newest}, {len(faults)} faults")
    details = {"files": tried // len(DAMAGES), "ways": list(DAMAGES), "faults": faults}
    return Outcome("files of a checkpoint damaged", tried, len(faults), details)


def _restored(folder: Path, like: Any) -> list[np.ndarray] | None:
    found = Checkpoints(folder).restore(like)
    if found is None:
        return None
    state = found[0]
    leaves = jax.tree.leaves((state.params, state.opt_state, state.step))
    return [np.asarray(leaf) for leaf in (*leaves, jax.random.key_data(state.key))]


def _equal(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


# A long run --------------------------------------------------------------------------------------

FLAT = 1.05  # the last quarter's resident memory over the second's


def run_long(small: SmallRun, epochs: int, say: Say) -> Outcome:
    """Watch the resident memory and the number of files of a run of many epochs.

    Neither may grow from the second quarter to the last. The first quarter is not counted: there
    programs are compiled and caches fill.

    Raises:
        UserError: the run fails, or ends before it can be watched.
    """
    folder = small.scratch / "long"
    process = small.start(folder)
    try:
        samples = list(_samples(process, folder, say))
        error = process.communicate()[1]
    finally:
        process.kill()
    if process.returncode != 0:
        raise UserError(f"the long run failed: {error}")
    if len(samples) < 4:  # one for each quarter
        raise UserError(f"{epochs} epochs end before the run can be watched: give more")
    quarter = len(samples) // 4
    resident = [float(np.median([s[0] for s in part])) for part in _parts(samples, quarter)]
    files = [max(s[1] for s in part) for part in _parts(samples, quarter)]
    grown = int(resident[1] > FLAT * resident[0]) + int(files[1] > files[0])
    details = {
        "resident_mib_second_quarter": round(resident[0] / 2**20, 1),
        "resident_mib_last_quarter": round(resident[1] / 2**20, 1),
        "files_second_quarter": files[0],
        "files_last_quarter": files[1],
        "samples": len(samples),
    }
    return Outcome(f"{epochs} epochs, memory and files flat", epochs, grown, details)


def _parts(samples: list[tuple[int, int]], quarter: int) -> tuple[list, list]:
    return samples[quarter : 2 * quarter], samples[-quarter:]


def _samples(process: Any, folder: Path, say: Say) -> Iterator[tuple[int, int]]:
    """Yield resident bytes and number of files, ten times a second after the first metrics."""
    while process.poll() is None:
        time.sleep(0.1)
        rows = folder / workdir.METRICS
        try:
            if not rows.exists() or not rows.stat().st_size:
                continue
            resident = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
            files = sum(SAVING not in path.parts for path in folder.rglob("*"))
        except (OSError, IndexError):  # a file or the process is gone
            continue
        if not resident:  # the process is ending
            continue
        resident *= os.sysconf("SC_PAGE_SIZE")
        say(f"long run: {resident / 2**20:.0f} MiB, {files} files")
        yield resident, files
