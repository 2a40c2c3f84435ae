"""The study as one self-contained page.

Everything that comes from a file is escaped; nothing is fetched.
"""

import base64
import html
import shlex
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from nin_study import figures
from nin_study.answers import answered_by
from nin_study.content import (
    HEADINGS,
    NOTES,
    Picture,
    Study,
    as_text,
    cells,
    class_rows,
    what_was_run,
)
from nin_study.summary import Group


def as_html(study: Study) -> str:
    """The page."""
    escape = html.escape
    sections = [
        "<h1>Network in Network: six questions, answered by measurement</h1>",
        *(f"<p>{escape(line)}</p>" for line in what_was_run(study)),
        f"<p><code>{escape(shlex.join(study.command))}</code></p>",
        f"<h2>Results</h2><p>{escape(NOTES)} A click on a heading sorts.</p>",
        _table(study.groups),
        *_questions(study),
        "<h2>Learning curves</h2><p>The mean over seeds, of test accuracy (solid, left scale) and "
        "of training loss (dashed, right scale); a band goes from the lowest to the highest.</p>",
        *_curves(study),
        "<h2>Accuracy and cost</h2>",
        *_costs(study),
        *_ablation(study),
        "<h2>Each class</h2>",
        _classes(study),
        *_gallery(study.gallery),
    ]
    template = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
    return template.replace("<!--body-->", "\n".join(sections))


def _table(groups: Sequence[Group]) -> str:
    head = "".join(f'<th scope="col"><button>{html.escape(h)}</button></th>' for h in HEADINGS)
    body = []
    for group in groups:
        found = "".join(
            f'<td data-value="{_raw(cell)}">{html.escape(as_text(cell))}</td>'
            for cell in cells(group)
        )
        body.append(f"<tr>{found}</tr>")
    return (
        f'<div class="wide"><table class="sortable"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _raw(cell: str | float | int | None) -> str:
    return "" if cell is None else html.escape(str(cell))


def _questions(study: Study) -> list[str]:
    found = study.answers()
    if not found:
        return []
    recipe = html.escape(answered_by(study.groups))
    return [
        f"<h2>The six questions</h2><p>By the runs of recipe {recipe}.</p>",
        *(f"<h3>{html.escape(a.question)}</h3><p>{html.escape(a.text)}</p>" for a in found),
    ]


def _figure(draw: Callable[[str], str], words: str) -> str:
    """A drawing in the ink of a light page, and of a dark one where the reader's is dark."""
    light, dark = (
        f"data:image/svg+xml;base64,{base64.b64encode(draw(ink).encode()).decode()}"
        for ink in (figures.LIGHT, figures.DARK)
    )
    return (
        f'<div class="wide"><picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img class="drawn" alt="{html.escape(words)}" src="{light}"></picture></div>'
    )


def _curves(study: Study) -> list[str]:
    found = []
    for recipe in study.recipes:
        words = f"test accuracy and training loss over epochs, recipe {recipe}"
        found.append(f"<h3>Recipe {html.escape(recipe)}</h3>")
        found.append(_figure(partial(figures.learning_curves, study.of_recipe(recipe)), words))
    return found


def _costs(study: Study) -> list[str]:
    found = []
    for recipe in study.recipes:
        groups = study.of_recipe(recipe)
        if any(group.network for group in groups):
            words = f"test accuracy against parameters, MACs and memory, recipe {recipe}"
            found.append(f"<h3>Recipe {html.escape(recipe)}</h3>")
            found.append(_figure(partial(figures.accuracy_against_costs, groups), words))
    return found


def _ablation(study: Study) -> list[str]:
    """A figure for each variant and recipe that was run with changes."""
    found = []
    for base in study.unchanged:
        same = [g for g in study.groups if (g.variant, g.recipe) == (base.variant, base.recipe)]
        if len(same) > 1:
            what = f"{base.variant}, recipe {base.recipe}"
            found.append(f"<h3>{html.escape(what)}</h3>")
            words = f"test accuracy with one ingredient changed: {what}"
            found.append(_figure(partial(figures.ablation, same), words))
    title = "<h2>What each ingredient of a recipe gives</h2>"
    return [title, *found] if found else []


def _classes(study: Study) -> str:
    names = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in study.class_names)
    rows = [
        f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>"
        for row in class_rows(study)
    ]
    return (
        f'<div class="wide"><table><thead><tr><th scope="col"></th>{names}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _gallery(pictures: Sequence[Picture]) -> list[str]:
    if not pictures:
        return []
    found = [
        "<h2>Where a network sees each class</h2><p>The maps of the last block, whose means are "
        "the logits (figure 4 of the paper).</p>"
    ]
    for picture in pictures:
        data = base64.b64encode(picture.png).decode()
        words = html.escape(picture.caption)
        found.append(
            f'<figure class="wide"><img alt="{words}" src="data:image/png;base64,{data}">'
            f"<figcaption>{words}</figcaption></figure>"
        )
    return found
