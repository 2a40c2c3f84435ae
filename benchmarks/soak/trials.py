"""The disturbances: kills at random moments, damaged files, a run of many epochs."""

import os
import random
import shutil
import signal
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
from nin_jax.runs.preparation import load_data, prepare_run
from nin_jax.training.config import TrainConfig, recipe_of

Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """What a trial came to.

    Attributes:
        trial: its name.
        tried: how often something was disturbed.
        lost: how often that cost more than time; what this is all about.
        details: figures by name.
    """

    trial: str
    tried: int
    lost: int
    details: dict[str, Any]


# Kills -------------------------------------------------------------------------------------------


def kill_runs(small: SmallRun, kills: int, seed: int, say: Say) -> Outcome:
    """Kills runs at random moments and resumes them until they are done.

    A moment is drawn uniformly from what an undisturbed run takes from start to end, so that
    start-up, steps, writing, evaluation and the end all have their share.
    """
    folder = small.scratch / "undisturbed"
    for attempt in range(2):  # the second one finds its programs compiled, as all that follow
        shutil.rmtree(folder, ignore_errors=True)
        started = time.monotonic()
        error = small.start(folder).communicate()[1]
        if error:
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
    except Exception:  # the time is up
        process.kill()
        error = process.communicate()[1]
    return process.returncode, error


def _moment(folder: Path) -> str:
    """What a killed run was doing, by what it has left."""
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
    """Damages every file of the newest checkpoint in turn, in each way, and restores.

    Right is the state of the checkpoint before, to the bit, and the damaged one named.
    """
    source = small.scratch / "undisturbed"
    config = manifest.read_config(source)
    like = _fresh_state(config)
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
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                found = _restored(folder, like)
            tried += 1
            if not any(newest in str(warning.message) for warning in told):
                faults.append(f"{relative} {name}: not told of")
            elif found is None or not _equal(found, expected):
                faults.append(f"{relative} {name}: not the state of {before}")
    say(f"{tried} damages of {newest}, {len(faults)} faults")
    details = {"files": tried // len(DAMAGES), "ways": list(DAMAGES), "faults": faults}
    return Outcome("files of a checkpoint damaged", tried, len(faults), details)


def _fresh_state(config: TrainConfig) -> Any:
    return prepare_run(config, recipe_of(config), load_data(config)).state


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
    """A run of many epochs: its resident memory and its number of files do not grow.

    The first quarter is left out, in which programs are compiled and caches fill.
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
    if not samples:
        raise UserError(f"{epochs} epochs are over before the run can be watched: give more")
    quarter = max(1, len(samples) // 4)
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
    """Resident bytes and number of files, ten times a second from the first row of metrics on."""
    while process.poll() is None:
        time.sleep(0.1)
        rows = folder / workdir.METRICS
        try:
            if not rows.exists() or not rows.stat().st_size:
                continue
            resident = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
            files = sum(SAVING not in path.parts for path in folder.rglob("*"))
        except (OSError, IndexError):  # a file that was there is there no more, or the process
            continue
        if not resident:  # it is ending
            continue
        resident *= os.sysconf("SC_PAGE_SIZE")
        say(f"long run: {resident / 2**20:.0f} MiB, {files} files")
        yield resident, files
