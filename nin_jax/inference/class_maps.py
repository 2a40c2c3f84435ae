"""Where in a picture a trained network finds each class: the paper's figure 4."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from rich.console import Console
from rich.progress import Progress

from nin_jax.data import transforms
from nin_jax.errors import UserError, one_line
from nin_jax.inference.files import PictureSource, find, read_batches
from nin_jax.inference.predictor import check_images, check_model
from nin_jax.models.nin import NiN, class_maps
from nin_jax.runs import workdir

BATCH_SIZE = 64


@dataclass(frozen=True)
class Explanation:
    """A picture and the maps of the network's last block.

    Attributes:
        image: uint8 [H, W, C].
        maps: [H', W', classes], float32 or float64.
        logits: [classes], the mean of each map.
    """

    image: np.ndarray
    maps: np.ndarray
    logits: np.ndarray


def explain_images(model: NiN, images: np.ndarray) -> list[Explanation]:
    """Return the class maps of images.

    Args:
        model: with a "mean" classifier.
        images: uint8 [N, H, W, C] of any size, resized to the model's.

    Raises:
        UserError: the images have another dtype or shape, or the model is not a NiN or has a linear
            classifier, and so no class maps.
    """
    check_model(model)
    check_images(model, images)
    if images.dtype != np.uint8:
        raise UserError(f"images must be uint8, got {images.dtype}; `class_maps` takes float ones")
    graphdef, params = nnx.split(model, nnx.Param)
    found = np.asarray(_maps(graphdef, model.image_size, params, images))  # [N, H', W', classes]
    return [
        Explanation(image, maps, maps.mean((0, 1)))
        for image, maps in zip(images, found, strict=True)
    ]


@partial(jax.jit, static_argnums=(0, 1))
def _maps(graphdef: Any, size: tuple[int, int], params: nnx.State, images: jax.Array) -> jax.Array:
    model = nnx.merge(graphdef, params)
    return class_maps(model, transforms.prepare(images, size, model.preprocessing))


@dataclass(frozen=True)
class ExplainConfig(PictureSource):
    """Draw the maps of the last block, one for each class, over pictures (figure 4 of the paper).

    The mean of a map is the logit of its class. For a picture that cannot be read an error is
    printed and the exit code is 1, or 2 if none can be read.
    """

    test_images: int | None = None
    """Instead of pictures, draw the maps over the first N test images (of a run with --holdout,
    its held-out training images)."""

    data_dir: Path | None = None
    """Folder with the dataset's files. Default: the run's, $NIN_DATA_DIR, or the user's."""

    out: Path = Path("maps")
    """Folder for NAME-maps.png, one for each picture, or test-00000-maps.png and so on."""


def explain(config: ExplainConfig) -> tuple[list[Path], list[str]]:
    """Draw the class maps of a trained network over pictures or test images.

    Returns:
        The files written, and one error message for each picture that cannot be read.

    Raises:
        UserError: options contradict each other, a path or the network does not exist, the weights
            do not fit, the network has no class maps, ``out`` is a file, a figure cannot be
            written, there are fewer test images, or the data are not those of the training.
    """
    if config.test_images is None:
        if config.data_dir is not None:
            raise UserError("--data-dir needs --test-images, the number of test images to draw")
        return _explain_files(config)
    if config.pictures:
        raise UserError("give pictures or --test-images, not both")
    if config.test_images < 1:
        raise UserError(f"--test-images must be >= 1, got {config.test_images}")
    return _explain_test_images(config, config.test_images), []


def _explain_files(config: ExplainConfig) -> tuple[list[Path], list[str]]:
    from nin_jax.plotting import plot_class_maps  # matplotlib is slow to import

    out, files = config.out, find(config.pictures)
    workdir.check_folder("--out", out)
    trained = config.load()
    written: list[Path] = []
    faults: list[str] = []
    for readable, images, errors in read_batches(files, trained, BATCH_SIZE):
        faults += errors
        if not readable:
            continue
        found = explain_images(trained.model, images)
        workdir.make_folder("--out", out)
        for path, each in zip(readable, found, strict=True):
            written.append(_free_name(out, path.stem, written))
            with one_line(f"cannot write {written[-1]}"):
                plot_class_maps(each.image, each.maps, trained.class_names, path.name, written[-1])
    return written, faults


def _explain_test_images(config: ExplainConfig, count: int) -> list[Path]:
    from nin_jax.plotting import plot_class_maps  # matplotlib is slow to import

    out = config.out
    workdir.check_folder("--out", out)
    trained = config.load()
    dataset = trained.dataset(config.data_dir)
    if count > len(dataset.test):
        raise UserError(f"--test-images {count:,}: there are {len(dataset.test):,} test images")
    names, files = trained.class_names, []
    kind = "test image" if trained.config.holdout is None else "held-out image"
    size = min(BATCH_SIZE, count)
    indices = np.pad(np.arange(count), (0, -count % size), constant_values=-1)  # whole batches
    with Progress(console=Console(stderr=True), disable=count < 10) as bar:
        task = bar.add_task("test images", total=count)
        for images, labels in dataset.test.read(indices, size):
            left = count - len(files)  # the last batch may be padded
            found = explain_images(trained.model, images)[:left]
            workdir.make_folder("--out", out)
            for label, each in zip(labels[:left], found, strict=True):
                files.append(out / f"test-{len(files):05d}-maps.png")
                predicted = names[each.logits.argmax()]
                title = f"{kind} {len(files) - 1}: {names[label]}, predicted {predicted}"
                with one_line(f"cannot write {files[-1]}"):
                    plot_class_maps(each.image, each.maps, names, title, files[-1])
                bar.advance(task)
    return files


def _free_name(out: Path, stem: str, written: Sequence[Path]) -> Path:
    """Return a name that no other picture of this call has, such as one from another folder."""
    target, number = out / f"{stem}-maps.png", 2
    while target in written:
        target, number = out / f"{stem}-{number}-maps.png", number + 1
    return target
