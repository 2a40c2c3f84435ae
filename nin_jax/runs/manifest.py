"""A run's config.json and its trained model: write and read."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
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
from nin_jax.training.device import devices_for
from nin_jax.training.recipes import Recipe
from nin_jax.validation import FAIL_FAST, Text, from_file, from_json, to_json
from nin_jax.writing import replacing

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
    train_images: Size
    class_names: Annotated[list[Text], FAIL_FAST] = []


class _File(BaseModel, strict=True):
    """The file as it is; `from_file` and `variant_from_dict` check the tables in it."""

    config: dict[str, Any]
    recipe: dict[str, Any]
    variant: dict[str, Any]
    dataset: _SavedDataset
    num_classes: Size
    # Earlier versions did not write these.
    preprocessing: dict[str, Any] | None = None
    numerics: dict[str, Any] = {}
    devices: Size | None = None

    @model_validator(mode="after")
    def _one_logit_per_name(self) -> "_File":
        names = len(self.dataset.class_names)
        if names > self.num_classes:
            raise UserError(f"num_classes cannot be {self.num_classes} with {names} class names")
        return self


@dataclass(frozen=True)
class SavedRun:
    """What the config.json of a run says.

    Attributes:
        folder: the run's workdir.
        config: the options that the run was started with.
        recipe: its recipe, complete.
        variant: its network.
        preprocessing: of the network.
        sizes: the network's number of channels and classes and image size, by name.
        known_names: of the first classes; a run may have more logits.
        dataset: its name.
        data_checksum: of the dataset.
        train_images: number of training images.
        numerics: settings and versions that the numbers depend on; empty for an earlier version.
        devices: their number; None for an earlier version.
    """

    folder: Path
    config: TrainConfig
    recipe: Recipe
    variant: Variant
    preprocessing: Preprocessing
    sizes: dict[str, Any]
    known_names: tuple[str, ...]
    dataset: str
    data_checksum: str
    train_images: int
    numerics: dict[str, Any]
    devices: int | None

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name for each logit. Load the model first: it refuses a billion classes."""
        logits = range(len(self.known_names), self.sizes["num_classes"])
        return (*self.known_names, *(f"class {i}" for i in logits))

    @property
    def weights(self) -> Path:
        """The path of the run's weights.

        Raises:
            UserError: the run has not finished an epoch.
        """
        path = self.folder / WEIGHTS
        if not os.path.exists(path):
            raise UserError(f"{self.folder} has no {WEIGHTS}: the run has not finished an epoch")
        return path

    def make_model(self) -> NiN:
        """Return the network with initial weights.

        Raises:
            UserError: the network is too large for any machine, or its images are too small.
        """
        return new_model(self.variant, **self._options)

    @property
    def _options(self) -> dict[str, Any]:
        options = {"logit_relu": self.recipe.logit_relu, "dtype": self.config.precision}
        return self.sizes | options | {"preprocessing": self.preprocessing}

    def load_model(self, weights: Path | None = None) -> NiN:
        """Return the trained network.

        Args:
            weights: another ``.safetensors`` file with the parameters; None reads the run's own.

        Raises:
            UserError: the run has no weights, or they do not fit; this is checked before any large
                allocation.
        """
        path = weights or self.weights
        expected = convert.expected_shapes(self.variant, **self.sizes)
        arrays = convert.load_safetensors(path, expected, self.variant.name)
        self.check_preprocessing(path)
        return convert.from_torch(arrays, self.variant, **self._options)

    def check_preprocessing(self, weights: Path) -> None:
        """Check that a weights file that states a preprocessing states the run's.

        Raises:
            UserError: it states another one.
        """
        stated = convert.read_preprocessing(weights)
        if stated not in (None, self.preprocessing):
            raise UserError(
                f"{weights} is for another preprocessing than {self.folder}: {stated}; "
                f"{self.preprocessing}"
            )


def read_run(folder: Path) -> SavedRun:
    """Read a run's config.json.

    Raises:
        UserError: the folder is not a run, or the file is damaged.
    """
    path = folder / CONFIG
    if not os.path.isfile(path):  # Path's own raises where a name is too long
        raise UserError(f"{folder} is not a run: it has no {CONFIG}")
    found = read_json(path)
    with _damage_of(path):
        saved = from_json(_File, found)
        variant = variant_from_dict(saved.variant)
    channels = saved.dataset.image_shape[2]
    # A missing option is newer than the run, which was trained with what is now its default.
    config = from_file(TrainConfig, saved.config, path, complete=False)
    recipe = _recipe(saved, path)
    if saved.preprocessing is None:  # an earlier version, whose one rule was --crop
        preprocessing = Preprocessing(resize="crop" if config.crop else "stretch")
    else:
        preprocessing = from_file(Preprocessing, saved.preprocessing, path, complete=False)
    with _damage_of(path):
        # The variant is above; the file that it was read from may be gone.
        recipe_of(dataclasses.replace(config, variant="nin"))
        preprocessing.check(channels)
    return SavedRun(
        folder=folder,
        config=config,
        recipe=recipe,
        variant=variant,
        preprocessing=preprocessing,
        sizes={
            "in_channels": channels,
            "num_classes": saved.num_classes,
            "image_size": recipe.image_size,
        },
        known_names=tuple(saved.dataset.class_names),
        dataset=saved.dataset.name,
        data_checksum=saved.dataset.checksum,
        train_images=saved.dataset.train_images,
        numerics=saved.numerics,
        devices=saved.devices,
    )


def _recipe(saved: _File, path: Path) -> Recipe:
    missing = {field.name for field in dataclasses.fields(Recipe)} - saved.recipe.keys()
    complete = bool(missing & saved.config.keys())  # a newer option is in neither table
    return from_file(Recipe, saved.recipe, path, complete)


@contextlib.contextmanager
def _damage_of(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"{path} is damaged: {error}") from None


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
            "devices": len(devices_for(config.devices)),
            "device": device_name(None if config.devices == "all" else config.devices),
            "versions": versions(),
            "git_commit": git_commit(),
        },
    )


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object; a failure leaves the old file, never part of the new one."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
