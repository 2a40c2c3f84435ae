"""What a run was, in its config.json, and what it learnt: written, compared, read back."""

import dataclasses
import importlib.metadata
import json
import os
import platform
import subprocess
import types
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import jax

import nin_jax
from nin_jax import convert
from nin_jax.config import Recipe, TrainConfig, recipe_of
from nin_jax.datasets import Dataset
from nin_jax.errors import UserError
from nin_jax.model import NiN, create_model
from nin_jax.reading import parse_json, read_text, shown
from nin_jax.variants import Variant, get_variant, variant_from_dict, variant_to_dict
from nin_jax.workdir import CONFIG, WEIGHTS

T = TypeVar("T")

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
    check_same_data(folder, dataset)


def check_same_data(folder: Path, dataset: Dataset) -> None:
    """Refuses data other than those the run was trained on.

    Raises:
        UserError: the checksum differs.
    """
    saved = _read_run(folder)["dataset"]
    if saved["checksum"] != dataset.checksum:
        raise UserError(
            f"the data differ from the run's: {dataset.name} from {dataset.source} has another "
            f"checksum than the {saved['name']} in {folder / CONFIG}"
        )


def read_config(folder: Path) -> TrainConfig:
    """The configuration a run was started with.

    Raises:
        UserError: the folder holds no run, or its configuration is not one.
    """
    config = _from_plain(TrainConfig, _read_run(folder)["config"], folder)
    _check_values(config, folder)
    return config


def read_recipe(folder: Path) -> Recipe:
    """The complete recipe a run was started with.

    Raises:
        UserError: the folder holds no run, or its recipe is not one.
    """
    recipe = _from_plain(Recipe, _read_run(folder)["recipe"], folder)
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


def _from_plain(cls: type[T], plain: dict[str, Any], folder: Path) -> T:
    hints = get_type_hints(cls)
    if plain.keys() != hints.keys():
        odd = ", ".join(sorted(plain.keys() ^ hints.keys()))
        raise UserError(f"{folder / CONFIG} is of another version of nin_jax: {shown(odd)}")
    for name, hint in hints.items():
        if not _fits(plain[name], hint):
            raise _damaged(folder, f"{name} cannot be {shown(plain[name])}")
    values = dict(plain)
    for name in {"workdir", "data_dir"} & hints.keys():
        values[name] = Path(values[name]) if values[name] else None
    if isinstance(values.get("image_size"), list):
        values["image_size"] = tuple(values["image_size"])
    return cls(**values)


def _fits(value: object, hint: Any) -> bool:
    """Whether a value from JSON is one of an annotation's."""
    if get_origin(hint) in (types.UnionType, Union):
        return any(_fits(value, option) for option in get_args(hint))
    if get_origin(hint) is Literal:
        return isinstance(value, str) and value in get_args(hint)
    if get_origin(hint) is tuple:
        inner = get_args(hint)
        return (
            isinstance(value, list) and len(value) == len(inner) and all(map(_fits, value, inner))
        )
    if hint is float:
        return isinstance(value, float | int) and not isinstance(value, bool)
    if hint is Path:
        return isinstance(value, str) and "\0" not in value
    return type(value) is hint


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
    path = Path(weights) if weights is not None else folder / WEIGHTS
    if weights is None and not os.path.exists(path):
        raise UserError(f"{folder} has no {WEIGHTS}: the run has not finished an epoch")
    expected = convert.expected_shapes(variant, **sizes)
    arrays = convert.load_safetensors(path, expected, variant.name)
    model = create_model(variant, **sizes, logit_relu=recipe.logit_relu, dtype=precision)
    convert.load_state_dict(model, arrays)
    return model


def _read_variant(saved: dict[str, Any], folder: Path) -> Variant:
    try:
        return variant_from_dict(saved["variant"])
    except UserError as error:
        raise _damaged(folder, str(error)) from None


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


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    text = read_text(path)
    try:
        value = parse_json(text)
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
