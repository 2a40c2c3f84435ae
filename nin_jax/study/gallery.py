"""The gallery of the study's page: class maps of some images, by one trained network."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nin_jax.data.datasets import Dataset
from nin_jax.errors import RunError, UserError, one_line
from nin_jax.inference.class_maps import explain_images
from nin_jax.models.variants import get_variant
from nin_jax.runs import manifest, workdir
from nin_jax.runs.trained import load_run
from nin_jax.study.grid import Row
from nin_jax.study.networks import Networks, key

GALLERY = "gallery"
SHOWN = 4  # pictures with a right prediction, and as many with a wrong one


def check(folder: Path) -> None:
    """Refuse, by a `UserError`, a run whose network has no class maps, or maps of one pixel."""
    model = load_run(folder)
    if model.linear is not None:
        raise UserError(f"--gallery {folder}: its network has no class maps")
    height, width, _ = model.layers[-1].in_shape
    if height * width == 1:
        raise UserError(
            f"--gallery {folder}: its class maps have a single pixel; give a run with larger images"
        )


def check_fits(folder: Path, dataset: Dataset) -> None:
    """Check that the network of the gallery is for images and classes as those of the study.

    Raises:
        UserError: it does not.
    """
    sizes = manifest.read_run(folder).sizes
    wanted = {"in_channels": dataset.image_shape[2], "num_classes": dataset.num_classes}
    for name, value in wanted.items():
        if sizes[name] != value:
            raise UserError(
                f"--gallery {folder} has {name} {sizes[name]}, and {dataset.name} has {value}"
            )


def draw(run: Path, dataset: Dataset, kind: str, out: Path) -> list[dict[str, str]]:
    """Draw class maps of some test images into ``gallery/``.

    Args:
        run: folder of the trained network.
        dataset: with the images.
        kind: what to call one of them in the captions.
        out: folder of the study.

    Returns:
        File name and caption of each picture.

    Raises:
        RunError: a picture cannot be written.
    """
    from nin_jax.plotting import plot_class_maps  # matplotlib is slow to import

    model = load_run(run)
    labels = dataset.test.labels[:256]
    found = explain_images(model, dataset.test.images[:256])
    predicted = np.array([explanation.logits.argmax() for explanation in found])
    right = predicted == labels
    chosen = [*np.flatnonzero(right)[:SHOWN], *np.flatnonzero(~right)[:SHOWN]]
    workdir.make_folder("--out", out / GALLERY)
    pictures = []
    for i in chosen:
        label, prediction = (dataset.class_names[n] for n in (labels[i], predicted[i]))
        caption = f"{run.name}, {kind} {i}: {label}, predicted {prediction}"
        path = out / GALLERY / f"{i:05d}.png"
        with one_line(f"cannot write {path}", raised=RunError):
            plot_class_maps(found[i].image, found[i].maps, dataset.class_names, caption, path)
        pictures.append({"file": f"{i:05d}.png", "caption": caption})
    return pictures


def largest_maps(rows: Sequence[Row], networks: Networks, out: Path) -> Path | None:
    """Return the folder of the study's run with the largest maps, if they are not of one pixel."""
    best, largest = None, 1
    for row in sorted(rows, key=lambda row: row["recipe"] != "modern"):
        if row["collapsed"] or row["change"] or get_variant(row["variant"]).classifier != "mean":
            continue
        folder = out / "runs" / row["cell"]
        height, width = networks[key(row["variant"], row["recipe"])]["head_map"]
        if height * width > largest and (folder / workdir.WEIGHTS).exists():
            best, largest = folder, height * width
    return best
