"""What is asked of a study: its options."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class StudyConfig:
    """Train a grid of variants, recipes and seeds, and make a page of what came out.

    Stop it whenever you like: the same command goes on where it was, and makes no finished run
    again. The page is study/index.html, with results.jsonl, study.md and study.csv beside it. A
    study can also be made in parts: commands with the same --out add up, and each recipe may have
    its own size, length and limits.
    """

    variants: tuple[str, ...] = ()
    """Networks. Default: all."""

    recipes: tuple[str, ...] = ("d2l", "modern")
    """Recipes."""

    seeds: int = 3
    """Runs of each, with seeds from 0; those that are done are not made again."""

    ablation: Literal["none", "nin"] = "nin"
    """Also take the modern recipe apart, for this variant, if both are in the grid: one ingredient
    changed at a time."""

    changes: tuple[str, ...] = ()
    """Also run every recipe changed so: fields of the recipe, such as lr=0.06 or
    "optimizer=adam, lr=0.001"."""

    dataset: str | None = None
    """As for scripts/train.py. Default: fashion_mnist."""

    data_dir: Path | None = None
    """Folder with the data set's files. Default: $NIN_DATA_DIR, or the user's data folder."""

    image_size: int = 224
    """Side of the resized images, in pixels."""

    epochs: int = 10
    """Passes over the training images."""

    limit_train: int | None = None
    """Use only that many training images. Default: all."""

    limit_test: int | None = None
    """Use only that many test images. Default: all."""

    holdout: int | None = None
    """Evaluate on that many training images, set aside, and not on the test images: for choosing
    between --changes without a look at the test."""

    out: Path = Path("study")
    """Folder for the results, the page and the runs."""

    gallery: Path | None = None
    """Folder of a run whose network shows where in test pictures it sees each class. Default: the
    run of this study whose last maps are the largest, if they have more than one pixel."""

    times: bool = True
    """At the end, time a training step of every network of the study, all in turns, if any has not
    been timed. For a study in parts, --no-times leaves that to the last one."""

    quick: bool = False
    """For a laptop, in about ten minutes: five networks at 67x67 with recipe modern, 80 steps, one
    seed; whatever else is given about recipes, size, epochs, limits and seeds is left aside."""

    page_only: bool = False
    """Make the page anew from the results, and run nothing."""
