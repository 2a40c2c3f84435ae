"""Prepare a run's weights to ship: rounded to float16, with a card."""

import hashlib
import os
import shlex
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from nin_jax.data.datasets import list_datasets
from nin_jax.errors import UserError, one_line, option_of
from nin_jax.models import convert
from nin_jax.models.nin import with_dtype
from nin_jax.models.preprocessing import to_metadata
from nin_jax.models.pretrained import MAX_BYTES, Card
from nin_jax.models.variants import VARIANTS
from nin_jax.runs import environment, manifest, workdir
from nin_jax.runs.trained import Trained
from nin_jax.training.config import TrainConfig
from nin_jax.training.evaluate import Score
from nin_jax.writing import replacing


def rounded(trained: Trained) -> Trained:
    """Return the network with weights rounded to float16, computing in float32.

    Raises:
        UserError: a weight is too large for float16.
    """
    weights = _float16(trained)
    if not all(np.isfinite(array).all() for array in weights.values()):
        raise UserError(f"a weight of {trained.origin} is too large for float16")
    model = with_dtype(trained.model, "float32")
    convert.load_state_dict(model, {n: array.astype(np.float32) for n, array in weights.items()})
    return replace(trained, model=model)


def _float16(trained: Trained) -> dict[str, np.ndarray]:
    with np.errstate(over="ignore"):  # the caller checks for overflow
        state = convert.to_torch(trained.model).items()
        return {name: array.astype(np.float16) for name, array in state}


def check(trained: Trained, folder: Path) -> None:
    """Check, without writing anything, that a network can ship and that its files do not exist.

    Raises:
        UserError: it is not from a run, its variant or dataset is not built in, not all test images
            are scored, it is too large, or the files exist.
    """
    model, config = trained.model, trained.config
    if trained.folder is None:
        raise UserError(f"--export needs --workdir: {trained.origin} is not a run")
    if VARIANTS.get(model.variant.name) != model.variant:
        raise UserError(f"--export: {model.variant.name} is not a built-in variant")
    if config.dataset not in list_datasets():
        raise UserError(f"--export: {config.dataset} is not a built-in dataset")
    for name in ("holdout", "limit_test"):
        if getattr(config, name) is not None:
            remedy = ": add --test" if name == "holdout" else ""
            raise UserError(
                f"--export: the run has {option_of(name)}, so not all test images are "
                f"scored{remedy}"
            )
    size = 2 * sum(array.size for array in convert.to_torch(model).values())
    if size > MAX_BYTES:
        raise UserError(f"--export: float16 weights of {size:,} bytes are more than {MAX_BYTES:,}")
    workdir.check_folder("--export", folder)
    for path in _paths(trained, folder):
        if os.path.lexists(path):
            raise UserError(f"--export: {path} exists already")


def _paths(trained: Trained, folder: Path) -> tuple[Path, Path]:
    name = f"{trained.model.variant.name}-{trained.config.dataset}"
    return folder / f"{name}.safetensors", folder / f"{name}.json"


def write(trained: Trained, score: Score, folder: Path) -> tuple[Path, Path]:
    """Write the weights and their card; a failure leaves neither.

    Args:
        trained: the network, from `rounded`.
        score: its score on all test images.
        folder: where to write; made if it does not exist.

    Returns:
        The paths of the two files.

    Raises:
        UserError: the folder cannot be made, or written.
    """
    model = trained.model
    content = save(_float16(trained), to_metadata(model.preprocessing))
    card = Card(
        variant=model.variant.name,
        in_channels=model.in_channels,
        num_classes=model.num_classes,
        image_size=model.image_size,
        logit_relu=model.head.last_relu,
        dataset=str(trained.config.dataset),
        data_checksum=trained.data_checksum,
        class_names=trained.class_names,
        command=command(trained.config, trained.step),
        test_accuracy=score.accuracy,
        test_images=int(score.confusion.sum()),
        batch_size=trained.batch_size,
        versions=environment.versions(),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    workdir.make_folder("--export", folder)
    weights, text = _paths(trained, folder)
    with one_line(f"--export {folder} cannot be written"):
        with replacing(weights) as partial:
            partial.write_bytes(content)
        try:
            manifest.write_json(text, asdict(card))
        except BaseException:
            weights.unlink()  # `check` would refuse another try
            raise
    return weights, text


def command(config: TrainConfig, step: int | None = None) -> str:
    """Return the command line of a run, without options that do not change its result.

    A comment names the step, if the weights are from a checkpoint.

    >>> command(TrainConfig("nin15", dataset="digits", image_size=64, seed=1, workdir=Path("x")))
    'python scripts/train.py --variant nin15 --dataset digits --image-size 64 --seed 1'
    """
    words = ["python", "scripts/train.py", "--variant", config.variant]
    for field in fields(config):
        name, value = field.name, getattr(config, field.name)
        # These may change when a run is resumed, but matter.
        length = name in ("epochs", "steps", "patience")
        if name in manifest.MAY_CHANGE and not length:
            continue
        if name == "variant" or value == field.default:
            continue
        if isinstance(field.default, bool):
            words.append(option_of(name if value else f"no_{name}"))
        else:
            words += [option_of(name), *map(str, value if isinstance(value, tuple) else (value,))]
    comment = "" if step is None else f"  # the checkpoint after step {step}"
    return shlex.join(words) + comment
