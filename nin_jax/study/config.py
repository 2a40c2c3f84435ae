"""The options of scripts/study.py."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

from nin_jax.errors import UserError, option_of, unknown_name
from nin_jax.models.variants import EXERCISE, VARIANTS, get_variant
from nin_jax.reading import shown
from nin_jax.study import gallery, grid
from nin_jax.study.grid import Cell, Setting
from nin_jax.training.recipes import RECIPES

MAX_SEEDS = 1000
# Of --quick: 80 steps each, in which these networks learn. The others would take longer.
QUICK = Setting(image_size=67, epochs=2, limit_train=2560, limit_test=1000)
QUICK_VARIANTS = ("nin", "nin_one_1x1", "nin_three_1x1", "nin_3x3", "nin_fc")


@dataclass(frozen=True)
class StudyConfig(Setting):
    """Train a grid of variants, recipes and seeds, and write a page with the results.

    A study can be stopped at any time: the same command continues it and repeats no finished run.
    The page is study/index.html, with results.jsonl, study.md and study.csv beside it. A study can
    also be run in parts: commands with the same --out add up, and each recipe may have its own
    image size, length and limits.
    """

    variants: tuple[str, ...] = ()
    """Networks. Default: the ten of the exercise."""

    recipes: tuple[str, ...] = ("d2l", "modern")
    """Recipes."""

    seeds: int = 3
    """Runs of each variant and recipe, with seeds from 0."""

    ablation: Literal["none", "nin"] = "nin"
    """Also run this variant with recipe modern and one ingredient changed at a time. It does
    nothing if the grid lacks the variant or the recipe."""

    changes: tuple[str, ...] = ()
    """Also run every recipe with these changes, each a list of fields of the recipe: lr=0.06, or
    "optimizer=adam, lr=0.001"."""

    out: Path = Path("study")
    """Folder for the results, the page and the runs."""

    gallery: Path | None = None
    """Folder of the run whose class maps the page shows. Default: the run of this study with the
    largest maps, if they have more than one pixel."""

    times: bool = True
    """At the end, time a training step of every network of the study, in turns, if any has not been
    timed. For a study in parts, use --no-times for all parts but the last."""

    quick: bool = False
    """A small study of about ten minutes on a laptop: five networks at 67x67, recipe modern, 80
    steps, one seed. Options for recipes, size, epochs, limits and seeds are refused."""

    page_only: bool = False
    """Write the page from the results that exist, and run nothing."""


def plan(config: StudyConfig) -> tuple[Setting, list[Cell]]:
    """Return the setting and the cells of a study.

    Raises:
        UserError: an option has a wrong value, or a cell cannot be run.
    """
    if not config.recipes:
        raise UserError("--recipes needs the name of one or more recipes")
    for recipe in config.recipes:
        if recipe not in RECIPES:
            raise unknown_name("recipe", recipe, RECIPES)
    variants = config.variants or (QUICK_VARIANTS if config.quick else EXERCISE)
    for variant in variants:
        built_in = VARIANTS.get(Path(variant).stem)
        if built_in not in (None, get_variant(variant)):
            raise UserError(
                f"{shown(variant)} has the name of a built-in variant and is another network: "
                "rename the file"
            )
    names = [Path(variant).stem for variant in variants]
    if len(set(names)) < len(names):
        raise UserError(f"--variants has the same name twice: {', '.join(names)}")
    if config.gallery is not None:
        if config.page_only:
            raise UserError("--gallery does nothing with --page-only")
        gallery.check(config.gallery)
    if not 1 <= config.seeds <= MAX_SEEDS:
        raise UserError(
            f"--seeds must be a whole number >= 1 and <= {MAX_SEEDS:,}, got {config.seeds}"
        )
    if config.quick:
        _check_quick(config)
        setting = replace(QUICK, dataset=config.dataset, data_dir=config.data_dir)
        cells = grid.cells(variants, ("modern",), 1, None)
    else:
        setting = Setting(**{field.name: getattr(config, field.name) for field in fields(Setting)})
        # Without the unchanged runs there is nothing to compare the ablation with.
        compared = config.ablation in variants and "modern" in config.recipes
        ablation = config.ablation if compared else None
        cells = grid.cells(variants, config.recipes, config.seeds, ablation, config.changes)
    grid.check(cells, setting)
    return setting, cells


def _check_quick(config: StudyConfig) -> None:
    """Refuse the options that --quick would replace."""
    names = [field.name for field in fields(Setting) if field.name not in ("dataset", "data_dir")]
    for name in (*names, "recipes", "seeds", "ablation", "changes"):
        if getattr(config, name) != getattr(StudyConfig, name):
            raise UserError(f"{option_of(name)} does nothing with --quick")
