"""Checkpoints of the training state; the only file that imports Orbax.

A checkpoint is a folder named after its step. It is written beside the others, sealed with the
SHA-256 checksum of every file, flushed to the disk, and only then renamed into place. So every
checkpoint in place was complete once, and the checksums show any damage since.
"""

import contextlib
import hashlib
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from nin_jax.errors import RunError, UserError, first_line
from nin_jax.runs.agreement import agree, is_first
from nin_jax.runs.multihost import is_lost_peer
from nin_jax.training.step import TrainState

SAVING, DAMAGED, CHECKSUMS = ".saving", "damaged", "SHA256SUMS"
AFTER_EVALUATION = "-evaluated"

Position = dict[str, Any]


class SaveError(OSError):
    """A checkpoint could not be written; the earlier ones are unchanged."""


class DamageError(ValueError):
    """A file of a checkpoint has changed since it was written."""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run.

    Orbax's CheckpointManager is not used: it numbers checkpoints by step alone, and its commit
    rewrites metadata right before the rename, which leaves no moment to seal the files.

    Attributes:
        folder: their folder; made with the first checkpoint.
        keep: number of newest checkpoints to keep, besides the best.
    """

    folder: Path
    keep: int = 2

    def save(self, state: TrainState, position: Position) -> Path:
        """Write a checkpoint and remove those that are no longer kept.

        Args:
            state: the training state.
            position: the rest of the run's position, plain data for JSON. ``step`` and
                ``evaluated`` name the checkpoint; ``best``, if not None, holds the ``step`` of the
                best checkpoint so far, which is kept.

        Raises:
            SaveError: the disk is full or not writable; the earlier checkpoints are unchanged.
            RunError: the same, in one of several processes.
        """
        name = _name(position["step"], position["evaluated"])
        partial, final = (self.folder / SAVING / name).absolute(), self.folder / name

        def finish() -> None:
            _seal(partial)
            partial.rename(final)
            _sync([self.folder])
            with contextlib.suppress(OSError):  # at worst an old checkpoint stays
                self._prune(position)

        try:
            if agree(final.exists):
                return final  # the run has not moved since it was written
            agree(self.clear_partial)
            with _fatal_if_several_processes(name):
                _write(partial, state, position)  # all processes write their parts
            agree(finish)
        except RunError:
            raise
        except Exception as error:  # Orbax and TensorStore raise errors of any type
            if is_lost_peer(error):
                raise
            raise SaveError(_reason(error)) from error
        finally:
            if is_first():
                self.clear_partial()
        return final

    def restore(self, like: TrainState) -> tuple[TrainState, Position] | None:
        """Read the newest intact checkpoint.

        Args:
            like: a state with the shapes, dtypes and placement of the result.

        Returns:
            The state and its position; None if there are no checkpoints.

        Warns:
            UserWarning: a checkpoint is damaged; it is moved into ``damaged/``.

        Raises:
            UserError: none is intact, or the newest intact one is of another network.
        """
        name = agree(self._newest_intact)
        return None if name is None else _read(self.folder / name, like)

    def _newest_intact(self) -> str | None:
        names = self.names()
        for name in reversed(names):
            try:
                verify(self.folder / name)
            except DamageError as damage:
                moved = self._quarantine(name)
                warnings.warn(
                    f"checkpoint {name} is damaged: {damage}; it was moved to {moved}", stacklevel=2
                )
                continue
            return name
        damaged = len(list((self.folder / DAMAGED).glob("*")))
        if names or damaged:
            raise UserError(
                f"no checkpoint in {self.folder} is intact ({damaged} damaged ones are in "
                f"{self.folder / DAMAGED}), so the run cannot be resumed"
            )
        return None

    def names(self) -> list[str]:
        """Return the names of all checkpoints, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(path.name for path in self.folder.iterdir() if path.name[:1].isdigit())

    def clear_partial(self) -> None:
        """Remove what an interrupted save left behind."""
        shutil.rmtree(self.folder / SAVING, ignore_errors=True)

    def _prune(self, position: Position) -> None:
        names = self.names()
        kept = set(names[-self.keep :])
        if (best := position["best"]) is not None:
            kept.add(_name(best["step"], evaluated=True))
        for name in set(names) - kept:
            # Rename first, so that a partly removed checkpoint is not taken for a whole one.
            removed = self.folder / SAVING / f"{name}-removed"
            removed.parent.mkdir(exist_ok=True)
            (self.folder / name).rename(removed)

    def _quarantine(self, name: str) -> Path:
        target, number = self.folder / DAMAGED / name, 2
        while target.exists():
            target, number = self.folder / DAMAGED / f"{name}-{number}", number + 1
        target.parent.mkdir(exist_ok=True)
        (self.folder / name).rename(target)
        return target


def verify(folder: Path) -> None:
    """Compare every file of a checkpoint with its checksum.

    Raises:
        DamageError: a file is missing, was added or has changed.
    """
    try:
        lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
        found = {path: _sha256(folder / path) for path in _files(folder)}
    except (OSError, ValueError) as error:
        raise DamageError(f"{CHECKSUMS} or a file cannot be read ({_reason(error)})") from None
    recorded = {path: digest for digest, _, path in (line.partition("  ") for line in lines)}
    for path in sorted(recorded.keys() | found.keys()):
        if path not in found:
            raise DamageError(f"{path} is missing")
        if path not in recorded:
            raise DamageError(f"{path} is not in {CHECKSUMS}")
        if found[path] != recorded[path]:
            raise DamageError(f"{path} has changed")


def _name(step: int, evaluated: bool) -> str:
    return f"{step:08d}{AFTER_EVALUATION if evaluated else ''}"


def _checkpointer() -> ocp.Checkpointer:
    return ocp.Checkpointer(ocp.CompositeCheckpointHandler())


@contextlib.contextmanager
def _fatal_if_several_processes(name: str) -> Iterator[None]:
    """End the run if one of several processes cannot write: the others wait for its part."""
    try:
        yield
    except Exception as error:
        if jax.process_count() == 1 or is_lost_peer(error):
            raise
        raise RunError(
            f"checkpoint {name} could not be written by process {jax.process_index()} "
            f"({_reason(error)}): make room, then start all processes again with --resume"
        ) from error


def _write(folder: Path, state: TrainState, position: Position) -> None:
    tree = _as_tree(state)
    arguments = ocp.args.Composite(
        state=ocp.args.StandardSave(tree),
        position=ocp.args.JsonSave({"position": position, "arrays": _arrays(tree)}),
    )
    with _checkpointer() as checkpointer:
        checkpointer.save(folder, args=arguments)


def _read(folder: Path, like: TrainState) -> tuple[TrainState, Position]:
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _as_tree(like))
    with _checkpointer() as checkpointer:
        # Compare shapes first: Orbax has no clear error for arrays of other shapes.
        arguments = ocp.args.Composite(position=ocp.args.JsonRestore())
        plain = checkpointer.restore(folder.absolute(), args=arguments)["position"]
        if plain.get("arrays") != _arrays(abstract):
            raise UserError(
                f"checkpoint {folder.name} is of another network, optimizer or version of nin_jax"
            )
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
        tree = checkpointer.restore(folder.absolute(), args=arguments)["state"]
    key = jax.random.wrap_key_data(tree["key"])
    return TrainState(tree["params"], tree["opt_state"], tree["step"], key), plain["position"]


def _arrays(tree: Any) -> dict[str, list[Any]]:
    """Return shape and dtype of every array by its path in the tree, plain data for JSON."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path): [list(leaf.shape), leaf.dtype.name] for path, leaf in leaves
    }


def _as_tree(state: TrainState) -> dict[str, Any]:
    # Orbax cannot save a typed PRNG key, only its data.
    return {
        "params": state.params,
        "opt_state": state.opt_state,
        "step": state.step,
        "key": jax.random.key_data(state.key),
    }


def _seal(folder: Path) -> None:
    """Write the checksums, in the format of ``sha256sum --check``, and sync all files."""
    paths = list(_files(folder))
    text = "".join(f"{_sha256(folder / path)}  {path}\n" for path in paths)
    (folder / CHECKSUMS).write_text(text, encoding="utf-8")
    _sync(folder / path for path in (*paths, CHECKSUMS))
    _sync(path for path in (folder, *folder.rglob("*")) if path.is_dir())


def _files(folder: Path) -> Iterable[str]:
    paths = sorted(path for path in folder.rglob("*") if not path.is_dir())
    return [name for path in paths if (name := path.relative_to(folder).as_posix()) != CHECKSUMS]


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(paths: Iterable[Path]) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _reason(error: BaseException) -> str:
    return (getattr(error, "strerror", None) or first_line(error))[:300]
