"""A run's preprocessing: chosen once, stored, and applied wherever its network is used."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import nin_jax
from nin_jax import Predictor, Preprocessing
from nin_jax.inference import scoring
from nin_jax.models import convert
from nin_jax.runs import examples, manifest, preparation
from nin_jax.runs.fit import fit
from nin_jax.runs.preparation import Initial, load_spec, prepare_run
from nin_jax.runs.trained import read_weights


@pytest.fixture
def normalized(config):
    return replace(config, normalize="dataset", holdout=40, limit_test=None, epochs=1)


def test_a_run_stores_the_statistics_of_the_images_that_it_trains_on(
    normalized, monkeypatch, capsys, script, tmp_path
):
    fit(normalized)
    out = capsys.readouterr().out
    images = examples.load_data(normalized).train.images / 255
    stored = manifest.read_run(normalized.workdir).preprocessing
    np.testing.assert_allclose(stored.mean, [images.mean()], rtol=1e-12)
    np.testing.assert_allclose(stored.std, [images.std()], rtol=1e-12)
    assert f"\npreprocessing: {stored}\n" in out
    weights = normalized.workdir / "model.safetensors"
    assert convert.read_preprocessing(weights) == stored
    assert read_weights(str(weights)).preprocessing == stored
    assert nin_jax.load_run(normalized.workdir, best=True).preprocessing == stored

    # They are read from then on, not computed again.
    monkeypatch.setattr(preparation, "mean_and_std", None)
    summary = fit(replace(normalized, resume=True, epochs=2))
    assert manifest.read_run(normalized.workdir).preprocessing == stored
    score = scoring.score_source(scoring.EvaluateConfig(normalized.workdir))
    assert score.accuracy == summary["test_accuracy"]
    assert score.loss == pytest.approx(summary["test_loss"], rel=1e-6)

    picture = examples.load_data(normalized).test.images[0]
    Image.fromarray(picture[..., 0]).save(tmp_path / "p.png")
    outcome = script(
        "predict", tmp_path / "p.png", "--workdir", normalized.workdir, "--json", "--top", 10
    )
    assert outcome.err == f"note: preprocessing of {normalized.workdir}: {stored}\n"
    (answer,) = json.loads(outcome.out)
    model = nin_jax.load_run(normalized.workdir)
    (expected,) = Predictor(model).probabilities(picture[None])
    np.testing.assert_allclose(answer["probabilities"], sorted(expected)[::-1], atol=1e-6)

    # A resumed run has weights of its own preprocessing.
    path = normalized.workdir / "config.json"
    saved = json.loads(path.read_text())
    saved["preprocessing"]["mean"] = [0.25]
    path.write_text(json.dumps(saved))
    with pytest.raises(nin_jax.UserError, match="is for another preprocessing than"):
        fit(replace(normalized, resume=True, epochs=3))


def test_a_run_of_an_earlier_version_crops_if_its_option_says_so(undisturbed, tmp_path):
    saved = json.loads((undisturbed / "config.json").read_text())
    assert saved.pop("preprocessing") == {
        "scale": 1.0,
        "mean": [],
        "std": [],
        "channel_order": "rgb",
        "resize": "stretch",
        "crop_fraction": 1.0,
    }
    del saved["recipe"]["normalize"], saved["config"]["normalize"]
    saved["config"] |= {"crop": True, "dataset": "folder:pictures"}
    (tmp_path / "config.json").write_text(json.dumps(saved))
    found = manifest.read_run(tmp_path)
    assert found.preprocessing == Preprocessing(resize="crop")
    assert found.recipe.normalize == "none"


THEIRS = Preprocessing(mean=(0.25,), std=(0.5,), resize="crop", crop_fraction=0.5)
CHOICES = {
    "the weights'": ({}, THEIRS, (0.25,)),
    "the dataset's": ({"normalize": "dataset"}, THEIRS, None),
    "for another number of channels": ({}, Preprocessing(mean=(0.1, 0.2, 0.3)), ()),
}


@pytest.mark.parametrize("case", CHOICES)
def test_initial_weights_bring_their_preprocessing_but_not_their_rule_for_pictures(config, case):
    options, theirs, mean = CHOICES[case]
    config = replace(config, init_from="weights", **options)
    model = nin_jax.create_model(config.variant, image_size=16)
    run = prepare_run(load_spec(config), Initial(convert.to_torch(model), theirs))
    found = run.model.preprocessing
    images = run.dataset.train.images / 255
    np.testing.assert_allclose(found.mean, [images.mean()] if mean is None else mean)
    assert (found.resize, found.crop_fraction) == ("stretch", 1)
