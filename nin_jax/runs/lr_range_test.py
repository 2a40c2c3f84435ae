"""The learning rate range test (Smith 2015, arXiv 1506.01186): which rates can a run use?

The rate rises exponentially from step to step, and the training loss is recorded. The loss falls
while the rate is useful and rises when it is too large.
"""

import contextlib
import math
from collections.abc import Generator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import optax
from pydantic import Field

from nin_jax.errors import UserError, one_line, option_of
from nin_jax.models.geometry import check_image_size
from nin_jax.models.summary import describe
from nin_jax.models.variants import get_variant
from nin_jax.runs import failure, manifest, workdir
from nin_jax.runs.preparation import Run, epoch_order, load_spec, make_feed, prepare_run
from nin_jax.runs.trained import read_weights
from nin_jax.runs.writers import Screen
from nin_jax.tables import plain_text
from nin_jax.training.config import RecipeOptions, SetupOptions, TrainConfig, recipe_of
from nin_jax.training.device import (
    keep_freed_memory,
    make_deterministic,
    select_device,
    use_compilation_cache,
)
from nin_jax.training.recipes import Recipe
from nin_jax.validation import FilePath, to_json, validated

MEMORY = 0.9  # of the smoothed loss: the part that is kept at each step
DIVERGED = 4.0  # the test ends when the smoothed loss is this many times its lowest value
FALL = 0.05  # the loss must fall by this share for a suggestion
LINES = 15  # of the table
RULE = "a tenth of the rate at which the smoothed loss was lowest"
# The test sets these itself.
REPLACED = ("epochs", "lr", "schedule", "lr_steps", "lr_factor", "warmup")

Rate = Annotated[float, Field(ge=1e-12, le=1e6)]


@validated(options=True)
class FindLrConfig(RecipeOptions, SetupOptions):
    """Find a learning rate: train with a rate that rises at each step, and see how the loss falls.

    The options are those of scripts/train.py; an option that is not given has the recipe's value.
    Prints a table and a suggestion, writes find_lr.png and find_lr.json, and keeps nothing else.
    """

    lr_from: Rate = 1e-5
    """Learning rate of the first step."""

    lr_to: Rate = 10.0
    """Learning rate of the last step."""

    test_steps: Annotated[int, Field(ge=10, le=1_000_000)] = 200
    """Steps of the test, each with a larger learning rate; it ends early if the loss diverges."""

    out: FilePath = Path()
    """Folder for find_lr.png and find_lr.json. Default: the current folder."""


@dataclass(frozen=True)
class RangeTest:
    """The result of a test.

    Attributes:
        rates: float [n], the learning rate of each step that was taken.
        losses: float [n], the loss of its batch, in nats; only the last can be not finite.
        smoothed: float [n], their running mean.
        diverged: whether the loss ended the test.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    diverged: bool

    def suggestion(self) -> tuple[float | None, str]:
        """Return the suggested learning rate, or None, and the rule or the reason."""
        finite = self.smoothed[np.isfinite(self.smoothed)]
        if len(finite) == 0 or finite.min() > (1 - FALL) * finite[0]:
            return None, (
                f"the loss has not fallen by {FALL:.0%} at any rate: try more --test-steps, a "
                "larger --lr-to, or --recipe modern"
            )
        lowest = int(finite.argmin())
        if lowest == len(self.rates) - 1:
            return None, "the loss was lowest at the last rate: raise --lr-to"
        return float(f"{self.rates[lowest] / 10:.2g}"), RULE


def find_lr(config: FindLrConfig) -> RangeTest:
    """Run the test, print its table and suggestion, and write its figure and numbers.

    Raises:
        UserError: an option is wrong or has no effect here, as for `fit`, or memory is too small.
    """
    plain = _checked(config)
    workdir.check_folder("--out", config.out)
    make_deterministic(config.deterministic)
    keep_freed_memory()
    select_device(config.device)
    use_compilation_cache(config.compilation_cache)
    initial = None if config.init_from is None else read_weights(config.init_from)
    last, growth = config.test_steps - 1, config.lr_to / config.lr_from
    schedule = optax.exponential_decay(config.lr_from, last, growth)
    run = prepare_run(load_spec(plain), initial, schedule)
    with jax.set_mesh(run.layout.mesh), failure.memory_errors(run):
        test = _test(run, config.test_steps)
    print(table(test))
    workdir.make_folder("--out", config.out)
    _write(config, run, test)
    return test


def _checked(config: FindLrConfig) -> TrainConfig:
    """Return the configuration of the run whose rate is looked for, with one epoch or more."""
    for name in REPLACED:
        if getattr(config, name) is not None:
            raise UserError(
                f"{option_of(name)} has no effect here: the test sets the learning rates, "
                "from --lr-from to --lr-to, and takes --test-steps"
            )
    if not config.lr_from < config.lr_to:
        raise UserError(f"--lr-from {config.lr_from:g} must be below --lr-to {config.lr_to:g}")
    names = [field.name for options in (SetupOptions, Recipe) for field in fields(options)]
    given: dict[str, Any] = {name: getattr(config, name) for name in names}
    plain = TrainConfig(**given, steps=config.test_steps)
    check_image_size(get_variant(plain.variant), recipe_of(plain).image_size)
    return plain


def _test(run: Run, steps: int) -> RangeTest:
    """Take the steps, and show their losses, until the loss diverges."""
    losses: list[float] = []
    smoothed: list[float] = []
    mean, diverged = 0.0, False
    with Screen(steps) as screen, contextlib.closing(_figures(run)) as figures:
        screen.line(
            f"{describe(run.model.variant, **run.geometry)}\n{run.dataset.name}, recipe "
            f"{run.config.recipe}, {run.recipe.optimizer}: {steps} steps with learning rates from "
            f"{run.learning_rates[0]:.3g} to {run.learning_rates[steps - 1]:.3g}"
        )
        for step, (loss, accuracy) in zip(range(1, steps + 1), figures, strict=False):
            mean = MEMORY * mean + (1 - MEMORY) * loss
            losses.append(loss)
            smoothed.append(mean / (1 - MEMORY**step))
            row = {"step": step, "train_loss": loss, "train_accuracy": accuracy}
            screen.step(row | {"images_per_second": None})
            last = smoothed[-1]
            diverged = not math.isfinite(last) or last > DIVERGED * min(smoothed)
            if diverged:
                break
    rates = run.learning_rates[: len(losses)].astype(float)
    return RangeTest(rates, np.array(losses), np.array(smoothed), diverged)


def _figures(run: Run) -> Generator[tuple[float, float], None, None]:
    """Train, and yield loss and accuracy of each step."""
    feed, step = make_feed(run), 0
    for epoch in range(run.recipe.epochs):
        for chunk in feed.chunks(epoch_order(run, epoch), step):
            end = step + chunk.steps
            while step < end:
                count = min(end - step, run.steps_per_dispatch)
                sums = jax.device_get(run.take_steps(chunk, count).sums)
                for loss, correct, images in zip(
                    *(each[:count].tolist() for each in (sums.loss, sums.correct, sums.count)),
                    strict=True,
                ):
                    yield loss / images, correct / images
                step += count


def table(test: RangeTest) -> str:
    """Return a table of the test, and its suggestion in a last line."""
    some = np.unique(np.linspace(0, len(test.rates) - 1, LINES).round().astype(int))
    rows = [
        (f"{test.rates[i]:.3g}", f"{test.losses[i]:.4f}", f"{test.smoothed[i]:.4f}") for i in some
    ]
    headings = ("learning rate", "loss", "smoothed loss")
    ends = f"the loss diverged at {test.rates[-1]:.3g}\n" if test.diverged else ""
    rate, why = test.suggestion()
    suggestion = f"no suggestion: {why}" if rate is None else f"suggested --lr {rate:g} ({why})"
    return f"{plain_text(headings, rows, ('right',) * 3)}\n{ends}{suggestion}"


def _write(config: FindLrConfig, run: Run, test: RangeTest) -> None:
    from nin_jax.plotting import plot_range_test  # matplotlib is slow to import

    rate, why = test.suggestion()
    title = f"{run.model.variant.name} on {run.dataset.name}, {run.recipe.optimizer}"
    picture, numbers = config.out / "find_lr.png", config.out / "find_lr.json"
    with one_line(f"--out {config.out} is not writable"):
        plot_range_test(test.rates, test.losses, test.smoothed, rate, title, picture)
        manifest.write_json(
            numbers,
            {
                "variant": run.model.variant.name,
                "dataset": run.dataset.name,
                "recipe": to_json(run.recipe) | dict.fromkeys(REPLACED),
                "suggested_lr": rate,
                "reason": why,
                "diverged": test.diverged,
                "learning_rates": test.rates.tolist(),
                "losses": [_plain(loss) for loss in test.losses],
                "smoothed_losses": [_plain(loss) for loss in test.smoothed],
            },
        )
    print(f"wrote {picture} and {numbers}")


def _plain(number: float) -> float | None:
    """Return a number for JSON, which has no infinity and no NaN."""
    return float(number) if math.isfinite(number) else None
