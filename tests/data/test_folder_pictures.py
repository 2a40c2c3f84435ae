"""The pictures of an image folder: their kinds, modes and sizes, as for prediction."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nin_jax import Predictor, Preprocessing, UserError
from nin_jax.data import listing
from nin_jax.data import pictures as nin_pictures
from nin_jax.data.datasets import load_dataset
from nin_jax.data.image_folder import FolderOptions
from nin_jax.data.streaming import open_dataset
from nin_jax.inference.predict import PredictConfig, predict_files
from nin_jax.runs import examples
from nin_jax.runs.fit import fit
from tests.support import picture_folders
from tests.support.picture_folders import error_of, hash_order, pictures, save, two_classes

no_data_dir = picture_folders.no_data_dir  # pytest finds fixtures by their names


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_decoded_as_for_prediction(tmp_path, channels):
    """Test every mode. A gray image that comes first does not make a set of color images gray."""
    color, gray = pictures(1, 6, 4, 3)[0], pictures(1, 6, 4)[0]
    on_its_side = Image.Exif()
    on_its_side[0x0112] = 6
    for split in ("train", "test"):
        folder = tmp_path / split / "a"
        save(folder / "0.png", gray)
        save(folder / "deep.png", gray.astype(np.uint16) * 257)
        save(folder / "gray.jpg", gray)
        save(folder / "side.jpeg", gray.T.copy(), exif=on_its_side)
        save(folder / "side.tif", gray.T.copy(), exif=on_its_side)
        if channels == 3:
            save(folder / "alpha.webp", pictures(1, 6, 4, 4)[0])
            save(folder / "bytes.BMP", color)
            Image.fromarray(color).quantize(8).save(folder / "table.png")
    dataset = open_dataset(f"folder:{tmp_path}")
    source = dataset.train
    assert source.image_shape == (6, 4, channels)
    assert dataset.notes == (
        () if channels == 1 else ("10 of 16 pictures are gray and converted to color",)
    )
    paths = sorted(folder.iterdir())
    order = hash_order([f"a/{path.name}" for path in paths])
    for i, path in enumerate(paths[k] for k in order):
        expected = nin_pictures.read(path, channels, (6, 4))
        np.testing.assert_array_equal(source.source[i][0], expected)
    deep = order.index(paths.index(folder / "deep.png"))  # 16 bits keep their upper byte
    np.testing.assert_array_equal(source.source[deep][0][..., 0], gray)


# Pictures of differing sizes


def by_hand(image: Image.Image, crop: bool) -> np.ndarray:
    """Resize to 6x6, or so that the shorter side has 6 pixels, and cut out the center."""
    if not crop:
        return np.asarray(image.resize((6, 6), Image.Resampling.BILINEAR))
    sizes = {(5, 4): (7, 6), (7, 20): (6, 17), (9, 8): (6, 6), (6, 6): (6, 6)}
    image = image.resize(sizes[image.size], Image.Resampling.BILINEAR)
    top = {6: 0, 17: 6}[image.height]
    return np.asarray(image)[top : top + 6, :6]


def of_differing_sizes(root: Path) -> Path:
    """Create a folder of two classes and four sizes."""
    root = two_classes(root)  # 5x4 pixels
    for split in ("train", "test"):
        save(root / split / "a" / "tall.png", pictures(1, 20, 7)[0])
        save(root / split / "b" / "wide.jpg", pictures(1, 8, 9)[0])
        save(root / split / "b" / "same.png", pictures(1, 6, 6)[0])
    return root


@pytest.mark.parametrize("crop", [False, True])
def test_pictures_of_differing_sizes_are_resized_as_for_prediction(tmp_path, crop):
    name = f"folder:{of_differing_sizes(tmp_path)}"
    options = FolderOptions(6, crop)
    dataset, streamed = load_dataset(name, options=options), open_dataset(name, options=options)
    how = "scaled and cropped" if crop else "resized"
    assert dataset.notes == streamed.notes
    assert dataset.notes == (
        f"pictures of 4 sizes, 5x4 to 7x20, are {how} to 6x6 when they are read",
    )
    assert dataset.image_shape == streamed.image_shape == (6, 6, 1)
    found = listing.find([tmp_path / "train"])[0]
    names = [os.path.relpath(path, tmp_path / "train") for path in found]
    for i, k in enumerate(hash_order(names)):
        expected = by_hand(Image.open(found[k]), crop)
        np.testing.assert_array_equal(dataset.train.images[i][..., 0], expected)
        np.testing.assert_array_equal(streamed.train.source[i][0][..., 0], expected)
        rule = Preprocessing(resize="crop" if crop else "stretch")
        read = nin_pictures.read(found[k], 1, (6, 6), rule)[..., 0]
        np.testing.assert_array_equal(read, expected)


@pytest.mark.slow
def test_a_run_on_differing_sizes_predicts_as_it_was_scored(tmp_path, config):
    folder = of_differing_sizes(tmp_path / "set")
    config = replace(
        config, dataset=f"folder:{folder}", crop=True, limit_train=None, limit_test=None, epochs=1
    )
    fit(config)
    test = examples.load_data(config).test
    source = PredictConfig(workdir=config.workdir, pictures=(folder / "test",), top=1)
    expected = Predictor(source.load().model).probabilities(test.images)
    predictions, faults = predict_files(source)
    assert faults == []
    names = [os.path.relpath(each.path, folder / "test") for each in predictions]
    found = [predictions[k].probabilities[0] for k in hash_order(names)]
    np.testing.assert_allclose(found, expected.max(1), atol=1e-6)


def test_differing_sizes_need_a_size(tmp_path):
    message = error_of(of_differing_sizes(tmp_path))
    assert message.startswith("pictures of 4 sizes, 5x4 to 7x20, need an image_size")


def test_a_picture_too_narrow_to_crop(tmp_path):
    path = save(tmp_path / "line.png", pictures(1, 1, 60_000)[0])
    assert nin_pictures.read(path, 1, (64, 64)).shape == (64, 64, 1)
    with pytest.raises(UserError, match="60000x1 pixels are too narrow to be cropped"):
        nin_pictures.read(path, 1, (64, 64), Preprocessing(resize="crop"))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16"])
def test_grayscale_modes(tmp_path, mode):
    image = Image.new(mode, (3, 2))
    for split in ("train", "test"):
        (tmp_path / split / "a").mkdir(parents=True)
        image.save(tmp_path / split / "a" / "a.png")
    assert open_dataset(f"folder:{tmp_path}").image_shape == (2, 3, 1)


KINDS = ("jpg", "jfif", "png", "webp", "gif", "bmp", "dib", "tif", "TIFF", "ppm", "pgm", "avif")


def test_training_and_prediction_find_the_same_pictures_in_sub_folders_too(tmp_path):
    for split in ("train", "test"):
        save(tmp_path / split / "a" / "0.png", pictures(1, 6, 4, 3)[0])
        for i, kind in enumerate(KINDS):
            shape = (6, 4) if kind == "pgm" else (6, 4, 3)
            save(tmp_path / split / "a" / "2021" / str(i) / f"{i}.{kind}", pictures(1, *shape)[0])
        frames = [Image.fromarray(frame) for frame in pictures(3, 6, 4, 3, seed=1)]
        frames[0].save(
            tmp_path / split / "a" / "moving.gif", save_all=True, append_images=frames[1:]
        )
    source = open_dataset(f"folder:{tmp_path}").train.source
    found, left_out = listing.find([tmp_path / "train"])
    assert (len(source), left_out) == (2 + len(KINDS), [])
    assert open_dataset(f"folder:{tmp_path}").notes == (
        "2 of 28 pictures are gray and converted to color",
        "2 of 28 pictures are animated; one frame is read",
    )
    names = [os.path.relpath(path, tmp_path / "train") for path in found]
    for i, k in enumerate(hash_order(names)):
        np.testing.assert_array_equal(source[i][0], nin_pictures.read(found[k], 3, (6, 4)))
