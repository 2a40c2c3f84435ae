"""Weights that ship: export from a run, loading by name, errors."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import nin_jax
from nin_jax import cli
from nin_jax.inference import scoring, shipping
from nin_jax.models import convert, pretrained
from nin_jax.training.config import TrainConfig
from tests.support.shipped import LINEAR, SMALL, build_in, make_run, ship


@pytest.fixture(scope="module")
def cards(tmp_path_factory):
    """Return the cards of a small network and of one with a linear layer, the only ones shipped."""
    with pytest.MonkeyPatch.context() as patch:
        build_in(patch, SMALL, LINEAR)
        folder = tmp_path_factory.mktemp("shipped")
        yield [ship(patch, folder, variant.name) for variant in (SMALL, LINEAR)]


@pytest.fixture
def card(cards) -> pretrained.Card:
    return cards[0]


def test_evaluate_prints_the_accuracy_of_the_card(script, card, tmp_path):
    before = sorted(pretrained.FOLDER.iterdir())
    for options in (["small"], ["small-digits", "--out", tmp_path / "out"]):
        outcome = script("evaluate", "--pretrained", *options)
        assert outcome.code == 0, outcome.err
        assert f"\ntest accuracy {card.test_accuracy}\n" in outcome.out
    assert Path("confusion.png").exists()
    assert (tmp_path / "out" / "confusion.png").exists()
    assert sorted(pretrained.FOLDER.iterdir()) == before
    assert 0 < card.test_accuracy < 1
    assert card.test_images == 355


def test_the_weights_are_those_of_the_run_in_float16(card):
    run = convert.load_safetensors(pretrained.FOLDER.parent / "run-small" / "model.safetensors")
    read = pretrained.read_weights(card)
    assert read.keys() == run.keys()
    for name, array in run.items():
        np.testing.assert_array_equal(read[name], array.astype(np.float16))


def test_the_card_gives_the_default_arguments(card):
    model = nin_jax.create_model("small", pretrained="digits")
    assert (model.in_channels, model.num_classes, model.image_size) == (1, 10, (16, 16))
    assert model.head.last_relu is False  # recipe modern
    weights = pretrained.read_weights(card)
    for name, array in convert.to_torch(model).items():
        np.testing.assert_array_equal(array, weights[name].astype(np.float32))
    assert list(nin_jax.list_pretrained()) == ["linear-digits", "small-digits"]


def test_other_sizes_and_bfloat16(card):
    model = nin_jax.create_model("small", pretrained="digits", image_size=24, dtype=jnp.bfloat16)
    assert model.image_size == (24, 24)
    assert nin_jax.Predictor(model, 1)(np.zeros((1, 8, 8, 1), np.uint8)).shape == (1, 10)


REFUSED = {
    "in_channels": ("small", {"in_channels": 3}, "are for in_channels=1, got 3"),
    "num_classes": ("small", {"num_classes": 7}, "are for num_classes=10, got 7"),
    "logit_relu": ("small", {"logit_relu": True}, "are for logit_relu=False, got True"),
    "image size": ("linear", {"image_size": 20}, r"are for image_size=\(16, 16\) only"),
    "seed": ("small", {"seed": 0}, "seed cannot be given with pretrained"),
    "init": ("small", {"init": "he"}, "init cannot be given with pretrained"),
    "a number": ("small", {"pretrained": 3}, "must be the name of a dataset, got 3"),
    "data set": ("small", {"pretrained": "digts"}, "'small-digts': did you mean small-digits"),
    "variant": ("smal", {}, "did you mean small"),
    "not trained": ("nin", {}, "unknown pretrained weights 'nin-digits'"),
    "changed": (replace(SMALL, dropout=0.1), {}, "are for another small"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_arguments_that_do_not_fit_the_weights_raise(cards, case):
    variant, options, message = REFUSED[case]
    with pytest.raises(nin_jax.UserError, match=message):
        nin_jax.create_model(variant, **{"pretrained": "digits"} | options)


def test_a_variant_with_several_datasets_is_ambiguous(card, tmp_path, monkeypatch):
    for name in ("small-digits", "small-mnist"):
        plain = json.loads((pretrained.FOLDER / "small-digits.json").read_text())
        plain["dataset"] = name.partition("-")[2]
        (tmp_path / f"{name}.json").write_text(json.dumps(plain))
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    with pytest.raises(nin_jax.UserError, match="give small-digits or small-mnist"):
        pretrained.find("small")
    assert pretrained.find("small-mnist").dataset == "mnist"


def test_predict_and_explain_pictures(script, card):
    Image.fromarray(np.full((8, 8), 200, np.uint8)).save("p.png")
    outcome = script("predict", "p.png", "--pretrained", "small", "--top", 10, "--json")
    assert outcome.code == 0, outcome.err
    (answer,) = json.loads(outcome.out)
    image = np.full((1, 8, 8, 1), 200, np.uint8)
    model = nin_jax.create_model("small", pretrained="digits")
    (expected,) = nin_jax.Predictor(model, 1).probabilities(image)
    found = dict(zip(answer["classes"], answer["probabilities"], strict=True))
    np.testing.assert_allclose([found[name] for name in card.class_names], expected, atol=1e-6)
    outcome = script("explain", "p.png", "--pretrained", "small")
    assert outcome.code == 0, outcome.err
    assert Path("maps/p-maps.png").exists()


def test_the_command_of_the_card_gives_the_configuration(tmp_path):
    config = TrainConfig(
        "nin15",
        "modern",
        "fashion_mnist",
        image_size=(64, 48),
        epochs=3,
        nesterov=False,
        skip_nonfinite=True,
        init_from="a run/model.safetensors",
    )
    line = shipping.command(replace(config, workdir=tmp_path, device="cpu", checkpoint_every="1h"))
    python, script, *arguments = shlex.split(line)
    assert (python, script) == ("python", "scripts/train.py")
    assert cli.parse(TrainConfig, arguments) == config


def test_runs_that_cannot_be_exported_raise(cards, tmp_path, monkeypatch):
    out = tmp_path / "weights"

    def export(folder=out, **source):
        with pytest.raises(nin_jax.UserError) as caught:
            scoring.score_source(scoring.EvaluateConfig(export=folder, **source))
        assert not out.exists()
        return str(caught.value)

    run = make_run(tmp_path / "run")
    assert "exists already" in export(pretrained.FOLDER, workdir=run)
    assert "small-digits is not a run" in export(pretrained="small")
    limited = make_run(tmp_path / "limited", limit_test=9)
    assert "the run has --limit-test" in export(workdir=limited)
    held = make_run(tmp_path / "held", holdout=50)
    assert "the run has --holdout, so not all test images are scored: add" in export(workdir=held)
    for of in (run, held):
        assert "test images must not decide which weights" in export(workdir=of, best=True)
    with monkeypatch.context() as patch:
        patch.setattr(shipping, "MAX_BYTES", 100)
        assert "bytes are more than 100" in export(workdir=run)
    edited = tmp_path / "run" / "config.json"
    saved = json.loads(edited.read_text())
    saved["variant"]["dropout"] = 0.1
    edited.write_text(json.dumps(saved))
    assert "small is not a built-in variant" in export(workdir=run)


def test_weights_of_a_run_with_held_out_images_ship_with_their_test_accuracy(cards, tmp_path):
    run = make_run(tmp_path / "run", holdout=50, patience=1, seed=7)
    score = scoring.score_source(scoring.EvaluateConfig(run, test=True, export=tmp_path / "out"))
    card = json.loads((tmp_path / "out" / "small-digits.json").read_text())
    assert (card["test_accuracy"], card["test_images"]) == (score.accuracy, 355)
    assert "--holdout 50 --seed 7 --patience 1" in card["command"]


def test_weights_too_large_for_float16_raise(cards, tmp_path):
    run = make_run(tmp_path / "run")
    model = nin_jax.load_run(run)
    model.head.convs[0].bias[...] = jnp.full(10, 1e5)
    convert.save_safetensors(model, run / "model.safetensors")
    with pytest.raises(nin_jax.UserError, match="too large for float16"):
        scoring.score_source(scoring.EvaluateConfig(run, export=tmp_path / "weights"))
    assert not (tmp_path / "weights").exists()
