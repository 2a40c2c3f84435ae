"""The study: runs what is missing from the grid, then makes the page."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from nin_jax import UserError, get_variant, list_variants, record, workdir
from nin_jax.accounting import account
from nin_jax.config import RECIPES
from nin_jax.datasets import Dataset, load_dataset
from nin_jax.errors import unknown_name
from nin_jax.explanation import explain_images
from nin_study import grid, page
from nin_study.grid import RESULTS, Cell, Row, Setting
from nin_study.run import cost, run_cell
from nin_study.summary import summarise

if TYPE_CHECKING:
    from scripts.study import StudyConfig

QUICK = Setting(image_size=67, epochs=2, limit_train=3200, limit_test=1000)
QUICK_SEEDS = 2
GALLERY = 4  # right ones, and as many wrong ones


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
    results = config.out / RESULTS
    workdir.check_folder("--out", config.out)
    rows = grid.read_results(results)
    if config.page_only and not rows:
        raise UserError(f"{config.out} holds no results: run the study without --page-only first")
    _check_same_study(rows, setting, config.out)
    done = {row["cell"] for row in rows}
    missing = [] if config.page_only else [cell for cell in cells if cell.name not in done]
    dataset = load_dataset(setting.dataset, setting.data_dir)
    setting = replace(setting, dataset=dataset.name)
    console = Console(highlight=False, soft_wrap=True)
    workdir.make_folder("--out", config.out)
    try:
        _run(missing, rows, setting, config.out, console)
    finally:  # an interrupted study has its page too
        path = _write(rows, cells, dataset, config.out, command) if rows else None
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
    if config.seeds < 1:
        raise UserError(f"--seeds must be a whole number >= 1, got {config.seeds}")
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
        cells = grid.cells(variants, config.recipes, config.seeds, ablation, config.changes)
    grid.check(cells, setting)
    return setting, cells


def _check_same_study(rows: Sequence[Row], setting: Setting, out: Path) -> None:
    """Results of another size or length would be compared with these."""
    for row in rows:
        was = (row["image_size"][0], row["epochs"])
        if was != (setting.image_size, setting.epochs):
            raise UserError(
                f"{out} holds results of {was[1]} epochs at {was[0]}x{was[0]}, not of "
                f"{setting.epochs} at {setting.image_size}x{setting.image_size}: give another --out"
            )


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
        row = run_cell(cell, setting, out / "runs")
        same = [r for r in rows if (r["variant"], r["recipe"]) == (cell.variant, cell.recipe)]
        row["cost"] = same[0]["cost"] if same else cost(cell.variant, row)
        rates.append((time.perf_counter() - started) / _work(cell, setting))
        grid.append_result(out / RESULTS, row)
        rows.append(row)


def _work(cell: Cell, setting: Setting) -> float:
    """Multiply-adds of an image, and some for what each run takes whatever its network."""
    return 5e7 + account(cell.variant, image_size=setting.image_size, xla=False).macs


def _duration(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _write(
    rows: Sequence[Row], cells: Sequence[Cell], dataset: Dataset, out: Path, command: Sequence[str]
) -> Path:
    """index.html, study.md and study.csv."""
    order = {cell.name: i for i, cell in enumerate(_by_variant(cells))}
    ordered = sorted(rows, key=lambda row: order.get(row["cell"], len(order)))
    study = page.Study(
        ordered, summarise(ordered), dataset.class_names, command, _gallery(ordered, dataset, out)
    )
    texts = {
        "study.md": page.as_markdown(study),
        "study.csv": page.as_csv(study.groups),
        "index.html": page.as_html(study),
    }
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8")
    return out / "index.html"


def _by_variant(cells: Sequence[Cell]) -> list[Cell]:
    return sorted(cells, key=lambda cell: (bool(cell.change), cell.recipe, cell.seed))


def _gallery(rows: Sequence[Row], dataset: Dataset, out: Path) -> list[page.Picture]:
    """Right and wrong test images, by the first run whose network has class maps."""
    from nin_jax.plotting import plot_class_maps  # matplotlib is slow to import

    for row in sorted(rows, key=lambda row: row["recipe"] != "modern"):
        folder = out / "runs" / row["cell"]
        if row["collapsed"] or get_variant(row["variant"]).classifier != "mean":
            continue
        if not (folder / "model.safetensors").exists():
            continue
        model = record.load_model(folder)
        labels = dataset.test.labels[:256]
        found = explain_images(model, dataset.test.images[:256])
        right = [i for i, e in enumerate(found) if e.logits.argmax() == labels[i]][:GALLERY]
        wrong = [i for i, e in enumerate(found) if e.logits.argmax() != labels[i]][:GALLERY]
        pictures = []
        with tempfile.TemporaryDirectory() as scratch:
            for i in (*right, *wrong):
                path = Path(scratch) / f"{i}.png"
                truth = dataset.class_names[labels[i]]
                said = dataset.class_names[int(found[i].logits.argmax())]
                caption = f"{row['cell']}, test image {i}: {truth}, taken for {said}"
                plot_class_maps(found[i], dataset.class_names, caption, path)
                pictures.append(page.Picture(path.read_bytes(), caption))
        return pictures
    return []
