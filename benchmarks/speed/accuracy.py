"""Time to accuracy: `modern` in nin_jax and in PyTorch, and the published recipe in PyTorch.

All train on the same data. Counted: reading the dataset, building the network, compiling, resizing,
and every training step. Not counted: imports of Python libraries, and evaluation on the test set,
which all do after the same numbers of images. A contender stops when it has reached every target,
at the end of its planned epochs, or at the first evaluation after the time limit.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import torch

import nin_torch_ref
from benchmarks.speed import pytorch
from benchmarks.speed.config import BenchConfig
from benchmarks.speed.work import OURS, TORCH, Row, Work, error_text
from nin_jax.data.datasets import Dataset, Split, load_dataset
from nin_jax.data.image_folder import FolderOptions
from nin_jax.models.geometry import trace
from nin_jax.models.variants import get_variant
from nin_jax.runs.preparation import RunSpec, epoch_order, evaluate_run, make_feed, prepare_run
from nin_jax.training.config import TrainConfig, recipe_of
from nin_jax.training.optimizer import make_schedule
from nin_jax.training.recipes import Recipe

# Images between two evaluations: a whole number of batches of both recipes, 64 and 128.
EVALUATE_EVERY = 3200

Evaluation = tuple[int, Callable[[], float]]
"""Images trained on so far, and a function that returns the test accuracy."""


def check(config: BenchConfig) -> None:
    """Check the options against the data.

    Raises:
        UserError: the dataset is missing, or a network cannot take its images.
    """
    variants = [get_variant(variant) for variant in _variants(config)]
    dataset = _dataset(config)
    for variant in variants:
        trace(variant, dataset.image_shape[2], dataset.num_classes, _side(config))


def _variants(config: BenchConfig) -> tuple[str, ...]:
    return config.variants or ("nin",)


def _side(config: BenchConfig) -> int:
    return config.image_size or 96


def _dataset(config: BenchConfig) -> Dataset:
    return load_dataset(config.dataset, config.data_dir, FolderOptions(_side(config)))


def _recipe(config: BenchConfig, variant: str, name: str) -> tuple[TrainConfig, Recipe]:
    """Return configuration and recipe; only `modern` has a planned length."""
    planned: dict[str, Any] = {"epochs": config.epochs} if name == "modern" else {}
    sizes: dict[str, Any] = {"image_size": _side(config), "precision": config.precision}
    train = TrainConfig(variant, name, devices=1, **sizes, **planned)
    return train, recipe_of(train)


def train_ours(config: BenchConfig, variant: str) -> Iterator[Evaluation]:
    """Train nin_jax with `modern` for the planned epochs; yield when an evaluation is due."""
    dataset = _dataset(config)
    train, recipe = _recipe(config, variant, "modern")
    run = prepare_run(RunSpec(train, recipe, dataset))
    feed, images = make_feed(run), len(dataset.train)
    every = EVALUATE_EVERY // recipe.batch_size

    def accuracy() -> float:
        return evaluate_run(run).accuracy

    for epoch in range(recipe.epochs):
        done = 0  # steps of this epoch
        for chunk in feed.chunks(epoch_order(run, epoch), epoch * run.steps_per_epoch):
            end = done + chunk.steps
            while done < end:
                count = min(end - done, run.steps_per_dispatch, every - done % every)
                run.take_steps(chunk, count)
                done += count
                if done % every == 0 or done == run.steps_per_epoch:
                    jax.block_until_ready(run.state.params)
                    yield epoch * images + min(done * recipe.batch_size, images), accuracy


def train_torch(config: BenchConfig, variant: str, name: str) -> Iterator[Evaluation]:
    """Train the PyTorch reference, eager and channels_last; yield when an evaluation is due.

    `modern` trains for the planned epochs, `d2l` without an end. The training images are resized
    once, before the first step: in a run of more than one epoch this costs less than resizing
    every batch.
    """
    dataset = _dataset(config)
    _, recipe = _recipe(config, variant, name)
    work = Work(
        "train",
        variant,
        recipe.batch_size,
        _side(config),
        dataset.image_shape[2],
        num_classes=dataset.num_classes,
    )
    torch.manual_seed(0)
    options: dict[str, Any] = {"init": recipe.init, "logit_relu": recipe.logit_relu}
    model, device = pytorch.create_model(work, channels_last=True, **options)
    steps = -(-len(dataset.train) // recipe.batch_size) * recipe.epochs
    optimizer, schedule = _torch_optimizer(model, recipe, steps)
    half = config.precision == "bfloat16"
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=half)
    images, labels = _tensors(dataset.train, work.sides, device)
    every = EVALUATE_EVERY // recipe.batch_size

    def accuracy() -> float:
        model.eval()
        correct = 0
        with torch.inference_mode(), autocast:
            for start in range(0, len(dataset.test), 500):
                x, y = _tensors(dataset.test[start : start + 500], work.sides, device)
                correct += int((model(_scaled(x)).argmax(1) == y).sum())
        model.train()
        return correct / len(dataset.test)

    for epoch in range(recipe.epochs) if name == "modern" else itertools.count():
        batches = torch.randperm(len(labels)).to(device).split(recipe.batch_size)
        for done, rows in enumerate(batches, start=1):
            batch = _scaled(images[rows]), labels[rows]
            with autocast:
                nin_torch_ref.train_step(model, optimizer, *batch, clip_norm=recipe.clip_norm)
            schedule.step()
            if done % every == 0 or done == len(batches):
                pytorch.finish(device)
                yield epoch * len(labels) + min(done * recipe.batch_size, len(labels)), accuracy


def _torch_optimizer(
    model: torch.nn.Module, recipe: Recipe, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return the optimizer of `d2l` or `modern`, and what sets its learning rate for each step."""
    if recipe.optimizer == "muon":
        optimizer = nin_torch_ref.Muon(
            model.parameters(), recipe.lr, recipe.momentum, recipe.nesterov, recipe.weight_decay
        )
    else:
        optimizer = torch.optim.SGD(model.parameters(), recipe.lr, recipe.momentum)
    rates = np.asarray(jax.vmap(make_schedule(recipe, steps))(np.arange(steps))) / recipe.lr

    def factor(step: int) -> float:
        return float(rates[min(step, steps - 1)])

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _tensors(
    split: Split, size: tuple[int, int], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return uint8 [N, C, *size] and int64 [N]; PyTorch resizes uint8 as Pillow does."""
    images = torch.from_numpy(np.ascontiguousarray(split.images.transpose(0, 3, 1, 2)))
    resized = torch.nn.functional.interpolate(images, size, mode="bilinear", antialias=True)
    return resized.to(device), torch.from_numpy(split.labels.astype(np.int64)).to(device)


def _scaled(images: torch.Tensor) -> torch.Tensor:
    """Return float32 in [0, 1], channels_last."""
    return images.to(torch.float32, memory_format=torch.channels_last).div_(255)


class Contender(NamedTuple):
    """A framework with a recipe, and the function that trains with it."""

    name: str
    recipe: str
    train: Callable[[BenchConfig, str], Iterator[Evaluation]]


CONTENDERS = (
    Contender(OURS, "modern", train_ours),
    Contender(TORCH, "modern", partial(train_torch, name="modern")),
    Contender(TORCH, "d2l", partial(train_torch, name="d2l")),
)


def measure(config: BenchConfig, say: Callable[[str], None]) -> Iterator[Row]:
    """Yield a row for each variant, contender and target, or one with the error of a failure.

    The ``seconds`` of a row end at the first evaluation at or above its target.
    """
    for variant in _variants(config):
        ours: dict[float, float] = {}  # seconds by target
        for contender in CONTENDERS:
            for row in _rows(config, variant, contender, say):
                if "seconds" in row and contender.name == OURS:
                    ours[row["target_accuracy"]] = row["seconds"]
                elif "seconds" in row and ours.get(row["target_accuracy"]):
                    row["over_ours"] = round(row["seconds"] / ours[row["target_accuracy"]], 3)
                yield row


def _rows(
    config: BenchConfig, variant: str, contender: Contender, say: Callable[[str], None]
) -> Iterator[Row]:
    """Train one contender; only the time inside its generator counts."""
    what = f"accuracy {variant}: {contender.name}, recipe {contender.recipe}"
    row: Row = {
        "benchmark": "accuracy",
        "variant": variant,
        "contender": contender.name,
        "recipe": contender.recipe,
    }
    say(what)
    try:
        _, recipe = _recipe(config, variant, contender.recipe)
        row |= {
            "dataset": config.dataset,
            "image_size": _side(config),
            "batch_size": recipe.batch_size,
            "precision": config.precision,
            "cap_seconds": config.cap_seconds,
        }
        if contender.recipe == "modern":
            row["planned_epochs"] = recipe.epochs
        missing, seconds, accuracy, images = list(config.targets), 0.0, 0.0, 0
        evaluations = contender.train(config, variant)
        while missing and seconds < config.cap_seconds:
            start = time.perf_counter()
            evaluation = next(evaluations, None)
            seconds += time.perf_counter() - start
            if evaluation is None:
                break
            images, accuracy = evaluation[0], evaluation[1]()
            say(f"{what}, {images:,} images, {seconds:.0f} s, test accuracy {accuracy:.4f}")
            figures = {"images": images, "test_accuracy": round(accuracy, 4)}
            for target in [t for t in missing if accuracy >= t]:
                missing.remove(target)
                yield row | {"target_accuracy": target, "seconds": round(seconds, 2)} | figures
        for target in missing:
            note = f"not reached in {seconds:.0f} s (accuracy {accuracy:.4f})"
            yield row | {"target_accuracy": target, "note": note}
    except Exception as error:  # whatever a framework raises becomes its row
        yield row | {"error": error_text(error)}
