"""Time to accuracy, for a tiny network on the digits. No measured value is asserted."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import nin_torch_ref
from benchmarks.speed import accuracy
from benchmarks.speed.accuracy import measure
from benchmarks.speed.config import BenchConfig
from benchmarks.speed.work import OURS, TORCH
from nin_jax.data.datasets import load_dataset
from nin_jax.models.variants import get_variant
from nin_jax.training.optimizer import make_schedule
from nin_jax.training.recipes import RECIPES


@pytest.fixture
def config(tiny) -> BenchConfig:
    return BenchConfig(variants=(str(tiny),), image_size=8, dataset="digits", epochs=2)


def say(text):
    del text


def contender(*evaluations, seconds=0.0, clock=None):
    """Return a contender that trains for some seconds of the clock before each evaluation."""

    def train(config, variant):
        for images, found in evaluations:
            if clock is not None:
                clock[0] += seconds

            def evaluate(found=found):
                if clock is not None:
                    clock[0] += 1000  # evaluations are not counted
                return found

            yield images, evaluate

    return train


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("benchmarks.speed.accuracy.time.perf_counter", lambda: now[0])
    return now


def contenders(monkeypatch, ours, theirs):
    found = accuracy.Contender(OURS, "modern", ours), accuracy.Contender(TORCH, "d2l", theirs)
    monkeypatch.setattr(accuracy, "CONTENDERS", found)


def test_seconds_count_training_up_to_each_target(monkeypatch, clock):
    ours = contender((64, 0.5), (128, 0.87), (192, 0.91), seconds=2, clock=clock)
    theirs = contender((64, 0.1), (128, 0.92), (192, 0.93), seconds=5, clock=clock)
    contenders(monkeypatch, ours, theirs)
    rows = list(measure(BenchConfig(targets=(0.85, 0.9)), say))
    assert [(row["contender"], row["target_accuracy"], row["seconds"]) for row in rows] == [
        *((OURS, 0.85, 4), (OURS, 0.9, 6)),
        *((TORCH, 0.85, 10), (TORCH, 0.9, 10)),
    ]
    assert [row["images"] for row in rows] == [128, 192, 128, 128]
    assert [row["test_accuracy"] for row in rows] == [0.87, 0.91, 0.92, 0.92]
    assert [row.get("over_ours") for row in rows] == [None, None, 2.5, 1.667]
    assert [row.get("planned_epochs") for row in rows] == [1, 1, None, None]
    assert [(row["recipe"], row["batch_size"]) for row in rows[1:3]] == [
        ("modern", 64),
        ("d2l", 128),
    ]
    assert all(isinstance(v, str | int | float) for row in rows for v in row.values())


def test_a_missed_target_has_a_note(monkeypatch, clock):
    planned = contender((64, 0.86), (128, 0.88), seconds=2, clock=clock)
    capped = contender(*[(64 * n, 0.1) for n in range(1, 9)], seconds=5, clock=clock)
    contenders(monkeypatch, planned, capped)
    rows = list(measure(BenchConfig(targets=(0.85, 0.9), cap_seconds=12), say))
    assert [row.get("seconds") for row in rows] == [2, None, None, None]
    assert [row.get("note") for row in rows[1:]] == [
        "not reached in 4 s (accuracy 0.8800)",
        *["not reached in 15 s (accuracy 0.1000)"] * 2,
    ]
    assert not any("over_ours" in row for row in rows)


def test_a_failure_is_a_row_and_the_other_continues(monkeypatch):
    def broken(config, variant):
        yield 64, lambda: 0.86
        raise RuntimeError("a long story\nno memory here")

    contenders(monkeypatch, broken, contender((64, 0.95)))
    rows = list(measure(BenchConfig(targets=(0.85, 0.9)), say))
    assert rows[0]["target_accuracy"] == 0.85
    assert rows[1]["error"] == "RuntimeError: no memory here"
    assert [row["target_accuracy"] for row in rows[2:]] == [0.85, 0.9]


@pytest.mark.slow
@pytest.mark.parametrize("contender", accuracy.CONTENDERS)
def test_all_are_evaluated_after_the_same_images(monkeypatch, config, contender):
    monkeypatch.setattr(accuracy, "EVALUATE_EVERY", 512)
    evaluations = contender.train(config, config.variants[0])
    seen = [(images, evaluate()) for images, evaluate in (next(evaluations) for _ in range(6))]
    assert [images for images, _ in seen] == [512, 1024, 1442, 1954, 2466, 2884]
    assert all(0 <= found <= 1 for _, found in seen)
    if contender.recipe == "modern":
        assert next(evaluations, None) is None  # at the end of its planned epochs
        assert seen[-1][1] > 0.3  # and learns: chance is 0.1
    else:
        assert next(evaluations)[0] == 3396


@pytest.mark.parametrize("name", ["modern", "d2l"])
def test_pytorch_has_the_learning_rates_of_the_recipe(name):
    recipe = replace(RECIPES[name](get_variant("nin")), lr=0.02)
    model = torch.nn.Linear(2, 1)
    optimizer, schedule = accuracy._torch_optimizer(model, recipe, steps=20)
    assert isinstance(optimizer, nin_torch_ref.Muon) == (name == "modern")
    rates = []
    for _ in range(20):
        nin_torch_ref.train_step(
            model, optimizer, torch.ones(1, 2), torch.zeros(1, dtype=torch.int64), clip_norm=1.0
        )
        rates.append(schedule.get_last_lr()[0])
        schedule.step()
    expected = [np.asarray(make_schedule(recipe, 20)(step)) for step in range(20)]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)  # float32 there


def test_pytorch_clips_the_gradient_of_all_parameters_together():
    model = torch.nn.Linear(2, 3)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)  # the logits are equal: a large gradient
    images, labels = torch.full((1, 2), 100.0), torch.zeros(1, dtype=torch.int64)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    nin_torch_ref.train_step(model, optimizer, images, labels, clip_norm=0.5)
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    # The norm is 115 before clipping. PyTorch adds 1e-6 to it; float32 rounds at 1e-7.
    assert abs(float(weights.norm()) - 0.5) < 1e-6


def test_pytorch_gets_the_pixels_of_the_published_pipeline():
    split = load_dataset("digits").train[:20]
    images, labels = accuracy._tensors(split, (24, 17), torch.device("cpu"))
    theirs = [
        np.array(Image.fromarray(i[..., 0]).resize((17, 24), Image.Resampling.BILINEAR))
        for i in split.images
    ]
    np.testing.assert_array_equal(images[:, 0].numpy(), theirs)
    np.testing.assert_array_equal(labels.numpy(), split.labels)
    assert accuracy._scaled(images).max() <= 1


@pytest.mark.slow
def test_the_command_prints_reached_and_missed_targets(script, tiny):
    outcome = script(
        *("bench", "accuracy", "--variants", tiny, "--dataset", "digits", "--image-size", 8),
        *("--epochs", 1, "--targets", 0.01, 0.9999, "--cap-seconds", 1, "--format", "json"),
    )
    assert outcome.code == 0, outcome.err
    rows = json.loads(outcome.out[outcome.out.index("{") :])["rows"]
    assert [row["contender"] for row in rows] == [OURS, OURS, *[TORCH] * 4]
    assert all(row["seconds"] > 0 for row in rows[::2])
    assert all(row["note"].startswith("not reached in") for row in rows[1::2])
