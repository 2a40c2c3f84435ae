"""Shipped weights made in a test: a finished run of a small network, and its export."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import nin_jax
from nin_jax.data.datasets import load_dataset
from nin_jax.inference.scoring import EvaluateConfig, score_source
from nin_jax.models import convert, pretrained, variants
from nin_jax.runs import manifest
from nin_jax.runs.preparation import RunSpec
from nin_jax.training.config import TrainConfig, recipe_of

SMALL = nin_jax.Variant("small", (nin_jax.Stage(8, 3, padding=1),))
LINEAR = nin_jax.Variant("linear", (nin_jax.Stage(8, 3, padding=1),), classifier="linear")


def build_in(patch: pytest.MonkeyPatch, *networks: nin_jax.Variant) -> None:
    """Make the networks built-in variants."""
    for variant in networks:
        patch.setitem(variants.VARIANTS, variant.name, variant)


def make_run(folder: Path, variant: str = "small", **options: Any) -> Path:
    """Write the config and the weights of a finished run on the digits, without training."""
    config = TrainConfig(variant, "modern", "digits", image_size=16, workdir=folder)
    config = replace(config, **options)
    recipe = recipe_of(config)
    folder.mkdir(parents=True)
    manifest.write_config(folder, RunSpec(config, recipe, load_dataset("digits")))
    relu = recipe.logit_relu
    size = recipe.image_size
    model = nin_jax.create_model(variant, image_size=size, seed=1, init="he", logit_relu=relu)
    convert.save_safetensors(model, folder / "model.safetensors")
    return folder


def ship(patch: pytest.MonkeyPatch, folder: Path, variant: str = "small") -> pretrained.Card:
    """Make a run in a folder and let the package ship its weights only."""
    run = make_run(folder / f"run-{variant}", variant)
    score_source(EvaluateConfig(run, export=folder / "weights"))
    patch.setattr(pretrained, "FOLDER", folder / "weights")
    return pretrained.find(variant)
