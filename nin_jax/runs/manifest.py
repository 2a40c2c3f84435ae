"""A run's config.json and its trained model: write and read."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, model_validator

from nin_jax.errors import UserError
from nin_jax.models import convert
from nin_jax.models.nin import NiN, new_model
from nin_jax.models.preprocessing import KEY, Preprocessing
from nin_jax.models.variants import Variant, get_variant, variant_from_dict, variant_to_dict
from nin_jax.reading import read_json
from nin_jax.runs.environment import device_name, git_commit, machine, settings, versions
from nin_jax.runs.preparation import RunSpec
from nin_jax.runs.workdir import CONFIG, WEIGHTS
from nin_jax.training.config import TrainConfig, recipe_of
from nin_jax.training.recipes import Recipe
from nin_jax.validation import FAIL_FAST, Text, from_file, from_json, to_json

# Options that may differ when a run is resumed.
MAY_CHANGE = {
    *("workdir", "resume", "data_dir", "follow_links", "device"),
    *("epochs", "steps", "patience", "list_variants"),
    *("steps_per_dispatch", "compilation_cache", "checkpoint_every", "keep_checkpoints"),
    *("devices", "shard_params", "feed", "exact_resume"),
    *("distributed", "coordinator", "processes", "process_index"),
}

# Options that a resumed run does not take over from the run before.
NOT_CARRIED_OVER = {
    "exact_resume": True,
    "devices": "all",
    "distributed": False,
    "coordinator": None,
    "processes": None,
    "process_index": None,
}


Size = Annotated[int, Field(ge=1, lt=2**31)]


class _SavedDataset(BaseModel, strict=True):
    name: Text
    checksum: Text
    image_shape: tuple[Size, Size, Size]
    class_names: Annotated[list[Text], FAIL_FAST] = []


class SavedRun(BaseModel, strict=True):
    """What is read from config.json; `from_file` and `variant_from_dict` check the tables in it."""

    config: dict[str, Any]
    recipe: dict[str, Any]
    variant: dict[str, Any]
    dataset: _SavedDataset
    num_classes: Size
    # Earlier versions did not write these.
    preprocessing: dict[str, Any] | None = None
    numerics: dict[str, Any] = {}

    @model_validator(mode="after")
    def _one_logit_per_name(self) -> "SavedRun":
        names = len(self.dataset.class_names)
        if names > self.num_classes:
            raise UserError(f"num_classes cannot be {self.num_classes} with {names} class names")
        return self


def write_config(folder: Path, spec: RunSpec, preprocessing: Preprocessing | None = None) -> None:
    """Write what the run trains, with the preprocessing of its network, and on what it runs."""
    config, dataset = spec.config, spec.dataset
    write_json(
        folder / CONFIG,
        {
            "config": to_json(config),
            "recipe": dataclasses.asdict(spec.recipe),
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
            KEY: to_json(preprocessing or Preprocessing()),
            "numerics": settings() | machine(),
            "device": device_name(None if config.devices == "all" else config.devices),
            "versions": versions(),
            "git_commit": git_commit(),
        },
    )


def read_config(folder: Path) -> TrainConfig:
    """Return the configuration that a run was started with.

    Raises:
        UserError: the folder is not a run, or its configuration is not one.
    """
    # A missing option is newer than the run, which was trained with what is now its default.
    config = from_file(TrainConfig, read_run(folder).config, folder / CONFIG, complete=False)
    _check_values(config, folder)
    return config


def read_recipe(folder: Path) -> Recipe:
    """Return the complete recipe that a run was started with.

    Raises:
        UserError: the folder is not a run, or its recipe is not one.
    """
    saved = read_run(folder)
    missing = {field.name for field in dataclasses.fields(Recipe)} - saved.recipe.keys()
    complete = bool(missing & saved.config.keys())  # a newer option is in neither table
    return from_file(Recipe, saved.recipe, folder / CONFIG, complete)


def _check_values(config: TrainConfig, folder: Path) -> None:
    """Check that every value is in its range."""
    try:  # the run's files hold the variant; the file that it was read from may be gone
        recipe_of(dataclasses.replace(config, variant="nin"))
    except UserError as error:
        raise _damaged(folder, str(error)) from None


def _damaged(folder: Path, problem: str) -> UserError:
    return UserError(f"{folder / CONFIG} is damaged: {problem}")


def load_model(folder: str | Path, weights: str | Path | None = None) -> NiN:
    """Return the trained model of a run.

    Args:
        folder: the run's workdir.
        weights: another ``.safetensors`` file with the parameters; None reads the run's own.

    Raises:
        UserError: the folder holds no finished run, or the weights do not fit; this is checked
            before any large allocation.
    """
    folder = Path(folder)
    variant, sizes = network(folder)
    path = Path(weights) if weights is not None else weights_of(folder)
    expected = convert.expected_shapes(variant, **sizes)
    arrays = convert.load_safetensors(path, expected, variant.name)
    check_preprocessing(folder, path)
    model = make_model(folder)
    convert.load_state_dict(model, arrays)
    return model


def make_model(folder: Path) -> NiN:
    """Return the model of a run with initial weights.

    Raises:
        UserError: the folder is not a run.
    """
    variant, sizes = network(folder)
    logit_relu, precision = read_recipe(folder).logit_relu, read_config(folder).precision
    preprocessing = read_preprocessing(folder)
    options = {"logit_relu": logit_relu, "dtype": precision, "preprocessing": preprocessing}
    return new_model(variant, **sizes, **options)


def network(folder: Path) -> tuple[Variant, dict[str, Any]]:
    """Return a run's variant, and its number of channels and classes and image size by name.

    Raises:
        UserError: the folder is not a run, or its variant is damaged.
    """
    saved = read_run(folder)
    sizes = {
        "in_channels": saved.dataset.image_shape[2],
        "num_classes": saved.num_classes,
        "image_size": read_recipe(folder).image_size,
    }
    try:
        return variant_from_dict(saved.variant), sizes
    except UserError as error:
        raise _damaged(folder, str(error)) from None


def read_preprocessing(folder: Path) -> Preprocessing:
    """Return the preprocessing of a run's network.

    Raises:
        UserError: the folder is not a run, or its preprocessing is not one.
    """
    saved = read_run(folder)
    if saved.preprocessing is None:  # an earlier version, whose one rule was --crop
        return Preprocessing(resize="crop" if read_config(folder).crop else "stretch")
    found = from_file(Preprocessing, saved.preprocessing, folder / CONFIG, complete=False)
    try:
        found.check(saved.dataset.image_shape[2])
    except UserError as error:
        raise _damaged(folder, str(error)) from None
    return found


def check_preprocessing(folder: Path, weights: Path) -> None:
    """Check that a weights file that states a preprocessing states the run's.

    Raises:
        UserError: it states another one.
    """
    stated, own = convert.read_preprocessing(weights), read_preprocessing(folder)
    if stated not in (None, own):
        raise UserError(f"{weights} is for another preprocessing than {folder}: {stated}; {own}")


def weights_of(folder: Path) -> Path:
    """Return the path of a run's weights.

    Raises:
        UserError: the folder is not a run, or one that has not finished an epoch.
    """
    read_run(folder)
    if not os.path.exists(folder / WEIGHTS):
        raise UserError(f"{folder} has no {WEIGHTS}: the run has not finished an epoch")
    return folder / WEIGHTS


def data_checksum(folder: Path) -> str:
    """Return the checksum of the dataset that a run was trained on.

    Raises:
        UserError: the folder is not a run.
    """
    return read_run(folder).dataset.checksum


def class_names(folder: Path) -> tuple[str, ...]:
    """Return the names of a run's classes, one for each logit.

    Raises:
        UserError: the folder is not a run.
    """
    saved = read_run(folder)
    names, count = saved.dataset.class_names, saved.num_classes
    return (*names, *(f"class {i}" for i in range(len(names), count)))


def read_run(folder: Path) -> SavedRun:
    """Read a run's config.json.

    Raises:
        UserError: the folder is not a run, or the file is damaged.
    """
    if not os.path.isfile(folder / CONFIG):  # Path's own raises where a name is too long
        raise UserError(f"{folder} is not a run: it has no {CONFIG}")
    saved = read_json(folder / CONFIG)
    try:
        return from_json(SavedRun, saved)
    except UserError as error:
        raise _damaged(folder, str(error)) from None


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object; a failure leaves the old file, never part of the new one."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
