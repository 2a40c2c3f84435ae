"""What a run is: one dataclass, which is also the command line, and the recipes.

A recipe says how to train. A `TrainConfig` names one and may overrule any of it; `recipe_of`
puts the two together, complete and checked.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from nin_jax.errors import UserError, unknown_name
from nin_jax.models.init import Init
from nin_jax.models.variants import Variant, get_variant

Optimizer = Literal["sgd", "adam", "muon"]
Schedule = Literal["constant", "cosine"]
Augment = Literal["none", "flip", "flip_shift"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; the fields mean what `TrainConfig`'s do."""

    lr: float
    optimizer: Optimizer = "sgd"
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: Schedule = "constant"
    warmup: float = 0.0
    clip_norm: float = 0.0
    label_smoothing: float = 0.0
    init: Init = "xavier"
    logit_relu: bool = True
    augment: Augment = "none"
    image_size: int | tuple[int, int] = 224
    batch_size: int = 128
    epochs: int = 10


def d2l(variant: Variant) -> Recipe:
    """As published: plain SGD at a constant rate, Xavier initialisation, ReLU on the logits.

    Source: "Dive into Deep Learning", sections 8.3 (NiN) and 8.1 (initialisation). It starts very
    slowly, and at a rate of 0.1 it often never leaves chance.
    """
    return Recipe(lr=variant.published_lr)


def modern(variant: Variant) -> Recipe:
    """Learn from the first steps; one setting for every variant.

    At the start each block is one convolution and a ReLU: its 1x1 layers begin as the identity.
    Muon (Jordan et al. 2024) then takes steps of the same size in all directions of a kernel.
    Warm-up, cosine decay (Loshchilov and Hutter 2017), clipped gradients, and no ReLU on the
    logits. What it reaches: ``benchmarks/results/modern.md``.
    """
    del variant
    return Recipe(
        lr=0.02,
        optimizer="muon",
        momentum=0.95,
        nesterov=True,
        weight_decay=0.01,
        schedule="cosine",
        warmup=0.1,
        clip_norm=1.0,
        init="identity",
        logit_relu=False,
        batch_size=64,
    )


RECIPES: Mapping[str, Callable[[Variant], Recipe]] = {"d2l": d2l, "modern": modern}


@dataclass(frozen=True)
class TrainConfig:
    """Train a Network in Network. An option not given takes the recipe's value."""

    variant: str = "nin"
    """Network: a built-in name (see --list-variants), or a .json or .toml file."""

    recipe: str = "d2l"
    """How to train: d2l (as published) or modern (reaches more, sooner)."""

    dataset: str | None = None
    """fashion_mnist, mnist, kmnist, digits, tfds:NAME or folder:PATH. Default: fashion_mnist, or
    digits if that is neither on the machine nor to be had from the network."""

    data_dir: Path | None = None
    """Folder with the data set's files. Default: $NIN_DATA_DIR, or the user's data folder."""

    workdir: Path | None = None
    """Folder for all that the run writes. Default: a new one under runs/."""

    resume: bool = False
    """Continue the run in --workdir from its last checkpoint."""

    checkpoint_every: str = "10min"
    """How often to save within an epoch: 200 is steps, 10min or 30s is time. The end of an epoch is
    always saved."""

    keep_checkpoints: int = 2
    """How many of the newest checkpoints to keep, besides the best."""

    skip_nonfinite: bool = False
    """Leave out, and count, steps whose gradient is not finite. Default: such a step ends the
    run, and what made it is kept."""

    deterministic: bool = False
    """On a GPU, only operations that give the same bits each time, at some cost in speed. A CPU's
    always do."""

    image_size: int | tuple[int, int] | None = None
    """Side of the resized images, or height and width, in pixels (recipes: 224)."""

    batch_size: int | None = None
    """Images per optimiser step (d2l: 128, modern: 64)."""

    micro_batch_size: int | None = None
    """Images worked on at a time within a batch; their gradients add up to the batch's. Default: on
    a CPU as many as suit its caches, elsewhere the whole batch."""

    steps_per_dispatch: int | None = None
    """Optimiser steps that the device is given at once. Default: 1 on a CPU, 10 elsewhere."""

    epochs: int | None = None
    """Passes over the training images (recipes: 10)."""

    steps: int | None = None
    """Train at least that many optimiser steps, in whole epochs: a small dataset is passed over
    more often. In place of --epochs."""

    limit_train: int | None = None
    """Use only that many training images, the first ones. Default: all."""

    limit_test: int | None = None
    """Use only that many test images, the first ones. Default: all."""

    holdout: int | None = None
    """Set aside that many training images, the last ones, and evaluate on them and not on the test
    images: for choosing a recipe without a look at the test."""

    num_classes: int | None = None
    """Number of logits. Default: as many as the data set has classes."""

    seed: int = 0
    """Of the initial weights, the order of the images, dropout and augmentation."""

    init_from: str | None = None
    """Start from these weights: a run's folder, a .safetensors file, or pretrained:NAME. Layers
    that another number of channels or classes changes are drawn anew. Default: all are drawn."""

    freeze: bool = False
    """With --init-from, train the head alone; all other layers keep their weights."""

    precision: Precision = "float32"
    """Of the computation; parameters, logits and loss are float32 always."""

    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where to run; auto takes a GPU if JAX finds one."""

    devices: int | Literal["all"] = "all"
    """Divide each batch over that many devices."""

    shard_params: bool = False
    """Keep on each device a slice of the parameters and of the optimiser's state, not all of
    them."""

    feed: Literal["auto", "resident", "stream"] = "auto"
    """Where the training images are: resident keeps all of them on every device, stream reads each
    device's share of the batches as they are needed. Default: resident where they fit and one
    process runs."""

    distributed: bool = False
    """Run as one of several processes. SLURM tells the rest, and so do Open MPI and Kubernetes
    where JAX finds them; elsewhere give the next three."""

    coordinator: str | None = None
    """Host and port at which the first process can be reached by all, as 10.0.0.1:1234."""

    processes: int | None = None
    """How many processes there are."""

    process_index: int | None = None
    """Which of them this one is, from 0."""

    optimizer: Optimizer | None = None
    """Optimizer (d2l: sgd, modern: muon)."""

    lr: float | None = None
    """Peak learning rate (d2l: the variant's published one; modern: 0.02)."""

    lr_batch_size: int | None = None
    """Batch size that the rate is meant for: it is multiplied by the run's batch size over this one
    (Goyal et al. 2017), for large batches, with --warmup. Default: the rate as it is."""

    momentum: float | None = None
    """Momentum of SGD and Muon, in [0, 1) (d2l: 0, modern: 0.95)."""

    nesterov: bool | None = None
    """Nesterov's form of momentum (d2l: no, modern: yes)."""

    weight_decay: float | None = None
    """Decay of kernels, not biases, per unit of rate and step (d2l: 0, modern: 0.01)."""

    schedule: Schedule | None = None
    """Of the rate after warm-up; cosine falls to 0 (d2l: constant, modern: cosine)."""

    warmup: float | None = None
    """Share of the run over which the learning rate rises, in [0, 1) (d2l: 0, modern: 0.1)."""

    clip_norm: float | None = None
    """Largest global norm of the gradient; 0 leaves it alone (d2l: 0, modern: 1)."""

    label_smoothing: float | None = None
    """Share of each label spread over all classes, in [0, 1) (recipes: 0)."""

    init: Init | None = None
    """Initialisation (d2l: xavier, modern: identity)."""

    logit_relu: bool | None = None
    """ReLU after the last convolution (d2l: yes, modern: no)."""

    augment: Augment | None = None
    """Random left-right flips, and moves by up to 1/14 of the side (recipes: none)."""

    compilation_cache: bool = True
    """Keep compiled programs in the user's cache folder, for a quick next start."""

    list_variants: bool = False
    """Print the built-in networks with their parameters and MACs, and stop."""


def recipe_of(config: TrainConfig) -> Recipe:
    """The configuration's recipe with what the configuration overrules; both checked.

    Raises:
        UserError: the recipe is unknown, or a value is out of range.
    """
    if not isinstance(config.recipe, str) or config.recipe not in RECIPES:
        raise unknown_name("recipe", str(config.recipe), RECIPES)
    overruled: dict[str, Any] = {
        field.name: getattr(config, field.name)
        for field in fields(Recipe)
        if getattr(config, field.name) is not None
    }
    recipe = replace(RECIPES[config.recipe](get_variant(config.variant)), **overruled)
    for name in (
        "micro_batch_size",
        "steps_per_dispatch",
        "steps",
        "limit_train",
        "limit_test",
        "holdout",
        "keep_checkpoints",
        "devices",
        "processes",
        "process_index",
        "lr_batch_size",
        "num_classes",
        "seed",
        "init_from",
    ):
        _check(name, getattr(config, name))
    for field in fields(Recipe):
        _check(field.name, getattr(recipe, field.name))
    for name, hint in get_type_hints(TrainConfig).items():
        _check_choice(name, hint, getattr(recipe, name, getattr(config, name)))
    if config.lr_batch_size is not None:
        recipe = replace(recipe, lr=recipe.lr * recipe.batch_size / config.lr_batch_size)
    if config.steps is not None and config.epochs is not None:
        raise UserError("give --steps or --epochs, not both")
    if recipe.lr > LARGEST:
        raise UserError(f"--lr must be at most {LARGEST:g}, got {recipe.lr:g}")
    if config.freeze and config.init_from is None:
        raise UserError(
            "--freeze needs --init-from, the weights that are kept: layers drawn at random and "
            "never trained are of no use"
        )
    if recipe.nesterov and recipe.optimizer != "adam" and recipe.momentum == 0:
        raise UserError("--nesterov needs --momentum above 0")
    return recipe


# float32 holds no number much larger.
LARGEST = 1e30


def _check_choice(name: str, hint: Any, value: Any) -> None:
    """What the command line checks by itself, for configurations made in Python."""
    options = (hint, *get_args(hint)) if get_origin(hint) is not Literal else (hint,)
    choices = [c for option in options if get_origin(option) is Literal for c in get_args(option)]
    if int in options and isinstance(value, int):
        return
    if choices and value is not None and value not in choices:
        raise UserError(
            f"--{name.replace('_', '-')} must be one of {', '.join(choices)}, got {value!r}"
        )


def _whole(least: int, below: float = math.inf) -> Callable[[Any], bool]:
    return lambda v: isinstance(v, int) and not isinstance(v, bool) and least <= v < below


def _number(allowed: Callable[[float], bool]) -> Callable[[Any], bool]:
    def check(v: Any) -> bool:
        return isinstance(v, int | float) and not isinstance(v, bool) and bool(allowed(v))

    return check


_COUNT = (_whole(1), "a whole number >= 1")
_SHARE = (_number(lambda v: 0 <= v < 1), "a number in [0, 1)")
_NOT_NEGATIVE = (_number(lambda v: 0 <= v < math.inf), "a finite number >= 0")
_RULES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "batch_size": _COUNT,
    "micro_batch_size": _COUNT,
    "steps_per_dispatch": _COUNT,
    "epochs": _COUNT,
    "steps": _COUNT,
    "limit_train": _COUNT,
    "limit_test": _COUNT,
    "holdout": _COUNT,
    "keep_checkpoints": _COUNT,
    "devices": _COUNT,
    "processes": _COUNT,
    "process_index": (_whole(0), "a whole number >= 0"),
    "lr_batch_size": _COUNT,
    "num_classes": _COUNT,
    "seed": (_whole(0, 2**32), "a whole number in [0, 2**32)"),
    "init_from": (lambda v: isinstance(v, str), "a run's folder, a file, or pretrained:NAME"),
    "lr": (_number(lambda v: 0 < v < math.inf), "a finite number > 0"),
    "weight_decay": _NOT_NEGATIVE,
    "clip_norm": _NOT_NEGATIVE,
    "momentum": _SHARE,
    "warmup": _SHARE,
    "label_smoothing": _SHARE,
}


def _check(name: str, value: Any) -> None:
    if name not in _RULES or value is None or (name, value) == ("devices", "all"):
        return
    holds, wanted = _RULES[name]
    if not holds(value):
        raise UserError(f"--{name.replace('_', '-')} must be {wanted}, got {value!r}")
