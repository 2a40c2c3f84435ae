"""What a run was, in its config.json, and what it learnt: written, compared, read back."""

import dataclasses
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any, TypeVar

import jax

import nin_jax
from nin_jax import convert
from nin_jax.config import Recipe, TrainConfig
from nin_jax.datasets import Dataset
from nin_jax.errors import UserError
from nin_jax.model import NiN, create_model
from nin_jax.variants import get_variant, variant_from_dict, variant_to_dict
from nin_jax.workdir import CONFIG, WEIGHTS

T = TypeVar("T")

# What may differ when a run is resumed; all else would make it another run.
MAY_CHANGE = {
    *("workdir", "resume", "data_dir", "device", "epochs", "list_variants"),
    *("steps_per_dispatch", "compilation_cache"),
}


def write_config(folder: Path, config: TrainConfig, recipe: Recipe, dataset: Dataset) -> None:
    """Writes what the run is, and on what it runs."""
    write_json(
        folder / CONFIG,
        {
            "config": _plain(config),
            "recipe": dataclasses.asdict(recipe),
            "variant": variant_to_dict(get_variant(config.variant)),
            "dataset": {
                "name": dataset.name,
                "source": dataset.source,
                "checksum": dataset.checksum,
                "class_names": list(dataset.class_names),
                "image_shape": list(dataset.image_shape),
                "train_images": len(dataset.train.labels),
                "test_images": len(dataset.test.labels),
            },
            "num_classes": config.num_classes or dataset.num_classes,
            "device": device_name(),
            "versions": versions(),
            "git_commit": _git_commit(),
        },
    )


def _plain(config: TrainConfig | Recipe) -> dict[str, Any]:
    """A configuration as JSON gives it back: paths as text, tuples as lists."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def check_same_run(folder: Path, config: TrainConfig, recipe: Recipe, dataset: Dataset) -> None:
    """Refuses to resume a run with another configuration or other data.

    Raises:
        UserError: listing every difference.
    """
    saved = _read_run(folder)
    was = saved["config"] | saved["recipe"]
    now = _plain(config) | _plain(recipe)
    differences = [
        f"{name} was {was.get(name)!r}, is {value!r}"
        for name, value in now.items()
        if name not in MAY_CHANGE and was.get(name) != value
    ]
    if saved["variant"] != variant_to_dict(get_variant(config.variant)):
        differences.append(f"the variant {config.variant} has changed")
    if differences:
        raise UserError(f"--resume with another configuration: {'; '.join(differences)}")
    check_same_data(folder, dataset)


def check_same_data(folder: Path, dataset: Dataset) -> None:
    """Refuses data other than those the run was trained on.

    Raises:
        UserError: the checksum differs.
    """
    saved = _read_run(folder)["dataset"]
    if saved.get("checksum") != dataset.checksum:
        raise UserError(
            f"the data differ from the run's: {dataset.name} from {dataset.source} has another "
            f"checksum than the {saved.get('name')} in {folder / CONFIG}"
        )


def read_config(folder: Path) -> TrainConfig:
    """The configuration a run was started with.

    Raises:
        UserError: the folder holds no run.
    """
    return _from_plain(TrainConfig, _read_run(folder)["config"], folder)


def read_recipe(folder: Path) -> Recipe:
    """The complete recipe a run was started with.

    Raises:
        UserError: the folder holds no run.
    """
    return _from_plain(Recipe, _read_run(folder)["recipe"], folder)


def _from_plain(cls: type[T], plain: dict[str, Any], folder: Path) -> T:
    known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if plain.keys() != known:
        odd = ", ".join(sorted(plain.keys() ^ known))
        raise UserError(f"{folder / CONFIG} is of another version of nin_jax: {odd}")
    values = dict(plain)
    for name in {"workdir", "data_dir"} & known:
        values[name] = Path(values[name]) if values[name] else None
    if isinstance(values.get("image_size"), list):
        values["image_size"] = tuple(values["image_size"])
    return cls(**values)


def load_model(folder: str | Path, weights: str | Path | None = None) -> NiN:
    """The trained model of a run.

    Args:
        folder: the run's workdir.
        weights: another ``.safetensors`` file to take the parameters from.

    Raises:
        UserError: the folder holds no finished run, or the weights do not fit.
    """
    folder = Path(folder)
    saved = _read_run(folder)
    recipe = read_recipe(folder)
    model = create_model(
        variant_from_dict(saved["variant"]),
        in_channels=saved["dataset"]["image_shape"][2],
        num_classes=saved["num_classes"],
        image_size=recipe.image_size,
        logit_relu=recipe.logit_relu,
        dtype=read_config(folder).precision,
    )
    path = Path(weights) if weights is not None else folder / WEIGHTS
    if weights is None and not path.exists():
        raise UserError(f"{folder} has no {WEIGHTS}: the run has not finished an epoch")
    convert.load_state_dict(model, convert.load_safetensors(path))
    return model


def class_names(folder: Path) -> tuple[str, ...]:
    """The names of a run's classes, one for every logit.

    Raises:
        UserError: the folder holds no run.
    """
    saved = _read_run(folder)
    names = [str(name) for name in saved["dataset"].get("class_names", ())]
    count = saved["num_classes"]
    return tuple([*names, *(f"class {i}" for i in range(len(names), count))][:count])


def _read_run(folder: Path) -> dict[str, Any]:
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder} holds no run: there is no {CONFIG} in it")
    saved = read_json(folder / CONFIG)
    missing = {"config", "recipe", "variant", "dataset", "num_classes"} - saved.keys()
    if missing:
        raise UserError(f"{folder / CONFIG} is damaged: no {', '.join(sorted(missing))} in it")
    return saved


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged: not an object")
    return value


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes a JSON object whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def device_name() -> str:
    """What JAX computes on, in words: ``cpu, 8 cores, x86_64`` or the accelerator's name."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        return f"cpu, {os.cpu_count()} cores, {platform.machine()}"
    return f"{device.platform}, {jax.device_count()} x {device.device_kind}"


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {"python": platform.python_version(), "nin_jax": nin_jax.__version__} | {
        package: importlib.metadata.version(package) for package in packages
    }


def _git_commit() -> str | None:
    """The commit of the source tree that runs, or None if it does not lie in one of its own."""
    here = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != here:
            return None
        return git("describe", "--always", "--dirty", "--abbrev=40")
    except (OSError, subprocess.SubprocessError):
        return None
