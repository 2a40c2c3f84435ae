"""A run's config.json and its trained model: write, compare, read."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, model_validator

from nin_jax.data.datasets import Dataset
from nin_jax.errors import UserError
from nin_jax.models import convert
from nin_jax.models.nin import NiN, new_model
from nin_jax.models.variants import Variant, get_variant, variant_from_dict, variant_to_dict
from nin_jax.reading import read_json, shown
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


class _SavedRun(BaseModel, strict=True):
    """What is read from config.json; `from_file` and `variant_from_dict` check the tables in it."""

    config: dict[str, Any]
    recipe: dict[str, Any]
    variant: dict[str, Any]
    dataset: _SavedDataset
    num_classes: Size
    numerics: dict[str, Any] = {}  # earlier versions did not write them

    @model_validator(mode="after")
    def _one_logit_per_name(self) -> "_SavedRun":
        names = len(self.dataset.class_names)
        if names > self.num_classes:
            raise UserError(f"num_classes cannot be {self.num_classes} with {names} class names")
        return self


def write_config(folder: Path, spec: RunSpec) -> None:
    """Write what the run trains, and on what it runs."""
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
            "numerics": settings() | machine(),
            "device": device_name(None if config.devices == "all" else config.devices),
            "versions": versions(),
            "git_commit": git_commit(),
        },
    )


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


def check_same_run(folder: Path, spec: RunSpec) -> None:
    """Check that a run is resumed with its own configuration, data and settings of JAX.

    Raises:
        UserError: it lists every difference.
    """
    saved = _read_run(folder)
    was = to_json(read_config(folder)) | to_json(read_recipe(folder))
    now = to_json(spec.config) | to_json(spec.recipe)
    differences = _differences(was, now)
    if saved.variant != variant_to_dict(get_variant(spec.config.variant)):
        differences.append(f"the variant {spec.config.variant} has changed")
    if differences:
        may = ", ".join(sorted(MAY_CHANGE - {"resume", "list_variants"}))
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
    check_same_data(saved.dataset.checksum, spec.dataset, str(folder))


def _differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs in the values that both have and that may not change."""
    return [
        f"{name} was {shown(was[name])}, is {shown(value)}"
        for name, value in now.items()
        if name not in MAY_CHANGE and name in was and was[name] != value
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


def read_config(folder: Path) -> TrainConfig:
    """Return the configuration that a run was started with.

    Raises:
        UserError: the folder is not a run, or its configuration is not one.
    """
    # A missing option is newer than the run, which was trained with what is now its default.
    config = from_file(TrainConfig, _read_run(folder).config, folder / CONFIG, complete=False)
    _check_values(config, folder)
    return config


def read_recipe(folder: Path) -> Recipe:
    """Return the complete recipe that a run was started with.

    Raises:
        UserError: the folder is not a run, or its recipe is not one.
    """
    saved = _read_run(folder)
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
    variant, sizes = _network(folder)
    path = Path(weights) if weights is not None else weights_of(folder)
    expected = convert.expected_shapes(variant, **sizes)
    arrays = convert.load_safetensors(path, expected, variant.name)
    model = make_model(folder)
    convert.load_state_dict(model, arrays)
    return model


def make_model(folder: Path) -> NiN:
    """Return the model of a run with initial weights.

    Raises:
        UserError: the folder is not a run.
    """
    variant, sizes = _network(folder)
    logit_relu, precision = read_recipe(folder).logit_relu, read_config(folder).precision
    return new_model(variant, **sizes, logit_relu=logit_relu, dtype=precision)


def _network(folder: Path) -> tuple[Variant, dict[str, Any]]:
    """Return a run's variant and the sizes of its network."""
    saved = _read_run(folder)
    sizes = {
        "in_channels": saved.dataset.image_shape[2],
        "num_classes": saved.num_classes,
        "image_size": read_recipe(folder).image_size,
    }
    try:
        return variant_from_dict(saved.variant), sizes
    except UserError as error:
        raise _damaged(folder, str(error)) from None


def weights_of(folder: Path) -> Path:
    """Return the path of a run's weights.

    Raises:
        UserError: the folder is not a run, or one that has not finished an epoch.
    """
    _read_run(folder)
    if not os.path.exists(folder / WEIGHTS):
        raise UserError(f"{folder} has no {WEIGHTS}: the run has not finished an epoch")
    return folder / WEIGHTS


def data_checksum(folder: Path) -> str:
    """Return the checksum of the dataset that a run was trained on.

    Raises:
        UserError: the folder is not a run.
    """
    return _read_run(folder).dataset.checksum


def class_names(folder: Path) -> tuple[str, ...]:
    """Return the names of a run's classes, one for each logit.

    Raises:
        UserError: the folder is not a run.
    """
    saved = _read_run(folder)
    names, count = saved.dataset.class_names, saved.num_classes
    return (*names, *(f"class {i}" for i in range(len(names), count)))


def _read_run(folder: Path) -> _SavedRun:
    """Read a run's config.json.

    Raises:
        UserError: the folder is not a run, or the file is damaged.
    """
    if not os.path.isfile(folder / CONFIG):  # Path's own raises where a name is too long
        raise UserError(f"{folder} is not a run: it has no {CONFIG}")
    saved = read_json(folder / CONFIG)
    try:
        return from_json(_SavedRun, saved)
    except UserError as error:
        raise _damaged(folder, str(error)) from None


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object; a failure leaves the old file, never part of the new one."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
