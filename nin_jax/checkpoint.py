"""Training state on disk; the only file that imports Orbax."""

from pathlib import Path

import jax
import orbax.checkpoint as ocp

from nin_jax.errors import UserError
from nin_jax.step import TrainState


class Checkpoints:
    """The checkpoints of one run: whole or absent, never half written.

    Args:
        folder: where they live; made if need be.
        keep: how many of the newest to keep.
    """

    def __init__(self, folder: Path, keep: int = 2):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def save(self, state: TrainState) -> None:
        """Writes the state under its step."""
        # A typed PRNG key is not an array to Orbax; its data is.
        self._manager.save(int(state.step), args=ocp.args.StandardSave(_as_tree(state)))

    def restore(self, like: TrainState) -> TrainState:
        """The newest state, shaped and placed as ``like`` is.

        Raises:
            UserError: there is no checkpoint, or it does not hold such a state.
        """
        step = self._manager.latest_step()
        if step is None:
            raise UserError(f"no checkpoint to resume from in {self._manager.directory}")
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _as_tree(like))
        try:
            tree = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
        except (ValueError, FileNotFoundError) as error:
            first_line = str(error).partition("\n")[0]
            raise UserError(f"checkpoint {step} cannot be restored: {first_line}") from None
        key = jax.random.wrap_key_data(tree["key"])
        return TrainState(tree["params"], tree["opt_state"], tree["step"], key)

    def close(self) -> None:
        self._manager.close()


def _as_tree(state: TrainState) -> dict:
    return {
        "params": state.params,
        "opt_state": state.opt_state,
        "step": state.step,
        "key": jax.random.key_data(state.key),
    }
