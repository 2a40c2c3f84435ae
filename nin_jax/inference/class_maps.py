"""Where in a picture a trained network sees each class: the paper's figure 4."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from nin_jax.data import pictures, transforms
from nin_jax.errors import UserError
from nin_jax.models.nin import NiN, class_maps
from nin_jax.runs import workdir
from nin_jax.runs.trained import Source


@dataclass(frozen=True)
class Explanation:
    """A picture and what the network's last block makes of it.

    Attributes:
        image: uint8 [H, W, C].
        maps: float32 [H', W', classes], before their mean.
        logits: float32 [classes], their mean.
    """

    image: np.ndarray
    maps: np.ndarray
    logits: np.ndarray


def explain_images(model: NiN, images: np.ndarray) -> list[Explanation]:
    """The class maps of images, uint8 [N, H, W, C] of any one size.

    Raises:
        UserError: the model has a linear classifier, and so no class maps.
    """
    graphdef, params = nnx.split(model, nnx.Param)

    @jax.jit
    def maps_of(params: nnx.State, images: jax.Array) -> jax.Array:
        return class_maps(nnx.merge(graphdef, params), transforms.prepare(images, model.image_size))

    found = np.asarray(maps_of(params, images))  # [N, H', W', classes]
    return [
        Explanation(image, maps, maps.mean((0, 1)))
        for image, maps in zip(images, found, strict=True)
    ]


def explain_files(
    paths: Sequence[Path],
    source: Source,
    out: Path,
) -> tuple[list[Path], list[str]]:
    """Draws the class maps of pictures over them, by a trained network.

    Args:
        paths: picture files, and folders of them.
        source: where the network is taken from.
        out: folder for ``NAME-maps.png``, one a picture.

    Returns:
        The files written, and a line for each picture that cannot be read.

    Raises:
        UserError: a path or the network does not exist, the weights do not fit, the network has no
            class maps, or ``out`` is a file.
    """
    from nin_jax.plotting import plot_class_maps  # matplotlib is slow to import

    files = pictures.find(paths)
    workdir.check_folder("--out", out)
    trained = source.load()
    model, names = trained.model, trained.class_names
    readable: list[Path] = []
    images: list[np.ndarray] = []
    faults: list[str] = []
    for path in files:
        try:
            images.append(pictures.read(path, model.in_channels, model.image_size))
            readable.append(path)
        except UserError as error:
            faults.append(str(error))
    written: list[Path] = []
    if images:
        found = explain_images(model, np.stack(images))
        workdir.make_folder("--out", out)
        for path, explanation in zip(readable, found, strict=True):
            written.append(_free_name(out, path.stem, written))
            plot_class_maps(explanation.image, explanation.maps, names, path.name, written[-1])
    return written, faults


def _free_name(out: Path, stem: str, taken: Sequence[Path]) -> Path:
    """Pictures of one name from two folders do not overwrite each other."""
    target, number = out / f"{stem}-maps.png", 2
    while target in taken:
        target, number = out / f"{stem}-{number}-maps.png", number + 1
    return target
