"""When and how a run saves its state. If saving fails, the run warns and training continues."""

import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import jax
from flax import nnx

from nin_jax.errors import RunError, UserError, reason
from nin_jax.models import convert
from nin_jax.runs import workdir
from nin_jax.runs.agreement import agree, is_first
from nin_jax.runs.checkpoint import Checkpoints
from nin_jax.runs.preparation import Run
from nin_jax.runs.progress import Recorder
from nin_jax.runs.writers import JsonlWriter


@dataclass(frozen=True)
class Cadence:
    """How often to save a checkpoint within an epoch: by steps or by time.

    Attributes:
        steps: save at each multiple of this step; None to save by time.
        seconds: time between two checkpoints; None to save by steps.
    """

    steps: int | None
    seconds: float | None

    @staticmethod
    def parse(text: str) -> "Cadence":
        """Parse a number of steps, as ``200``, or a time, as ``10min`` or ``30s``.

        Raises:
            UserError: it is neither.
        """
        match = re.fullmatch(r"(\d{1,9})\s*(s|min|h|)", text.strip())
        if match is None or int(match[1]) == 0:
            raise UserError(
                f"--checkpoint-every must be a number of steps, as 200, or a time, as 10min, 30s "
                f"or 1h; got {text!r}"
            )
        count, unit = int(match[1]), match[2]
        if not unit:
            return Cadence(count, None)
        return Cadence(None, float(count * {"s": 1, "min": 60, "h": 3600}[unit]))

    def steps_left(self, step: int) -> int:
        """Return the steps until the next checkpoint; a very large number if time decides."""
        return self.steps - step % self.steps if self.steps else 2**31 - 1


@dataclass
class Saver:
    """Save a run into its folder.

    Attributes:
        run, recorder: what to save.
        rows: the writer of metrics.jsonl; a checkpoint records its size.
        checkpoints, folder: where to save it.
        cadence: how often to save within an epoch, from the run's configuration.
    """

    run: Run
    recorder: Recorder
    rows: JsonlWriter
    checkpoints: Checkpoints
    folder: Path
    cadence: Cadence = field(init=False)
    _failures: dict[str, str] = field(default_factory=dict)  # what could not be saved: reason
    _last: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.cadence = Cadence.parse(self.run.config.checkpoint_every)

    def is_due_by_steps(self, step: int) -> bool:
        """Return whether to save a checkpoint after this step."""
        return self.cadence.steps is not None and step % self.cadence.steps == 0

    def is_due_by_time(self) -> bool:
        """Return whether the last checkpoint is old enough to save another one."""
        since = time.monotonic() - self._last
        return self.cadence.seconds is not None and since >= self.cadence.seconds

    def first_checkpoint(self) -> None:
        """Save a checkpoint before any step.

        Raises:
            RunError: it cannot be written.
        """
        try:
            self._save_checkpoint()
        except OSError as error:
            raise RunError(
                f"no checkpoint of this run can be saved ({reason(error)}): make room, "
                f"then start with --resume --workdir {self.folder}"
            ) from None

    def checkpoint(self) -> bool:
        """Save a checkpoint. On failure, warn and return False."""
        self._last = time.monotonic()
        with jax.transfer_guard("allow"), self.recorder.untimed():
            return self._try("a checkpoint", self._save_checkpoint)

    def _save_checkpoint(self) -> None:
        agree(self.rows.sync)  # the rows must be on the disk before their size is recorded
        progress = self.recorder.progress
        position = {
            "step": progress.step,
            "evaluated": 0 < progress.step == progress.epochs * self.run.steps_per_epoch,
            "best": progress.best,
            "metrics_bytes": self.rows.size,
            "progress": asdict(progress),
        }
        self.checkpoints.save(self.run.state, position)

    def weights(self) -> None:
        """Save the parameters under PyTorch's names. On failure, warn."""

        def save() -> None:
            nnx.update(self.run.model, jax.device_get(params))
            convert.save_safetensors(self.run.model, self.folder / workdir.WEIGHTS)

        with self.recorder.untimed():
            params = self.run.layout.whole(self.run.state.params)
            if is_first():
                self._try(workdir.WEIGHTS, save)

    def _try(self, what: str, save: Callable[[], None]) -> bool:
        try:
            save()
        except OSError as error:
            kept = self.checkpoints.names()
            last = f"the last good checkpoint is {kept[-1]}" if kept else "there is no checkpoint"
            self._failures[what] = reason(error)
            self.recorder.screen.line(
                f"WARNING: {what} of step {self.recorder.progress.step} could not be saved "
                f"({reason(error)}); {last}; training continues"
            )
            return False
        self._failures.pop(what, None)
        return True

    def finish(self) -> None:
        """Raise a `RunError` if the end of the run could not be saved."""
        failures: dict[str, str] = agree(lambda: self._failures)
        if failures:
            reasons = "; ".join(f"{what}: {why}" for what, why in failures.items())
            raise RunError(
                f"training is done but could not be saved ({reasons}): make room, then continue "
                f"with --resume --workdir {self.folder} from the last good checkpoint"
            )
