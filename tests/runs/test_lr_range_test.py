"""The learning rate range test."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.soak.small_run import rows_of
from nin_jax.runs import lr_range_test
from nin_jax.runs.fit import fit
from nin_jax.runs.lr_range_test import RangeTest

SMALL = ("--dataset", "digits", "--image-size", "16", "--test-steps", "30", "--recipe", "modern")


def test_the_rates_act_and_no_run_is_left(script, tiny, tmp_path):
    options = (*SMALL, "--batch-size", "50", "--lr-from", "1e-4", "--lr-to", "1")
    outcome = script("find_lr", "--variant", tiny, *options)
    assert outcome.code == 0, outcome.err
    left = sorted(path.name for path in (tmp_path / "cwd").rglob("*"))
    assert left == ["find_lr.json", "find_lr.png"]
    found = json.loads((tmp_path / "cwd" / "find_lr.json").read_text())
    rates, losses = found["learning_rates"], np.array(found["losses"])
    assert len(rates) == len(losses) == 30 or found["diverged"]
    np.testing.assert_allclose(rates, np.geomspace(1e-4, 1, 30)[: len(rates)], rtol=1e-4)
    assert losses[10:].min() < 0.95 * losses[0]
    last = outcome.out.splitlines()[-2]
    rate = found["suggested_lr"]
    assert last.startswith("no suggestion: " if rate is None else f"suggested --lr {rate:g} (")


@pytest.mark.slow
def test_the_losses_are_those_of_the_runs_own_recipe(config, script, tmp_path):
    """At rates of 1e-12 to 1e-11 no weight changes, so the losses are a run's at such a rate."""
    options = {"limit_train": 50, "label_smoothing": 0.1, "class_weights": "balanced"}
    fit(replace(config, optimizer="sgd", lr=1e-12, epochs=3, **options))
    expected = [row["train_loss"] for row in rows_of(config.workdir) if row["kind"] == "step"]
    given = ("--variant", config.variant, "--batch-size", "50", "--augment", "flip_shift")
    given += ("--lr-from", "1e-12", "--lr-to", "1e-11", "--label-smoothing", "0.1")
    given += ("--limit-train", "50", "--class-weights", "balanced", "--optimizer", "sgd")
    assert script("find_lr", *SMALL, *given, "--test-steps", "10").code == 0
    found = json.loads((tmp_path / "cwd" / "find_lr.json").read_text())
    np.testing.assert_allclose(found["losses"][:3], expected, rtol=1e-5)
    assert found["suggested_lr"] is None


@pytest.mark.slow
def test_the_test_ends_when_the_loss_diverges(script, tiny, tmp_path):
    rates = ("--lr-from", "1e-3", "--lr-to", "1e6", "--clip-norm", "0")
    outcome = script("find_lr", "--variant", tiny, *SMALL, "--optimizer", "sgd", *rates)
    assert (outcome.code, "the loss diverged at " in outcome.out) == (0, True)
    found = json.loads((tmp_path / "cwd" / "find_lr.json").read_text())
    assert found["diverged"]
    assert len(found["losses"]) < 30


def made(smoothed, diverged=False) -> RangeTest:
    values = np.array(smoothed)
    return RangeTest(np.geomspace(1e-3, 1, len(values)), values, values, diverged)


def test_the_suggestion_follows_its_rule():
    assert made([2.3, 2.0, 1.0, 9.0], True).suggestion()[0] == 0.01
    assert made([2.3, 2.0, 1.0, np.nan], True).suggestion()[0] == 0.01
    for curve, reason in (
        ([2.3, 2.29, 2.25, 2.4], "has not fallen by 5% at any rate"),
        ([np.nan], "has not fallen"),
        ([2.3, 2.0, 1.5, 1.0], "raise --lr-to"),
    ):
        rate, why = made(curve).suggestion()
        assert rate is None
        assert reason in why


def test_a_loss_that_is_not_finite_at_once_ends_the_test(script, tiny, monkeypatch):
    losses = [(float("inf"), 0.1), (2.0, 0.1)]
    monkeypatch.setattr(lr_range_test, "_figures", lambda run: (each for each in losses))
    outcome = script("find_lr", "--variant", tiny, *SMALL)
    assert (outcome.code, "the loss diverged at " in outcome.out) == (0, True)
