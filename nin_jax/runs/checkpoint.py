"""Training state on disk, whole or not at all; the only file that imports Orbax.

A checkpoint is a folder named after its step. It is written beside the others, weighed (every
file's SHA-256), brought to the disk, and only then renamed into its place: what lies there was
once whole, so whatever is wrong with it since is damage, and is found by its checksums.
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
from nin_jax.runs.multihost import agree, is_first, is_lost_peer
from nin_jax.training.step import TrainState

SAVING, DAMAGED, CHECKSUMS = ".saving", "damaged", "SHA256SUMS"
AFTER_EVALUATION = "-evaluated"

Position = dict[str, Any]


class SaveError(OSError):
    """A checkpoint could not be written; those before it are as they were."""


class DamageError(ValueError):
    """A checkpoint is not what it was when it was written; the message says where."""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run.

    Attributes:
        folder: where they live; made with the first.
        keep: how many of the newest to keep, besides the best.
    """

    folder: Path
    keep: int = 2

    def save(self, state: TrainState, position: Position) -> Path:
        """Writes a checkpoint and drops those that need not be kept any longer.

        Args:
            state: what training changes.
            position: plain data for JSON: where the run is beyond its state. Its ``step`` and
                ``evaluated`` name the checkpoint; ``best``, if not None, holds the ``step`` of
                the best one so far, which stays.

        Raises:
            SaveError: the disk is full or not writable; the earlier checkpoints are still there.
            RunError: the same, in one of several processes: the others wait for its part.
        """
        name = _name(position["step"], position["evaluated"])
        partial, final = (self.folder / SAVING / name).absolute(), self.folder / name

        def finish() -> None:
            _seal(partial)
            partial.rename(final)
            _to_disk([self.folder])
            with contextlib.suppress(OSError):  # what stays is one checkpoint more
                self._prune(position)

        try:
            if not agree(lambda: self._begin(final)):
                return final  # the run stands where it stood when this was written
            with _others_wait(name):
                _write(partial, state, position)  # all processes of the run together
            agree(finish)
        except RunError:
            raise
        except Exception as error:  # Orbax and TensorStore raise what they like
            if is_lost_peer(error):
                raise
            raise SaveError(_reason(error)) from error
        finally:
            if is_first():
                self.clear_partial()
        return final

    def _begin(self, final: Path) -> bool:
        if final.exists():
            return False
        self.clear_partial()
        return True

    def restore(self, like: TrainState) -> tuple[TrainState, Position] | None:
        """The newest state that is intact, shaped and placed as ``like`` is, and its position.

        Returns:
            None if there are no checkpoints at all.

        Warns:
            UserWarning: a checkpoint is damaged; it is named and moved into ``damaged/``.

        Raises:
            UserError: none is intact, or the newest intact one holds another kind of state.
        """
        name = agree(self._newest_intact)
        return None if name is None else _read(self.folder / name, like)

    def _newest_intact(self) -> str | None:
        found = sorted(self.names(), reverse=True)
        for name in found:
            folder = self.folder / name
            try:
                verify(folder)
            except DamageError as damage:
                aside = self._set_aside(name)
                warnings.warn(
                    f"checkpoint {name} is damaged: {damage}; it is now {aside}", stacklevel=2
                )
                continue
            return name
        if found or any(self._damaged()):
            raise UserError(
                f"no checkpoint in {self.folder} is intact: {len(list(self._damaged()))} damaged "
                f"ones lie in {self.folder / DAMAGED}; the run cannot be resumed"
            )
        return None

    def names(self) -> list[str]:
        """Of all checkpoints, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(path.name for path in self.folder.iterdir() if path.name[:1].isdigit())

    def clear_partial(self) -> None:
        """Removes what an interrupted write has left."""
        shutil.rmtree(self.folder / SAVING, ignore_errors=True)

    def _prune(self, position: Position) -> None:
        names = self.names()
        best = position["best"]
        kept = set(names[-self.keep :])
        if best is not None:
            kept.add(_name(best["step"], evaluated=True))
        for name in set(names) - kept:
            # Renamed first: a half removed checkpoint is no checkpoint.
            gone = self.folder / SAVING / f"{name}-removed"
            gone.parent.mkdir(exist_ok=True)
            (self.folder / name).rename(gone)

    def _set_aside(self, name: str) -> Path:
        target, number = self.folder / DAMAGED / name, 2
        while target.exists():
            target, number = self.folder / DAMAGED / f"{name}-{number}", number + 1
        target.parent.mkdir(exist_ok=True)
        (self.folder / name).rename(target)
        return target

    def _damaged(self) -> Iterator[Path]:
        return (self.folder / DAMAGED).glob("*")


def verify(folder: Path) -> None:
    """Holds every file of a checkpoint against its checksum.

    Raises:
        DamageError: a file is missing, was added or has changed.
    """
    try:
        lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
        there = {path: _sha256(folder / path) for path in _files(folder)}
    except (OSError, ValueError) as error:
        raise DamageError(f"{CHECKSUMS} or a file cannot be read ({_reason(error)})") from None
    written = {path: digest for digest, _, path in (line.partition("  ") for line in lines)}
    for path in sorted(written.keys() | there.keys()):
        if path not in there:
            raise DamageError(f"{path} is missing")
        if path not in written:
            raise DamageError(f"{path} is not in {CHECKSUMS}")
        if there[path] != written[path]:
            raise DamageError(f"{path} has changed")


def _name(step: int, evaluated: bool) -> str:
    return f"{step:08d}{AFTER_EVALUATION if evaluated else ''}"


def _handler() -> ocp.Checkpointer:
    return ocp.Checkpointer(ocp.CompositeCheckpointHandler())


@contextlib.contextmanager
def _others_wait(name: str) -> Iterator[None]:
    """What fails in one of several processes cannot be passed over: the others wait for it."""
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
    with _handler() as checkpointer:
        checkpointer.save(folder, args=arguments)


def _read(folder: Path, like: TrainState) -> tuple[TrainState, Position]:
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _as_tree(like))
    with _handler() as checkpointer:
        # First what it holds: Orbax does not fail neatly on arrays of other shapes.
        arguments = ocp.args.Composite(position=ocp.args.JsonRestore())
        plain = checkpointer.restore(folder.absolute(), args=arguments)["position"]
        if plain.get("arrays") != _arrays(abstract):
            raise UserError(
                f"checkpoint {folder.name} is of another network, optimiser or version of nin_jax"
            )
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
        tree = checkpointer.restore(folder.absolute(), args=arguments)["state"]
    key = jax.random.wrap_key_data(tree["key"])
    return TrainState(tree["params"], tree["opt_state"], tree["step"], key), plain["position"]


def _arrays(tree: Any) -> dict[str, list[Any]]:
    """Shape and dtype of every array, by its place in the tree; plain data for JSON."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path): [list(leaf.shape), leaf.dtype.name] for path, leaf in leaves
    }


def _as_tree(state: TrainState) -> dict[str, Any]:
    # A typed PRNG key is not an array to Orbax; its data is.
    return {
        "params": state.params,
        "opt_state": state.opt_state,
        "step": state.step,
        "key": jax.random.key_data(state.key),
    }


def _seal(folder: Path) -> None:
    """Writes the checksums, as ``sha256sum --check`` reads them, and brings all to the disk."""
    paths = list(_files(folder))
    text = "".join(f"{_sha256(folder / path)}  {path}\n" for path in paths)
    (folder / CHECKSUMS).write_text(text, encoding="utf-8")
    _to_disk(folder / path for path in (*paths, CHECKSUMS))
    _to_disk(path for path in (folder, *folder.rglob("*")) if path.is_dir())


def _files(folder: Path) -> Iterable[str]:
    paths = sorted(path for path in folder.rglob("*") if not path.is_dir())
    return [name for path in paths if (name := path.relative_to(folder).as_posix()) != CHECKSUMS]


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _to_disk(paths: Iterable[Path]) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _reason(error: BaseException) -> str:
    return (getattr(error, "strerror", None) or first_line(error))[:300]
