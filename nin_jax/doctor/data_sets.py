"""Whether each known data set lies whole where `load_dataset` would look for it."""

import hashlib
import os
from pathlib import Path

from nin_jax.data import datasets, idx
from nin_jax.doctor.check import Check


def data_checks(data_dir: Path | None) -> list[Check]:
    """Each known set of IDX files where `load_dataset` would look for it; nothing is fetched."""
    given = datasets.given_folder(data_dir)
    folder = given or idx.user_folder()
    checks = [data_set_check(name, folder, given is not None) for name in idx.IDX_SETS]
    if given is not None and not os.path.isdir(folder):
        fault = f"{folder} is no folder"
        return [Check("folder", fault, "warning", "correct --data-dir or NIN_DATA_DIR"), *checks]
    return [Check("folder", str(folder)), *checks]


def data_set_check(name: str, root: Path, is_given: bool) -> Check:
    """Whether a set's four files lie in or below a folder, with the official MD5s.

    Args:
        name: of a set in `idx.IDX_SETS`.
        root: the data folder.
        is_given: the user named it; nothing is downloaded into such a folder.
    """
    idx_set = idx.IDX_SETS[name]
    folder = idx.locate(idx_set, root)
    states = {file: file_state(folder / file, idx_set) for file in idx.FILE_NAMES}
    faults = [f"{file} is {state}" for file, state in states.items() if state != "intact"]
    if not faults:
        return Check(name, f"4 files with the official MD5s in {folder}")
    if {"intact", "damaged", "unreadable"}.isdisjoint(states.values()):
        return _not_found(name, is_given)
    advice = f"get it from {idx_set.url}" if is_given else "the next run that needs it fetches it"
    return Check(name, f"in {folder}: {', '.join(faults)}", "warning", advice)


def _not_found(name: str, is_given: bool) -> Check:
    if not is_given:
        return Check(name, "not found", "ok", "the first run that needs it downloads it")
    advice = f"put it there from {idx.IDX_SETS[name].url}, or name no folder to download it"
    # Without it a run that names no data set fails; the others have to be asked for.
    return Check(name, "not found", "warning" if name == "fashion_mnist" else "ok", advice)


def file_state(path: Path, idx_set: idx.IdxSet) -> str:
    """ "intact", "missing", "damaged", "unreadable", or whose file it is: "MNIST's"."""
    try:
        if not path.is_file():
            return "missing"
        if path.stat().st_size > idx.MAX_BYTES:
            return "damaged"
        with path.open("rb") as file:
            md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError:
        return "unreadable"
    if md5 == idx_set.md5[path.name]:
        return "intact"
    others = (other for other in idx.IDX_SETS.values() if md5 in other.md5.values())
    owner = next(others, None)
    return "damaged" if owner is None else f"{owner.title}'s"
