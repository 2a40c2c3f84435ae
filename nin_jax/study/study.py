"""The study: runs what is missing from the grid, then makes the page."""

import json
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from nin_jax.accounting.account import account
from nin_jax.data.datasets import Dataset, load_dataset
from nin_jax.errors import UserError, unknown_name
from nin_jax.inference.class_maps import explain_images
from nin_jax.models.geometry import trace
from nin_jax.models.variants import get_variant, list_variants
from nin_jax.reading import shown
from nin_jax.runs import manifest, workdir
from nin_jax.runs.preparation import load_data
from nin_jax.study import content, figures, grid, page
from nin_jax.study.cell import run_cell
from nin_jax.study.config import StudyConfig
from nin_jax.study.grid import RESULTS, Cell, Row, Setting
from nin_jax.study.networks import Networks, count, key, measure
from nin_jax.study.story import GALLERY, Story, read_story
from nin_jax.study.summary import summarise
from nin_jax.training.config import RECIPES

SHOWN = 4  # right pictures, and as many wrong ones

MAX_SEEDS = 1000
# Of --quick: 80 steps each, in which these networks learn; the larger ones would take longer.
QUICK = Setting(image_size=67, epochs=2, limit_train=2560, limit_test=1000)
QUICK_VARIANTS = ("nin", "nin_one_1x1", "nin_three_1x1", "nin_3x3", "nin_fc")


def make_study(config: StudyConfig, command: Sequence[str]) -> Path:
    """Run the grid as far as it is not done, and write the page.

    Args:
        config: as the command line has it.
        command: for the page.

    Returns:
        The page's path.

    Raises:
        UserError: something in the grid cannot be run, or the folder holds another study.
    """
    setting, cells = _plan(config)
    workdir.check_folder("--out", config.out)
    rows = grid.read_results(config.out / RESULTS)
    story = read_story(config.out)
    if config.page_only:
        if not rows:
            raise UserError(f"{config.out} holds no results: run the study without --page-only")
        return _write(rows, story, config.out)
    done = {row["cell"] for row in rows}
    missing = [cell for cell in cells if cell.name not in done]
    dataset = load_dataset(setting.dataset, setting.data_dir)
    setting = replace(setting, dataset=dataset.name)
    _check_same_study(rows, setting, {cell.recipe for cell in cells}, config.out)
    console = Console(highlight=False, soft_wrap=True)
    workdir.make_folder("--out", config.out)
    story.class_names = list(dataset.class_names)
    if list(command) not in story.commands:
        story.commands.append(list(command))
    try:
        _run(missing, rows, setting, config.out, console)
        _count_and_time(rows, setting, story.networks, config.times, console)
        story.gallery = _gallery(rows, dataset, config.out, config.gallery) or story.gallery
    finally:  # an interrupted study has its page too
        story.write(config.out)
        path = _write(rows, story, config.out) if rows else None
    assert path is not None
    console.print(f"wrote {path}", markup=False)
    return path


def _plan(config: StudyConfig) -> tuple[Setting, list[Cell]]:
    for recipe in config.recipes:
        if recipe not in RECIPES:
            raise unknown_name("recipe", recipe, RECIPES)
    variants = config.variants or (QUICK_VARIANTS if config.quick else tuple(list_variants()))
    for variant in variants:
        get_variant(variant)
    names = [Path(variant).stem for variant in variants]
    if len(set(names)) < len(names):
        raise UserError(f"--variants has two of one name: {', '.join(names)}")
    if config.gallery is not None and manifest.load_model(config.gallery).linear is not None:
        raise UserError(f"--gallery {config.gallery}: its network has no class maps")
    if not 1 <= config.seeds <= MAX_SEEDS:
        raise UserError(
            f"--seeds must be a whole number >= 1 and <= {MAX_SEEDS:,}, got {config.seeds}"
        )
    if config.quick:
        setting = replace(QUICK, dataset=config.dataset, data_dir=config.data_dir)
        cells = grid.cells(variants, ("modern",), 1, None)
    else:
        setting = Setting(
            config.dataset,
            config.data_dir,
            config.image_size,
            config.epochs,
            config.limit_train,
            config.limit_test,
            config.holdout,
        )
        ablation = None if config.ablation == "none" else config.ablation
        if ablation is not None and (ablation not in variants or "modern" not in config.recipes):
            ablation = None  # nothing to compare its runs with
        cells = grid.cells(variants, config.recipes, config.seeds, ablation, config.changes)
    grid.check(cells, setting)
    return setting, cells


def _check_same_study(
    rows: Sequence[Row], setting: Setting, recipes: Collection[str], out: Path
) -> None:
    """Refuse to add runs to others that they would be compared with and that differ from them.

    A recipe has one size, length and set of images. Another recipe may have others, on the same
    data set.
    """
    now = _comparable(setting)
    for row in rows:
        was = row["setting"]
        names = now if row["recipe"] in recipes else ("dataset", "holdout")
        differences = [
            f"{name} {shown(was.get(name))} and not {shown(now[name])}"
            for name in names
            if was.get(name) != now[name]
        ]
        if differences:
            raise UserError(
                f"{out} holds results of {', '.join(differences)} for recipe {row['recipe']}: give "
                "another --out"
            )


def _comparable(setting: Setting) -> dict[str, Any]:
    """What a recipe's rows share, as JSON gives it back; where the data lie is no part of it."""
    return json.loads(json.dumps(asdict(replace(setting, data_dir=None))))


def _run(
    missing: Sequence[Cell], rows: list[Row], setting: Setting, out: Path, console: Console
) -> None:
    """Runs cells and adds their rows, to the list and to the file."""
    rates: list[float] = []  # seconds a multiply-add
    for number, cell in enumerate(missing):
        left = sum(_work(c, setting) for c in missing[number:])
        estimate = f", about {_duration(left * np.median(rates))} left" if rates else ""
        console.rule(f"{cell.name}: run {number + 1} of {len(missing)}{estimate}")
        started = time.perf_counter()
        row = run_cell(cell, setting, out / "runs") | {"setting": _comparable(setting)}
        rates.append((time.perf_counter() - started) / _work(cell, setting))
        grid.append_result(out / RESULTS, row)
        rows.append(row)


def _work(cell: Cell, setting: Setting) -> float:
    """Multiply-adds of an image, and some for what each run takes whatever its network."""
    return 5e7 + account(cell.variant, image_size=setting.image_size, xla=False).macs


def _duration(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _count_and_time(
    rows: Sequence[Row], setting: Setting, known: Networks, times: bool, console: Console
) -> None:
    """Add to what is known of the networks that were run.

    If any of them was not timed yet, all are, so that they are timed in turns.
    """
    configs = {
        key(row["variant"], row["recipe"]): Cell(row["variant"], row["recipe"], 0).config(
            replace(setting, image_size=row["image_size"][0]), Path(), resume=False
        )
        for row in rows
        if not row["change"]
    }
    if not configs:
        return
    dataset = load_data(next(iter(configs.values())))
    for name, config in configs.items():
        known[name] = known.get(name, {}) | count(config, dataset)
    if times and not all("step_ms" in known[name] for name in configs):
        console.rule(f"what {len(configs)} networks cost")
        say = partial(console.print, markup=False)
        for name, found in measure([*configs.values()], dataset, say).items():
            known[name] |= found


def _write(rows: Sequence[Row], story: Story, out: Path) -> Path:
    """Write index.html, study.md, study.csv, and accuracy against time for each recipe."""
    ordered = sorted(rows, key=_place)
    groups = summarise(ordered, story.networks)
    study = content.Study(ordered, groups, story.class_names, story.commands, story.pictures(out))
    texts = {
        "study.md": content.as_markdown(study),
        "study.csv": content.as_csv(study.groups),
        "index.html": page.as_html(study),
    }
    for recipe in study.recipes:
        if measured := study.measured(recipe):
            texts[f"accuracy-{recipe}.svg"] = figures.accuracy_against_time(
                measured, figures.LIGHT, paper="#ffffff"
            )
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8")
    return out / "index.html"


def _place(row: Row) -> tuple[bool, str, int, int, int]:
    """Return where a run stands among the others, in whatever order they were made."""
    variants, changes = list_variants(), list(grid.ABLATION)
    variant, change = (
        names.index(name) if name in names else len(names)
        for name, names in ((row["variant"], variants), (row["change"], changes))
    )
    return bool(row["change"]), row["recipe"], variant, change, row["seed"]


def _gallery(
    rows: Sequence[Row], dataset: Dataset, out: Path, given: Path | None
) -> list[dict[str, str]]:
    """Draws right and wrong test images into ``gallery/``; file names and captions.

    By the run that was given, or by the one of this study whose maps are the largest; maps of a
    single pixel show nothing and are not drawn.
    """
    from nin_jax.plotting import plot_class_maps  # matplotlib is slow to import

    if given is None:
        given = _largest_maps(rows, out)
    if given is None:
        return []
    model = manifest.load_model(given)
    labels = dataset.test.labels[:256]
    found = explain_images(model, dataset.test.images[:256])
    said = np.array([explanation.logits.argmax() for explanation in found])
    chosen = [*np.flatnonzero(said == labels)[:SHOWN], *np.flatnonzero(said != labels)[:SHOWN]]
    workdir.make_folder("--out", out / GALLERY)
    pictures = []
    for i in chosen:
        truth, answer = (dataset.class_names[n] for n in (labels[i], said[i]))
        caption = f"{given.name}, test image {i}: {truth}, taken for {answer}"
        path = out / GALLERY / f"{i:05d}.png"
        plot_class_maps(found[i].image, found[i].maps, dataset.class_names, caption, path)
        pictures.append({"file": f"{i:05d}.png", "caption": caption})
    return pictures


def _largest_maps(rows: Sequence[Row], out: Path) -> Path | None:
    """The folder of the run to explain pictures by, if any has maps of more than a pixel."""
    best, largest = None, 1
    for row in sorted(rows, key=lambda row: row["recipe"] != "modern"):
        folder, variant = out / "runs" / row["cell"], get_variant(row["variant"])
        if row["collapsed"] or row["change"] or variant.classifier != "mean":
            continue
        channels, classes = 1, len(row["test_accuracy_per_class"])
        sides = trace(variant, channels, classes, tuple(row["image_size"]))[-1].in_shape[:2]
        if sides[0] * sides[1] > largest and (folder / workdir.WEIGHTS).exists():
            best, largest = folder, sides[0] * sides[1]
    return best
