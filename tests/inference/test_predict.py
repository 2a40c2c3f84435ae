"""scripts/predict.py: pictures of every kind, and files that are not pictures."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from nin_jax import Predictor
from nin_jax.data import image_folder, pictures
from nin_jax.errors import UserError
from nin_jax.runs import manifest
from nin_jax.runs.trained import load_run
from tests.bad_inputs.case import png


def save(path, mode="L", size=(8, 8), **options):
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], *channels), np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def test_prints_the_models_probabilities(script, undisturbed, tmp_path):
    path = save(tmp_path / "one.png")
    outcome = script("predict", path, "--workdir", undisturbed, "--top", 10, "--json")
    assert outcome.code == 0, outcome.err
    (answer,) = json.loads(outcome.out)
    assert answer["path"] == str(path)
    assert answer["probabilities"] == sorted(answer["probabilities"], reverse=True)
    image = np.asarray(Image.open(path))[None, :, :, None]
    (expected,) = Predictor(load_run(undisturbed), 1).probabilities(image)
    by_class = dict(zip(answer["classes"], answer["probabilities"], strict=True))
    names = manifest.read_run(undisturbed).class_names
    np.testing.assert_allclose([by_class[name] for name in names], expected, atol=1e-6)


def test_gray_color_jpeg_folders_and_unreadable_files(script, undisturbed, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    save(folder / "b.jpg", "RGB", (40, 30))
    save(folder / "a:x:.png", "RGBA", (5, 9))
    (folder / "broken.png").write_bytes(save(tmp_path / "c.png").read_bytes()[:60])
    (folder / "notes.txt").write_text("no picture, and not asked for")
    (folder / "2021").mkdir()
    save(folder / "2021" / "c.tif")
    alone = save(tmp_path / "alone.png")
    outcome = script("predict", folder, alone, "--workdir", undisturbed, "--batch-size", 2)
    assert outcome.code == 1
    for name in ("a:x:.png", "b.jpg", "c.tif", "alone.png"):  # :x: is an emoji for rich
        assert name in outcome.out
    assert "broken.png" not in outcome.out
    assert outcome.err.count("error: cannot read") == 1
    assert "broken.png" in outcome.err
    assert f"note: 1 file left out: '{folder / 'notes.txt'}'\n" in outcome.err


def test_a_picture_is_resized_as_in_training(tmp_path):
    from nin_jax.data import transforms

    path = save(tmp_path / "p.png", size=(28, 28))
    picture = jnp.asarray(np.asarray(Image.open(path)))[None, :, :, None]
    seen = transforms.resize(picture, (96, 96))
    np.testing.assert_array_equal(pictures.read(path, 1, (96, 96)), seen[0])


def test_transparency_and_orientation(tmp_path):
    transparent = np.full((4, 4, 4), 255, np.uint8)
    transparent[:, 2:, 3] = 0
    Image.fromarray(transparent).save(tmp_path / "alpha.png")
    read = pictures.read(tmp_path / "alpha.png", 1, (4, 4))[..., 0]
    assert (read[:, :2] == 255).all()
    assert (read[:, 2:] == 0).all()

    exif = Image.Exif()
    exif[0x0112] = 3  # rotated by 180 degrees
    half = np.zeros((4, 4), np.uint8)
    half[:2] = 255
    Image.fromarray(half).save(tmp_path / "turned.png", exif=exif)
    assert (pictures.read(tmp_path / "turned.png", 1, (4, 4))[:2] == 0).all()


GRAY16 = np.full((4, 4), 4096, np.uint16)


@pytest.mark.parametrize(
    ("name", "pixels", "problem"),
    [
        ("unit.tif", np.full((4, 4), 0.5, np.float32), "floating-point pixels"),
        ("bytes.tif", np.full((4, 4), 200, np.float32), "floating-point pixels"),
        ("unit.pfm", np.full((4, 4), 0.5, np.float32), "floating-point pixels"),
        ("wide.tif", np.full((4, 4), 200, np.int32), "32-bit or signed pixels"),
        ("signed.tif", np.full((4, 4), 200, np.int16), "32-bit or signed pixels"),
        ("12bit.png", GRAY16 - 1, "16-bit pixels, all below 4096 of 65535"),
        ("12bit.tif", GRAY16 - 1, "16-bit pixels, all below 4096 of 65535"),
        ("color.png", png(1, 1, (4095, 900, 0)), "16-bit pixels, all below 4096 of 65535"),
        ("color16.png", png(1, 1, (0x2020, 0x2020, 0x2020)), 32),
        ("dark.png", GRAY16, 16),
        ("black.tif", GRAY16 * 0, 0),
        ("deep.tif", GRAY16 * 8, 128),
        ("stated.pgm", b"P5 1 1 4095 \x08\x00", 128),  # 2048 of 4095
    ],
)
def test_pixels_of_more_than_8_bits(tmp_path, name, pixels, problem):
    """What would be read as black is refused with the reason, also when a folder is opened."""
    for split in ("train", "test"):
        path = tmp_path / split / "a" / name
        path.parent.mkdir(parents=True)
        if isinstance(pixels, bytes):
            path.write_bytes(pixels)
        else:
            Image.fromarray(pixels).save(path)
    if isinstance(problem, int):
        assert (pictures.read(path, 1, (4, 4)) == problem).all()
        return
    for refused in (
        lambda: pictures.read(path, 1, (4, 4)),
        lambda: image_folder.open_folder(str(tmp_path)),
    ):
        with pytest.raises(UserError, match=f"cannot read '.*{name}': {problem}"):
            refused()


def test_a_decompression_bomb_is_refused_even_if_pillow_has_no_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert pictures.read(save(tmp_path / "small.png"), 1, (4, 4)).shape == (4, 4, 1)
    (tmp_path / "bomb.png").write_bytes(png(12_000, 12_000))
    with pytest.raises(UserError, match=r"cannot read '.*bomb.png': 12000x12000 is too large"):
        pictures.read(tmp_path / "bomb.png", 1, (4, 4))
