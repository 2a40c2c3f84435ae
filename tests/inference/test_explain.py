"""Class maps: their mean is the logits; scripts/explain.py draws them or prints an error."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

import nin_jax
from nin_jax import plotting
from nin_jax.inference import class_maps
from nin_jax.inference.class_maps import ExplainConfig, explain, explain_images
from nin_jax.plotting import plot_class_maps
from nin_jax.runs import resuming
from nin_jax.runs.trained import Source
from tests.support.picture_folders import make_folder, pictures, save


def test_the_mean_of_the_maps_is_the_logits():
    model = nin_jax.create_model("nin_one_1x1", image_size=(131, 99), logit_relu=False)
    x = jnp.asarray(np.random.default_rng(0).random((3, 131, 99, 1), np.float32))
    maps, logits = jax.jit(lambda x: (nin_jax.class_maps(model, x), model(x)))(x)
    assert maps.dtype == jnp.float32
    assert maps.shape[0] == 3
    assert maps.shape[3] == 10
    assert maps.shape[1:3] != (1, 1)
    np.testing.assert_allclose(maps.mean((1, 2)), logits, rtol=1e-5, atol=1e-6)
    assert np.any(np.asarray(logits))


def test_maps_are_float32_in_any_precision():
    model = nin_jax.create_model("nin_one_1x1", image_size=67, dtype=jnp.bfloat16)
    maps = jax.eval_shape(partial(nin_jax.class_maps, model), jnp.zeros((1, 67, 67, 1)))
    assert maps.dtype == jnp.float32


def test_a_linear_classifier_has_no_maps():
    model = nin_jax.create_model("nin_fc", image_size=67)
    with pytest.raises(nin_jax.UserError, match="nin_fc has no class maps"):
        nin_jax.class_maps(model, jnp.zeros((1, 67, 67, 1)))
    with pytest.raises(nin_jax.UserError, match="nin_fc has no class maps"):
        explain_images(model, np.zeros((1, 28, 28, 1), np.uint8))


def test_images_that_cannot_be_explained_are_refused():
    model = nin_jax.create_model("nin_cifar10", in_channels=1, image_size=32)
    bad = {
        "images must be uint8, got float32": np.zeros((1, 32, 32, 1), np.float32),
        r"must be \[N, H, W, 1\]": np.zeros((1, 28, 28, 3), np.uint8),
        "need one or more pixels": np.zeros((1, 0, 28, 1), np.uint8),
    }
    for message, images in bad.items():
        with pytest.raises(nin_jax.UserError, match=message):
            explain_images(model, images)
    with pytest.raises(nin_jax.UserError, match="the model must be a NiN"):
        explain_images(object(), np.zeros((1, 28, 28, 1), np.uint8))  # type: ignore[arg-type]


def test_an_explanation_has_the_models_logits(undisturbed, tmp_path):
    path = save(tmp_path / "one.png", pictures(1, 16, 16)[0])
    model = nin_jax.load_run(undisturbed)
    (found,) = explain_images(model, np.asarray(Image.open(path))[None, :, :, None])
    (logits,) = nin_jax.Predictor(model, 1)(np.asarray(Image.open(path))[None, :, :, None])
    np.testing.assert_allclose(found.logits, logits, rtol=1e-5, atol=1e-6)


def test_readable_pictures_are_drawn_and_the_others_named(script, undisturbed, tmp_path):
    one = save(tmp_path / "a" / "one.png", pictures(1, 16, 16)[0])
    other = save(tmp_path / "b" / "one.png", pictures(1, 30, 30)[0])
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    outcome = script(
        "explain", one, other, broken, "--workdir", undisturbed, "--out", tmp_path / "maps"
    )
    assert outcome.code == 1
    assert outcome.err.count("error: cannot read") == 1
    names = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert names == ["one-2-maps.png", "one-maps.png"]
    with Image.open(tmp_path / "maps" / "one-maps.png") as image:
        assert image.width > 1000


def test_a_figure_that_cannot_be_written_is_one_line(script, undisturbed, tmp_path):
    # With "-maps" it is too long for the name of a file.
    long = save(tmp_path / f"{'x' * 250}.png", pictures(1, 16, 16)[0])
    outcome = script("explain", long, "--workdir", undisturbed)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert outcome.err.startswith("error: cannot write maps/xxx")
    blocked = tmp_path / "maps" / "test-00000-maps.png"
    blocked.mkdir(parents=True)
    options = ("--workdir", undisturbed, "--out", blocked.parent, "--test-images", 1)
    outcome = script("explain", *options)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert f"cannot write {blocked}: " in outcome.err


def test_test_images_are_drawn_with_their_labels(script, undisturbed, tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(Figure, "suptitle", lambda figure, text, **_: titles.append(text))
    monkeypatch.setattr(class_maps, "BATCH_SIZE", 2)
    arguments = ("--workdir", undisturbed, "--out", tmp_path / "maps", "--test-images")
    outcome = script("explain", *arguments, 3)
    assert outcome.code == 0, outcome.err
    names = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert names == [f"test-0000{i}-maps.png" for i in range(3)]
    trained = Source(workdir=undisturbed).load()
    test = trained.dataset().test
    predicted = nin_jax.Predictor(trained.model, 3)(test.images[:3]).argmax(1)
    assert titles == [
        f"test image {i}: {test.labels[i]}, predicted {predicted[i]}" for i in range(3)
    ]
    refused = script("explain", *arguments, len(test) + 1)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert f"there are {len(test)} test images" in refused.err


@pytest.mark.parametrize("feed", ["resident", "stream"])
def test_test_images_of_a_folder(undisturbed, tmp_path, monkeypatch, feed):
    """The number of images is no multiple of the batch."""
    make_folder(tmp_path / "set", pictures(5, 16, 16), np.arange(5) % 3)
    drawn = []
    monkeypatch.setattr(plotting, "plot_class_maps", lambda image, *_: drawn.append(image))
    monkeypatch.setattr(class_maps, "BATCH_SIZE", 2)
    monkeypatch.setattr(resuming, "check_same_data", lambda *_: None)
    trained = Source(workdir=undisturbed).load()
    data = {"dataset": f"folder:{tmp_path / 'set'}", "limit_test": None, "feed": feed}
    trained = replace(trained, config=replace(trained.config, **data))
    monkeypatch.setattr(Source, "load", lambda _: trained)
    files, _ = explain(ExplainConfig(test_images=5, out=tmp_path / "maps"))
    assert [path.name for path in files] == [f"test-0000{i}-maps.png" for i in range(5)]
    (expected,) = (images for images, _ in trained.dataset().test.read(np.arange(5), 5))
    np.testing.assert_array_equal(drawn, expected)


def test_of_many_classes_those_with_the_largest_logits_are_drawn(tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(Axes, "set_title", lambda axes, text, **_: titles.append(text))
    maps = np.random.default_rng(0).random((6, 6, 1000), np.float32)
    names = [f"class {i}" for i in range(1000)]
    plot_class_maps(np.zeros((32, 32, 3), np.uint8), maps, names, "p.png", tmp_path / "maps.png")
    logits = maps.mean((0, 1))
    assert titles[1:] == [f"class {i}\n{logits[i]:.2f}" for i in np.argsort(-logits)[:17]]


def test_no_readable_picture_is_an_error(script, undisturbed, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    for name in ("explain", "predict"):
        outcome = script(name, broken, "--workdir", undisturbed)
        assert (outcome.code, outcome.err.count("\n")) == (2, 1)
        assert outcome.err.startswith("error: cannot read")
        assert not list((tmp_path / "cwd").iterdir())
