"""Whether two runs are the same: for --resume, for several processes, for scoring again."""

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nin_jax.data.datasets import Dataset
from nin_jax.errors import UserError
from nin_jax.models.variants import get_variant, variant_to_dict
from nin_jax.reading import shown
from nin_jax.runs import manifest
from nin_jax.runs.environment import machine, settings
from nin_jax.runs.preparation import Initial, RunSpec
from nin_jax.runs.workdir import WEIGHTS
from nin_jax.training.device import devices_for
from nin_jax.validation import to_json


def identity(spec: RunSpec) -> str:
    """Return, as text, everything that must be the same in all processes of a run.

    The machines may differ.
    """
    own = {"data_dir", "workdir", "coordinator", "process_index"}
    config = {name: value for name, value in to_json(spec.config).items() if name not in own}
    variant = variant_to_dict(get_variant(spec.config.variant))
    return json.dumps(
        [config, to_json(spec.recipe), variant, spec.dataset.checksum, settings()], sort_keys=True
    )


def digest(initial: Initial | None) -> str:
    """Return a checksum of the weights that a run starts from, which all processes must share."""
    found = hashlib.sha256()
    for name, array in sorted(initial.arrays.items() if initial else ()):
        found.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return found.hexdigest()


def check_same_run(folder: Path, spec: RunSpec) -> None:
    """Check that a run is resumed with its own configuration, data and settings of JAX.

    Its preprocessing follows from the configuration and the data; its weights must state the same.

    Raises:
        UserError: it lists every difference.

    Warns:
        UserWarning: the number of devices differs.
    """
    saved = manifest.read_run(folder)
    was = to_json(saved.config) | to_json(saved.recipe)
    now = to_json(spec.config) | to_json(spec.recipe)
    if not spec.config.exact_resume:  # its default depends on the device too
        del was["micro_batch_size"]
    differences = _differences(was, now)
    if saved.variant != get_variant(spec.config.variant):
        differences.append(f"the variant {spec.config.variant} has changed")
    if differences:
        may = ", ".join(sorted(manifest.MAY_CHANGE - {"resume", "list_variants"}))
        raise UserError(
            f"--resume with another configuration: {'; '.join(differences)} "
            f"(what may change: {may})"
        )
    differences = _differences(saved.numerics, settings() | machine())
    if differences and spec.config.exact_resume:
        raise UserError(
            f"--resume would continue with other numbers than the run's: {'; '.join(differences)}: "
            "restore these, or continue with --no-exact-resume"
        )
    check_same_data(saved.data_checksum, spec.dataset, str(folder))
    devices = len(devices_for(spec.config.devices))
    if saved.devices not in (None, devices):
        warnings.warn(
            f"the run continues on {devices} devices and had {saved.devices}: sums may be rounded "
            "in another way",
            stacklevel=2,
        )
    if os.path.exists(folder / WEIGHTS):
        saved.check_preprocessing(folder / WEIGHTS)


def _differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs in the values that both have and that may not change."""
    return [
        f"{name} was {shown(was[name])}, is {shown(value)}"
        for name, value in now.items()
        if name not in manifest.MAY_CHANGE and name in was and was[name] != value
    ]


def check_same_data(checksum: str, dataset: Dataset, run: str) -> None:
    """Check that a dataset is the one that a network was trained on.

    Args:
        checksum: of the dataset that the network was trained on.
        dataset: the dataset to check.
        run: what trained the network, for the message.

    Raises:
        UserError: the checksum differs.
    """
    if checksum != dataset.checksum:
        raise UserError(
            f"the data differ from the run's: {dataset.name} from {dataset.source} has another "
            f"checksum than the data of {run}"
        )
