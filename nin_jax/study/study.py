"""Run the missing cells of the grid, then write the page."""

import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from nin_jax.accounting.account import account
from nin_jax.data.datasets import Dataset
from nin_jax.errors import DivergedError, Interrupted, RunError, UserError, one_line
from nin_jax.models.variants import list_variants
from nin_jax.reading import shown
from nin_jax.runs import manifest, workdir, writers
from nin_jax.study import content, figures, gallery, grid, page
from nin_jax.study.cell import check_network, data_of, run_cell
from nin_jax.study.config import StudyConfig, plan
from nin_jax.study.grid import RESULTS, Cell, Row, Setting
from nin_jax.study.networks import Networks, count, key, measure
from nin_jax.study.statistics import group_rows
from nin_jax.study.story import Story, read_story
from nin_jax.training.device import keep_freed_memory
from nin_jax.validation import to_json
from nin_jax.writing import replacing

PAGE = "index.html"


def make_study(config: StudyConfig, command: Sequence[str]) -> Path:
    """Run the cells of the grid that have no result yet, and write the page.

    On Linux, glibc keeps freed memory in this process from then on, as after `fit`.

    Args:
        config: of the study.
        command: the command line, for the page.

    Returns:
        The page's path.

    Raises:
        UserError: a cell of the grid cannot be run, or the folder holds another study or is in use.
        RunError: a file of the study cannot be written, as on a full disk, or runs have diverged;
            the others are in the page.
    """
    setting, cells = plan(config)
    workdir.check_folder("--out", config.out)
    workdir.check_for_checkpoints("--out", config.out)
    rows = grid.read_results(config.out / RESULTS)
    story = read_story(config.out)  # a damaged one is an error before anything is done
    if config.page_only:
        if not rows:
            raise UserError(f"{config.out} holds no results: run the study without --page-only")
        with workdir.locked(config.out, "--out"):  # another study may have ended just before
            rows, story = grid.read_results(config.out / RESULTS), read_story(config.out)
            return _write(rows, story, config.out)
    keep_freed_memory()  # as `fit` does: steps are timed alike, after a training or not
    dataset = data_of(cells[0], setting)
    setting = replace(setting, dataset=dataset.name)
    _check_same_study(rows, setting, cells, config.out)
    if config.gallery is not None:
        gallery.check_fits(config.gallery, dataset)
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
        Interrupted: a signal was received; the same command continues.
    """
    rows, story = grid.read_results(config.out / RESULTS), read_story(config.out)
    _check_same_study(rows, setting, cells, config.out)
    done = {row["cell"] for row in rows}
    missing = [cell for cell in cells if cell.name not in done]
    story.diverged = [name for name in story.diverged if name not in done]
    story.class_names = list(dataset.class_names)
    if command not in story.commands:
        story.commands.append(command)
    asked = {cell.name for cell in cells}
    console = writers.OutputConsole()
    try:
        _run(missing, rows, story.diverged, setting, config.out, console)
        _count_and_time(rows, setting, dataset, story.networks, config.times, console)
        of_run = config.gallery or gallery.largest_maps(rows, story.networks, config.out)
        if of_run is not None:
            kind = "test image"
            if setting.holdout is not None:
                kind, seed = "held-out image", manifest.read_run(of_run).config.seed
                dataset = data_of(replace(cells[0], seed=seed), setting)
            story.gallery = gallery.draw(of_run, dataset, kind, config.out)
    except KeyboardInterrupt as stop:  # in a run, which says how to continue it, or after it
        number = stop.number if isinstance(stop, Interrupted) else signal.SIGINT
        raise Interrupted(number, "the same command continues the study") from None
    finally:  # an interrupted study gets a page too
        story.write(config.out)
        if rows:
            console.print(f"wrote {_write(rows, story, config.out)}", markup=False)
    if failed := [name for name in story.diverged if name in asked]:
        raise RunError(f"runs without a result, because they diverged: {', '.join(failed)}")
    return config.out / PAGE


def _check_same_study(
    rows: Sequence[Row], setting: Setting, cells: Sequence[Cell], out: Path
) -> None:
    """Check that new runs can be compared with the existing ones.

    All runs of a recipe have the same image size, length and images; all recipes have the same
    dataset. A name stands for one network. It is that of the runs, because the costs are counted
    from its file.

    Raises:
        UserError: they differ, or a variant's file is gone.
    """
    now = _comparable(setting)
    recipes = {cell.recipe for cell in cells}
    changes = {cell.name: cell.change for cell in cells}
    variants = {Path(cell.variant).stem: cell.variant for cell in cells}
    for row in rows:
        change = changes.get(row["cell"])
        if change and grid.changes_of(change) != grid.changes_of(row["change"]):
            raise UserError(
                f"{out} holds the result of {shown(row['change'])} as {row['cell']}: write "
                f"{shown(change)} in another way, or give another --out"
            )
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
        own: str = row["variant"]
        for variant in (own, variants.get(Path(own).stem, own)):
            check_network(variant, out / "runs" / row["cell"])


def _comparable(setting: Setting) -> dict[str, Any]:
    """Return the setting as JSON returns it, without the data's folder, which may differ."""
    return to_json(replace(setting, data_dir=None))


def _run(
    missing: Sequence[Cell],
    rows: list[Row],
    diverged: list[str],
    setting: Setting,
    out: Path,
    console: Console,
) -> None:
    """Run the cells and append their rows to the list and to the file.

    ``diverged`` keeps the names of cells that diverged, and have no row.
    """
    rates: list[float] = []  # seconds per unit of `_work`
    of_variant = {variant: _work(variant, setting) for variant in {c.variant for c in missing}}
    work = [of_variant[cell.variant] for cell in missing]
    for number, cell in enumerate(missing):
        left = sum(work[number:])
        estimate = f", about {_duration(left * np.median(rates))} left" if rates else ""
        console.rule(f"{cell.name}: run {number + 1} of {len(missing)}{estimate}")
        started = time.perf_counter()
        try:
            row = run_cell(cell, setting, out / "runs") | {"setting": _comparable(setting)}
        except DivergedError as error:  # the other cells may still be run
            console.print(f"{cell.name} diverged: {error.what}", markup=False)
            if cell.name not in diverged:
                diverged.append(cell.name)
            continue
        if cell.name in diverged:
            diverged.remove(cell.name)
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
    rows: Sequence[Row],
    setting: Setting,
    dataset: Dataset,
    known: Networks,
    times: bool,
    console: Console,
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
    pictures, diverged = story.pictures(out), story.diverged
    study = content.Study(ordered, groups, story.class_names, story.commands, pictures, diverged)
    texts = {
        "study.md": page.as_markdown(study),
        "study.csv": page.as_csv(study.groups),
        PAGE: page.as_html(study),
    }
    for recipe in study.recipes:
        if measured := study.measured(recipe):
            svg = figures.accuracy_against_time(measured, paper="#ffffff")
            texts[f"accuracy-{recipe}.svg"] = svg
    for name, text in texts.items():
        path = out / name
        with one_line(f"cannot write {path}", raised=RunError), replacing(path) as partial:
            partial.write_text(text, encoding="utf-8")
    return out / PAGE


def _place(row: Row) -> tuple[Any, ...]:
    """Return a sort key that does not depend on the order in which the runs were made."""
    variant = _rank(row["variant"], list_variants())
    change = _rank(row["change"], list(grid.ABLATION))
    return bool(row["change"]), row["recipe"], variant, change, row["seed"]


def _rank(name: str, known: Sequence[str]) -> tuple[int, str]:
    """Return a sort key: known names in their order, then all others by name."""
    return known.index(name) if name in known else len(known), name
