"""Checkpoints of the training state; the only file that imports Orbax.

A checkpoint is a folder named after its step. It is written beside the others, sealed with the
SHA-256 checksum of every file, flushed to the disk, and only then renamed into place. So every
checkpoint in place was complete once, and the checksums show any damage since.
"""

import contextlib
import re
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from nin_jax.errors import RunError, UserError, reason
from nin_jax.runs.agreement import agree, is_first
from nin_jax.runs.checksums import damage, seal
from nin_jax.runs.multihost import is_lost_peer
from nin_jax.training.step import TrainState
from nin_jax.writing import sync

SAVING, DAMAGED = ".saving", "damaged"
AFTER_EVALUATION = "-evaluated"
_NAME = re.compile(f"[0-9]{{8}}({AFTER_EVALUATION})?")  # a run has at most 10,000,000 steps

Position = dict[str, Any]


class SaveError(OSError):
    """A checkpoint could not be written; the earlier ones are unchanged."""


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

    def save(self, state: TrainState, position: Position) -> None:
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
            seal(partial)
            partial.rename(final)
            sync([self.folder])
            with contextlib.suppress(OSError):  # at worst an old checkpoint stays
                self._prune(position)

        try:
            if agree(final.exists):
                return  # the run has not moved since it was written
            agree(self.clear_partial)
            with _fatal_if_several_processes(name):
                _write(partial, state, position)  # all processes write their parts
            agree(finish)
        except RunError:
            raise
        except Exception as error:  # Orbax and TensorStore raise errors of any type
            if is_lost_peer(error):
                raise
            raise SaveError(reason(error)[:300]) from error
        finally:
            if is_first():
                self.clear_partial()

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
            found = damage(self.folder / name)
            if not found:
                return name
            moved = self._quarantine(name)
            warnings.warn(
                f"checkpoint {name} is damaged: {found}; it was moved to {moved}", stacklevel=2
            )
        damaged = len(list((self.folder / DAMAGED).glob("*")))
        if names or damaged:
            raise UserError(
                f"no checkpoint in {self.folder} is intact ({damaged} damaged ones are in "
                f"{self.folder / DAMAGED}), so the run cannot be resumed"
            )
        return None

    def find(self, step: int | None = None) -> str:
        """Return the name of the checkpoint of a step, or of the best epoch.

        Raises:
            UserError: there is none.
        """
        names = self.names()
        if step is None:
            folders = (self.folder / name for name in reversed(names))
            newest = next((folder for folder in folders if not damage(folder)), None)
            best = newest and _check_arrays(newest, {}, partly=True).get("best")
            if not best:
                raise UserError(f"{self.folder} has no intact checkpoint of an evaluated epoch")
            step = int(best["step"])
        found = [name for name in names if int(name[:8]) == step]
        if not found:
            steps = ", ".join(dict.fromkeys(str(int(name[:8])) for name in names))
            raise UserError(
                f"{self.folder} has no checkpoint of step {step}: it has {steps or 'none'} "
                "(--keep-checkpoints of scripts/train.py keeps more)"
            )
        return found[-1]

    def read_params(self, name: str, like: Any) -> Any:
        """Read only the parameters of a checkpoint.

        Args:
            name: of the checkpoint.
            like: parameters with the shapes, dtypes and placement of the result.

        Raises:
            UserError: the checkpoint is damaged, or of another network.
        """
        folder = self.folder / name
        if found := damage(folder):
            raise UserError(f"checkpoint {folder} is damaged: {found}")
        abstract = {"params": jax.tree.map(ocp.utils.to_shape_dtype_struct, like)}
        _check_arrays(folder, _arrays(abstract), partly=True)
        arguments = ocp.args.PyTreeRestore(
            item=abstract,
            restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
            partial_restore=True,
        )
        return _restore(folder, state=arguments)["state"]["params"]

    def names(self) -> list[str]:
        """Return the names of all checkpoints, oldest first."""
        if not self.folder.is_dir():
            return []
        names = (path.name for path in self.folder.iterdir())
        return sorted(name for name in names if _NAME.fullmatch(name))

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


def _name(step: int, evaluated: bool) -> str:
    return f"{step:08d}{AFTER_EVALUATION if evaluated else ''}"


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
            f"({reason(error)[:300]}): make room, then start all processes again with --resume"
        ) from error


def _write(folder: Path, state: TrainState, position: Position) -> None:
    tree = _as_tree(state)
    arguments = ocp.args.Composite(
        state=ocp.args.StandardSave(tree),
        position=ocp.args.JsonSave({"position": position, "arrays": _arrays(tree)}),
    )
    with _checkpointer() as checkpointer:
        checkpointer.save(folder, args=arguments)


def _restore(folder: Path, **items: Any) -> Any:
    """Return the items of a checkpoint that are asked for, each with its Orbax arguments."""
    with _checkpointer() as checkpointer:
        return checkpointer.restore(folder.absolute(), args=ocp.args.Composite(**items))


def _checkpointer() -> ocp.Checkpointer:
    return ocp.Checkpointer(ocp.CompositeCheckpointHandler())


def _read(folder: Path, like: TrainState) -> tuple[TrainState, Position]:
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _as_tree(like))
    # Compare shapes first: Orbax has no clear error for arrays of other shapes.
    position = _check_arrays(folder, _arrays(abstract))
    tree = _restore(folder, state=ocp.args.StandardRestore(abstract))["state"]
    key = jax.random.wrap_key_data(tree["key"])
    return TrainState(tree["params"], tree["opt_state"], tree["step"], key), position


def _check_arrays(folder: Path, wanted: dict[str, list[Any]], partly: bool = False) -> Position:
    """Check that a checkpoint holds these arrays, and no others unless ``partly``."""
    plain = _restore(folder, position=ocp.args.JsonRestore())["position"]
    found = plain.get("arrays") or {}
    if partly:
        found = {name: value for name, value in found.items() if name in wanted}
    if found != wanted:
        raise UserError(
            f"checkpoint {folder.name} is of another network, optimizer or version of nin_jax"
        )
    return plain["position"]


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
