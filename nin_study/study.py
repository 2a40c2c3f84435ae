"""The study: runs what is missing from the grid, then makes the page."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from nin_jax import UserError, get_variant, list_variants, record, workdir
from nin_jax.accounting import account
from nin_jax.config import RECIPES
from nin_jax.datasets import Dataset, load_dataset
from nin_jax.errors import unknown_name
from nin_jax.explanation import explain_images
from nin_jax.geometry import trace
from nin_jax.preparation import load_data
from nin_study import content, figures, grid, page
from nin_study.grid import RESULTS, Cell, Row, Setting
from nin_study.networks import Networks, key, measure
from nin_study.run import run_cell
from nin_study.story import GALLERY, Story, read_story
from nin_study.summary import summarise

if TYPE_CHECKING:
    from scripts.study import StudyConfig

SHOWN = 4  # right pictures, and as many wrong ones

MAX_SEEDS = 1000
QUICK = Setting(image_size=67, epochs=2, limit_train=960, limit_test=400)
QUICK_SEEDS = 1


def make_study(config: "StudyConfig", command: Sequence[str]) -> Path:
    """Runs the grid as far as it is not done, and writes the page.

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
    results = config.out / RESULTS
    rows = grid.read_results(results)
    if config.page_only:
        if not rows:
            raise UserError(f"{config.out} holds no results: run the study without --page-only")
        return _write(rows, cells, read_story(config.out), config.out)
    done = {row["cell"] for row in rows}
    missing = [cell for cell in cells if cell.name not in done]
    dataset = load_dataset(setting.dataset, setting.data_dir)
    setting = replace(setting, dataset=dataset.name)
    _check_same_study(rows, setting, config.out)
    console = Console(highlight=False, soft_wrap=True)
    workdir.make_folder("--out", config.out)
    story = read_story(config.out)
    story.command, story.class_names = list(command), list(dataset.class_names)
    try:
        _run(missing, rows, setting, config.out, console)
        story.networks |= _measure(cells, setting, story.networks, console)
        story.gallery = _gallery(rows, dataset, config.out, config.gallery) or story.gallery
    finally:  # an interrupted study has its page too
        story.write(config.out)
        path = _write(rows, cells, story, config.out) if rows else None
    assert path is not None
    console.print(f"wrote {path}", markup=False)
    return path


def _plan(config: "StudyConfig") -> tuple[Setting, list[Cell]]:
    for recipe in config.recipes:
        if recipe not in RECIPES:
            raise unknown_name("recipe", recipe, RECIPES)
    variants = config.variants or tuple(list_variants())
    for variant in variants:
        get_variant(variant)
    names = [Path(variant).stem for variant in variants]
    if len(set(names)) < len(names):
        raise UserError(f"--variants has two of one name: {', '.join(names)}")
    if config.gallery is not None and record.load_model(config.gallery).linear is not None:
        raise UserError(f"--gallery {config.gallery}: its network has no class maps")
    if not 1 <= config.seeds <= MAX_SEEDS:
        raise UserError(
            f"--seeds must be a whole number >= 1 and <= {MAX_SEEDS:,}, got {config.seeds}"
        )
    if config.quick:
        setting = replace(QUICK, dataset=config.dataset, data_dir=config.data_dir)
        cells = grid.cells(variants, ("modern",), QUICK_SEEDS, None)
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


def _check_same_study(rows: Sequence[Row], setting: Setting, out: Path) -> None:
    """Results of another size, length or data set would be compared with these."""
    now = _comparable(setting)
    for row in rows:
        was = row["setting"]
        if was != now:
            differences = ", ".join(
                f"{name} {was.get(name)} and not {value}"
                for name, value in now.items()
                if was.get(name) != value
            )
            raise UserError(f"{out} holds results of {differences}: give another --out")


def _comparable(setting: Setting) -> dict[str, Any]:
    """What all rows share, as JSON gives it back; where the data lie is no part of it."""
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


def _measure(
    cells: Sequence[Cell], setting: Setting, known: Networks, console: Console
) -> Networks:
    """Costs and speeds of the networks for which they are not known yet."""
    new = {
        key(cell.variant, cell.recipe): cell.config(setting, Path(), resume=False)
        for cell in cells
        if not cell.change and key(cell.variant, cell.recipe) not in known
    }
    if not new:
        return {}
    console.rule(f"what {len(new)} networks cost")
    dataset = load_data(next(iter(new.values())))
    return measure(list(new.values()), dataset, lambda text: console.print(text, markup=False))


def _write(rows: Sequence[Row], cells: Sequence[Cell], story: Story, out: Path) -> Path:
    """index.html, study.md, study.csv, and a picture of accuracy against cost for each recipe."""
    order = {cell.name: i for i, cell in enumerate(_by_variant(cells))}
    ordered = sorted(rows, key=lambda row: order.get(row["cell"], len(order)))
    groups = summarise(ordered, story.networks)
    study = content.Study(ordered, groups, story.class_names, story.command, story.pictures(out))
    texts = {
        "study.md": content.as_markdown(study),
        "study.csv": content.as_csv(study.groups),
        "index.html": page.as_html(study),
    }
    for recipe in study.recipes:
        texts[f"accuracy-{recipe}.svg"] = figures.accuracy_against_costs(
            study.of_recipe(recipe), figures.LIGHT, paper="#ffffff"
        )
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8")
    return out / "index.html"


def _by_variant(cells: Sequence[Cell]) -> list[Cell]:
    return sorted(cells, key=lambda cell: (bool(cell.change), cell.recipe, cell.seed))


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
    model = record.load_model(given)
    labels = dataset.test.labels[:256]
    found = explain_images(model, dataset.test.images[:256])
    said = np.array([explanation.logits.argmax() for explanation in found])
    chosen = [*np.flatnonzero(said == labels)[:SHOWN], *np.flatnonzero(said != labels)[:SHOWN]]
    workdir.make_folder("--out", out / GALLERY)
    pictures = []
    for i in chosen:
        truth, answer = (dataset.class_names[n] for n in (labels[i], said[i]))
        caption = f"{given.name}, test image {i}: {truth}, taken for {answer}"
        plot_class_maps(found[i], dataset.class_names, caption, out / GALLERY / f"{i:05d}.png")
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
