"""Run the missing cells of the grid, then write the page."""

import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from nin_jax.accounting.account import account
from nin_jax.data.datasets import Dataset, load_dataset
from nin_jax.data.image_folder import FolderOptions
from nin_jax.errors import RunError, UserError, one_line
from nin_jax.inference.class_maps import explain_images
from nin_jax.models.variants import get_variant, list_variants
from nin_jax.plotting import plot_class_maps
from nin_jax.reading import shown
from nin_jax.runs import manifest, workdir
from nin_jax.runs.examples import load_data
from nin_jax.runs.trained import load_run
from nin_jax.study import content, figures, grid, page
from nin_jax.study.cell import check_network, run_cell
from nin_jax.study.config import StudyConfig, plan
from nin_jax.study.grid import RESULTS, Cell, Row, Setting
from nin_jax.study.networks import Networks, count, key, measure
from nin_jax.study.statistics import group_rows
from nin_jax.study.story import GALLERY, Story, read_story
from nin_jax.validation import to_json
from nin_jax.writing import replacing

SHOWN = 4  # pictures in the gallery with a right prediction, and as many with a wrong one


def make_study(config: StudyConfig, command: Sequence[str]) -> Path:
    """Run the cells of the grid that have no result yet, and write the page.

    Args:
        config: of the study.
        command: the command line, for the page.

    Returns:
        The page's path.

    Raises:
        UserError: a cell of the grid cannot be run, or the folder holds another study or is in use.
        RunError: a file of the study cannot be written, as on a full disk.
    """
    setting, cells = plan(config)
    workdir.check_folder("--out", config.out)
    workdir.check_for_checkpoints("--out", config.out)
    rows = grid.read_results(config.out / RESULTS)
    story = read_story(config.out)  # a damaged one is an error before anything is done
    if config.page_only:
        if not rows:
            raise UserError(f"{config.out} holds no results: run the study without --page-only")
        return _write(rows, story, config.out)
    options = FolderOptions(setting.image_size, needs_test=setting.holdout is None)
    dataset = load_dataset(setting.dataset, setting.data_dir, options)
    setting = replace(setting, dataset=dataset.name)
    _check_same_study(rows, setting, {cell.recipe for cell in cells}, config.out)
    if config.gallery is not None:
        _check_gallery_fits(config.gallery, dataset)
    workdir.make_folder("--out", config.out)
    with workdir.locked(config.out, "--out"):
        return _add_runs(config, setting, cells, dataset, list(command))


def _add_runs(
    config: StudyConfig,
    setting: Setting,
    cells: Sequence[Cell],
    dataset: Dataset,
    command: list[str],
) -> Path:
    """Run the cells without a result in a folder that no other study can change; return the page.

    Raises:
        UserError: another study has written into the folder just before, with other options.
    """
    rows, story = grid.read_results(config.out / RESULTS), read_story(config.out)
    _check_same_study(rows, setting, {cell.recipe for cell in cells}, config.out)
    done = {row["cell"] for row in rows}
    missing = [cell for cell in cells if cell.name not in done]
    story.class_names = list(dataset.class_names)
    if command not in story.commands:
        story.commands.append(command)
    console = Console(highlight=False, soft_wrap=True, emoji=False)
    try:
        _run(missing, rows, setting, config.out, console)
        _count_and_time(rows, setting, story.networks, config.times, console)
        drawn = _gallery(rows, story.networks, dataset, config.out, config.gallery)
        story.gallery = drawn or story.gallery
    finally:  # an interrupted study gets a page too
        story.write(config.out)
        path = _write(rows, story, config.out) if rows else None
    assert path is not None
    console.print(f"wrote {path}", markup=False)
    return path


def _check_same_study(
    rows: Sequence[Row], setting: Setting, recipes: Collection[str], out: Path
) -> None:
    """Check that new runs can be compared with the existing ones.

    All runs of a recipe have the same image size, length and images; all recipes have the same
    dataset. The networks are those of the runs: the costs are counted from their files.

    Raises:
        UserError: they differ, or a variant's file is gone.
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
        check_network(row["variant"], out / "runs" / row["cell"])


def _check_gallery_fits(folder: Path, dataset: Dataset) -> None:
    """Check that the network of the gallery is for images and classes as those of the study.

    Raises:
        UserError: it does not.
    """
    sizes = manifest.read_run(folder).sizes
    wanted = {"in_channels": dataset.image_shape[2], "num_classes": dataset.num_classes}
    for name, value in wanted.items():
        if sizes[name] != value:
            raise UserError(
                f"--gallery {folder} has {name} {sizes[name]}, and {dataset.name} has {value}"
            )


def _comparable(setting: Setting) -> dict[str, Any]:
    """Return the setting as JSON returns it, without the data's folder, which may differ."""
    return to_json(replace(setting, data_dir=None))


def _run(
    missing: Sequence[Cell], rows: list[Row], setting: Setting, out: Path, console: Console
) -> None:
    """Run the cells and append their rows to the list and to the file."""
    rates: list[float] = []  # seconds per unit of `_work`
    of_variant = {variant: _work(variant, setting) for variant in {c.variant for c in missing}}
    work = [of_variant[cell.variant] for cell in missing]
    for number, cell in enumerate(missing):
        left = sum(work[number:])
        estimate = f", about {_duration(left * np.median(rates))} left" if rates else ""
        console.rule(f"{cell.name}: run {number + 1} of {len(missing)}{estimate}")
        started = time.perf_counter()
        row = run_cell(cell, setting, out / "runs") | {"setting": _comparable(setting)}
        rates.append((time.perf_counter() - started) / work[number])
        grid.append_result(out / RESULTS, row)
        rows.append(row)


def _work(variant: str, setting: Setting) -> float:
    """Return the MACs of an image, plus a constant for the time that does not depend on them."""
    return 5e7 + account(variant, image_size=setting.image_size, xla=False).macs


def _duration(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _count_and_time(
    rows: Sequence[Row], setting: Setting, known: Networks, times: bool, console: Console
) -> None:
    """Add the costs of all networks to ``known``.

    If any network has not been timed yet, all are, so that they are timed in turns.
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
        console.rule(f"costs of {len(configs)} networks")
        say = partial(console.print, markup=False)
        for name, found in measure([*configs.values()], dataset, say).items():
            known[name] |= found


def _write(rows: Sequence[Row], story: Story, out: Path) -> Path:
    """Write index.html, study.md, study.csv, and accuracy against time for each recipe."""
    ordered = sorted(rows, key=_place)
    groups = group_rows(ordered, story.networks)
    study = content.Study(ordered, groups, story.class_names, story.commands, story.pictures(out))
    texts = {
        "study.md": page.as_markdown(study),
        "study.csv": page.as_csv(study.groups),
        "index.html": page.as_html(study),
    }
    for recipe in study.recipes:
        if measured := study.measured(recipe):
            svg = figures.accuracy_against_time(measured, paper="#ffffff")
            texts[f"accuracy-{recipe}.svg"] = svg
    for name, text in texts.items():
        path = out / name
        with one_line(f"cannot write {path}", raised=RunError), replacing(path) as partial:
            partial.write_text(text, encoding="utf-8")
    return out / "index.html"


def _place(row: Row) -> tuple[Any, ...]:
    """Return a sort key that does not depend on the order in which the runs were made."""
    variant = _rank(row["variant"], list_variants())
    change = _rank(row["change"], list(grid.ABLATION))
    return bool(row["change"]), row["recipe"], variant, change, row["seed"]


def _rank(name: str, known: Sequence[str]) -> tuple[int, str]:
    """Return a sort key: known names in their order, then all others by name."""
    return known.index(name) if name in known else len(known), name


def _gallery(
    rows: Sequence[Row], networks: Networks, dataset: Dataset, out: Path, given: Path | None
) -> list[dict[str, str]]:
    """Draw class maps of some test images into ``gallery/``, by the given run.

    Without one, by the run of this study with the largest maps. Maps of a single pixel are not
    drawn.

    Returns:
        File name and caption of each picture.
    """
    if given is None:
        given = _largest_maps(rows, networks, out)
    if given is None or len(dataset.test) == 0:  # of an image folder without test images
        return []
    model = load_run(given)
    labels = dataset.test.labels[:256]
    found = explain_images(model, dataset.test.images[:256])
    predicted = np.array([explanation.logits.argmax() for explanation in found])
    right = predicted == labels
    chosen = [*np.flatnonzero(right)[:SHOWN], *np.flatnonzero(~right)[:SHOWN]]
    workdir.make_folder("--out", out / GALLERY)
    pictures = []
    for i in chosen:
        label, prediction = (dataset.class_names[n] for n in (labels[i], predicted[i]))
        caption = f"{given.name}, test image {i}: {label}, predicted {prediction}"
        path = out / GALLERY / f"{i:05d}.png"
        with one_line(f"cannot write {path}", raised=RunError):
            plot_class_maps(found[i].image, found[i].maps, dataset.class_names, caption, path)
        pictures.append({"file": f"{i:05d}.png", "caption": caption})
    return pictures


def _largest_maps(rows: Sequence[Row], networks: Networks, out: Path) -> Path | None:
    """Return the folder of the run with the largest maps, if they have more than one pixel."""
    best, largest = None, 1
    for row in sorted(rows, key=lambda row: row["recipe"] != "modern"):
        if row["collapsed"] or row["change"] or get_variant(row["variant"]).classifier != "mean":
            continue
        folder = out / "runs" / row["cell"]
        height, width = networks[key(row["variant"], row["recipe"])]["head_map"]
        if height * width > largest and (folder / workdir.WEIGHTS).exists():
            best, largest = folder, height * width
    return best
