"""The study as one self-contained page: page.html, filled in.

Everything that comes from a file is escaped; nothing is fetched.
"""

import base64
from collections.abc import Callable, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from nin_jax.study import figures
from nin_jax.study.content import Study, ablation_table, budget, what_was_run
from nin_jax.study.summary import Group
from nin_jax.study.tables import as_text, raw

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def as_html(study: Study) -> str:
    """Return the page as HTML, figures and pictures inside it."""
    return _TEMPLATES.get_template("page.html").render(
        study=study,
        budget=budget,
        what_was_run=what_was_run(study),
        ablation_table=ablation_table,
        drawings={
            "time": _drawings(figures.accuracy_against_time),
            "curves": _drawings(figures.learning_curves),
            "ablation": _drawings(figures.ablation),
        },
        as_text=as_text,
        raw=raw,
        base64=lambda data: base64.b64encode(data).decode(),
    )


def _drawings(draw: Callable[[Sequence[Group], str], str]) -> Callable[..., list[str]]:
    """Return what draws groups in the ink of a light page and of a dark one, as data URIs."""

    def addresses(groups: Sequence[Group]) -> list[str]:
        texts = [draw(groups, ink).encode() for ink in (figures.LIGHT, figures.DARK)]
        return [f"data:image/svg+xml;base64,{base64.b64encode(t).decode()}" for t in texts]

    return addresses
