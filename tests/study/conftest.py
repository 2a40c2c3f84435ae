"""A study that takes a second."""

import pytest


@pytest.fixture
def small(tiny, tmp_path):
    """Return options of a study that takes a second."""
    options = ["--variants", tiny, "--dataset", "digits", "--image-size", 16, "--epochs", 2]
    options += ["--limit-train", 64, "--limit-test", 20, "--ablation", "none"]
    return [*options, "--out", tmp_path / "study"]
