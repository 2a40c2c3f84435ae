"""What a run was, in its config.json, and what it learnt: written, compared, read back."""

import dataclasses
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

from nin_jax.data.datasets import Dataset
from nin_jax.errors import UserError
from nin_jax.models import convert
from nin_jax.models.nin import NiN, new_model
from nin_jax.models.variants import Variant, get_variant, variant_from_dict, variant_to_dict
from nin_jax.reading import from_plain, read_json, shown
from nin_jax.runs.workdir import CONFIG, WEIGHTS
from nin_jax.training.config import Recipe, TrainConfig, recipe_of

# What may differ when a run is resumed; all else would make it another run.
MAY_CHANGE = {
    *("workdir", "resume", "data_dir", "device", "epochs", "steps", "list_variants"),
    *("steps_per_dispatch", "compilation_cache", "checkpoint_every", "keep_checkpoints"),
    *("devices", "shard_params", "feed"),
    *("distributed", "coordinator", "processes", "process_index"),
}

# What a start has of its own: it is not carried over to the next one.
NOT_CARRIED_OVER = {
    "devices": "all",
    "distributed": False,
    "coordinator": None,
    "processes": None,
    "process_index": None,
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
                "train_images": len(dataset.train),
                "test_images": len(dataset.test),
            },
            "num_classes": config.num_classes or dataset.num_classes,
            "device": device_name(None if config.devices == "all" else config.devices),
            "versions": versions(),
            "git_commit": _git_commit(),
        },
    )


def _plain(config: TrainConfig | Recipe) -> dict[str, Any]:
    """A configuration as JSON gives it back: paths as text, tuples as lists."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def identity(config: TrainConfig, recipe: Recipe, dataset: Dataset) -> str:
    """What all processes of a run must have been given alike, as text."""
    of_its_own = {"data_dir", "workdir", "coordinator", "process_index"}
    given = {k: v for k, v in _plain(config).items() if k not in of_its_own}
    variant = variant_to_dict(get_variant(config.variant))
    return json.dumps([given, _plain(recipe), variant, dataset.checksum], sort_keys=True)


def check_same_run(folder: Path, config: TrainConfig, recipe: Recipe, dataset: Dataset) -> None:
    """Refuses to resume a run with another configuration or other data.

    Raises:
        UserError: listing every difference.
    """
    saved = _read_run(folder)
    was = saved["config"] | saved["recipe"]
    now = _plain(config) | _plain(recipe)
    differences = [
        f"{name} was {shown(was.get(name))}, is {value!r}"
        for name, value in now.items()
        if name not in MAY_CHANGE and was.get(name) != value
    ]
    if saved["variant"] != variant_to_dict(get_variant(config.variant)):
        differences.append(f"the variant {config.variant} has changed")
    if differences:
        may = ", ".join(sorted(MAY_CHANGE - {"resume", "list_variants"}))
        raise UserError(
            f"--resume with another configuration: {'; '.join(differences)} "
            f"(what may change: {may})"
        )
    check_same_data(saved["dataset"]["checksum"], dataset, str(folder))


def check_same_data(checksum: str, dataset: Dataset, run: str) -> None:
    """Refuses data other than those a network was trained on.

    Args:
        checksum: of those data.
        dataset: what is there now.
        run: what trained the network, for the message.

    Raises:
        UserError: the checksum differs.
    """
    if checksum != dataset.checksum:
        raise UserError(
            f"the data differ from the run's: {dataset.name} from {dataset.source} has another "
            f"checksum than the data of {run}"
        )


def read_config(folder: Path) -> TrainConfig:
    """The configuration a run was started with.

    Raises:
        UserError: the folder holds no run, or its configuration is not one.
    """
    config = from_plain(TrainConfig, _read_run(folder)["config"], folder / CONFIG)
    _check_values(config, folder)
    return config


def read_recipe(folder: Path) -> Recipe:
    """The complete recipe a run was started with.

    Raises:
        UserError: the folder holds no run, or its recipe is not one.
    """
    recipe = from_plain(Recipe, _read_run(folder)["recipe"], folder / CONFIG)
    _check_values(TrainConfig(**dataclasses.asdict(recipe)), folder)
    return recipe


def _check_values(config: TrainConfig, folder: Path) -> None:
    """Every value is in its range, as it was when the run began."""
    try:  # the variant is in the run's files itself; the one it was read from may be gone
        recipe_of(dataclasses.replace(config, variant="nin"))
    except UserError as error:
        raise _damaged(folder, str(error)) from None


def _damaged(folder: Path, problem: str) -> UserError:
    return UserError(f"{folder / CONFIG} is damaged: {problem}")


def load_model(folder: str | Path, weights: str | Path | None = None) -> NiN:
    """The trained model of a run.

    Args:
        folder: the run's workdir.
        weights: another ``.safetensors`` file to take the parameters from.

    Raises:
        UserError: the folder holds no finished run, or the weights do not fit. No memory is taken
            before that is known.
    """
    folder = Path(folder)
    saved = _read_run(folder)
    recipe, precision = read_recipe(folder), read_config(folder).precision
    variant = _read_variant(saved, folder)
    sizes: dict[str, Any] = {
        "in_channels": saved["dataset"]["image_shape"][2],
        "num_classes": saved["num_classes"],
        "image_size": recipe.image_size,
    }
    path = Path(weights) if weights is not None else weights_of(folder)
    expected = convert.expected_shapes(variant, **sizes)
    arrays = convert.load_safetensors(path, expected, variant.name)
    model = new_model(variant, **sizes, logit_relu=recipe.logit_relu, dtype=precision)
    convert.load_state_dict(model, arrays)
    return model


def _read_variant(saved: dict[str, Any], folder: Path) -> Variant:
    try:
        return variant_from_dict(saved["variant"])
    except UserError as error:
        raise _damaged(folder, str(error)) from None


def weights_of(folder: Path) -> Path:
    """The file of a run's weights.

    Raises:
        UserError: the folder holds no run, or one that has not finished an epoch.
    """
    _read_run(folder)
    if not os.path.exists(folder / WEIGHTS):
        raise UserError(f"{folder} has no {WEIGHTS}: the run has not finished an epoch")
    return folder / WEIGHTS


def data_checksum(folder: Path) -> str:
    """The checksum of the data a run was trained on.

    Raises:
        UserError: the folder holds no run.
    """
    return _read_run(folder)["dataset"]["checksum"]


def class_names(folder: Path) -> tuple[str, ...]:
    """The names of a run's classes, one for every logit.

    Raises:
        UserError: the folder holds no run.
    """
    saved = _read_run(folder)
    names, count = saved["dataset"]["class_names"], saved["num_classes"]
    return (*names, *(f"class {i}" for i in range(len(names), count)))


def _read_run(folder: Path) -> dict[str, Any]:
    """A run's config.json, all that is relied on checked but for the fields of dataclasses."""
    if not os.path.isfile(folder / CONFIG):  # Path's own raises where a name is too long
        raise UserError(f"{folder} holds no run: there is no {CONFIG} in it")
    saved = read_json(folder / CONFIG)
    missing = {"config", "recipe", "variant", "dataset", "num_classes"} - saved.keys()
    if missing:
        raise _damaged(folder, f"no {', '.join(sorted(missing))} in it")
    for name in ("config", "recipe", "variant", "dataset"):
        if not isinstance(saved[name], dict):
            raise _damaged(folder, f"{name} must be a table, got {shown(saved[name])}")
    dataset = saved["dataset"] = {"class_names": []} | saved["dataset"]
    for name in ("name", "checksum"):
        if not _is_text(dataset.get(name)):
            raise _damaged(folder, f"dataset.{name} must be a text, got {shown(dataset.get(name))}")
    names, shape = dataset["class_names"], dataset.get("image_shape")
    if not (isinstance(names, list) and all(map(_is_text, names))):
        raise _damaged(folder, f"dataset.class_names must be texts, got {shown(names)}")
    if not (isinstance(shape, list) and len(shape) == 3 and all(map(_is_count, shape))):
        raise _damaged(folder, f"dataset.image_shape must be three sizes, got {shown(shape)}")
    count = saved["num_classes"]
    if not (_is_count(count) and len(names) <= count):
        raise _damaged(
            folder, f"num_classes cannot be {shown(count)} with {len(names)} class names"
        )
    return saved


def _is_count(value: object) -> bool:
    return type(value) is int and 1 <= value < 2**31


def _is_text(value: object) -> bool:
    """Whether it can be printed, on one line: a name from a file may hold anything."""
    return isinstance(value, str) and value.isprintable()


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes a JSON object whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def device_name(count: int | None = None) -> str:
    """What JAX computes on, in words: ``cpu, 8 cores, x86_64`` or the accelerator's name.

    Args:
        count: of devices; all if None.
    """
    device, count = jax.devices()[0], count or jax.device_count()
    if device.platform == "cpu":
        several = f", {count} devices" if count > 1 else ""
        return f"cpu, {os.cpu_count()} cores, {platform.machine()}{several}"
    return f"{device.platform}, {count} x {device.device_kind}"


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    found = {package: importlib.metadata.version(package) for package in packages}
    return {"python": platform.python_version(), "nin_jax": _own_version()} | found


def _own_version() -> str:
    """Return the version of the installed package; one that runs from its folder has none."""
    try:
        return importlib.metadata.version("nin_jax")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git_commit() -> str | None:
    """The commit of the source tree that runs, or None if it does not lie in one of its own."""
    here = Path(__file__).resolve().parent.parent.parent

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
