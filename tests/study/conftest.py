"""A study that takes a second, and the page of one that is made up."""

from pathlib import Path

import numpy as np
import pytest

from nin_jax.plotting import plot_class_maps
from nin_jax.study import content, page
from tests.support.study_results import everything, study


@pytest.fixture
def small(tiny, tmp_path):
    """Return options of a study that takes a second."""
    options = ["--variants", tiny, "--dataset", "digits", "--image-size", 16, "--epochs", 2]
    options += ["--limit-train", 64, "--limit-test", 20, "--ablation", "none"]
    return [*options, "--out", tmp_path / "study"]


@pytest.fixture(scope="session")
def whole_page(made_once) -> Path:
    """Return a page with every section; its figures take ten seconds."""

    def write(folder: Path) -> None:
        image, maps = np.zeros((28, 28, 1), np.uint8), np.arange(27, dtype=np.float32)
        names = ["T-shirt", "trousers", "bag"]
        plot_class_maps(image, maps.reshape(3, 3, 3), names, "a picture", folder / "maps.png")
        drawn = content.Picture((folder / "maps.png").read_bytes(), "a <i>shoe</i>")
        text = page.as_html(study(everything(), gallery=[drawn]))
        (folder / "index.html").write_text(text, encoding="utf-8")

    return made_once("study-page", write) / "index.html"
