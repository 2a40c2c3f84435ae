"""Export a trained network as a program that runs without this package."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import jax.export  # not imported by jax itself
import jax.numpy as jnp
from flax import nnx

from nin_jax.data import transforms
from nin_jax.errors import one_line
from nin_jax.models.nin import NiN
from nin_jax.runs import workdir
from nin_jax.runs.trained import Source
from nin_jax.writing import replacing

PLATFORMS = ("cpu", "cuda")

Images = Literal["float32", "uint8"]


@dataclass(frozen=True)
class ExportConfig(Source):
    """Write the network of a run, or shipped weights, as one file that JAX runs without nin_jax.

    The file has the program in StableHLO for the CPU and CUDA, and the weights. It takes any number
    of images, at least one. To run it: jax.export.deserialize(bytearray(content)).call(images).
    """

    out: Path = Path("nin.jax_export")
    """File to write."""

    images: Images = "float32"
    """Type of the images that the program takes, [B, height, width, C] of the network's size:
    float32 in [0, 1], or uint8."""


def export_program(model: NiN, images: Images = "float32") -> bytes:
    """Return a serialized program that computes the model's logits on the CPU and on CUDA.

    Args:
        model: its parameters become part of the program.
        images: type of the program's argument, [B, height, width, C] of the model's size: float32
            in [0, 1], or uint8, which the program divides by 255.

    Returns:
        Bytes for `jax.export.deserialize`. The program returns logits [B, num_classes] in the
        model's `logit_dtype`, for any B of at least 1.
    """
    graphdef, params = nnx.split(model, nnx.Param)

    def logits(x: jax.Array) -> jax.Array:
        x = transforms.prepare(x, model.image_size) if x.dtype == jnp.uint8 else x
        return nnx.merge(graphdef, params)(x)

    (batch,) = jax.export.symbolic_shape("b")
    x = jax.ShapeDtypeStruct((batch, *model.image_size, model.in_channels), images)
    return bytes(jax.export.export(jax.jit(logits), platforms=PLATFORMS)(x).serialize())


def export_source(config: ExportConfig) -> None:
    """Export a trained network into a file, and print what it takes and returns.

    A failure leaves no partial file.

    Raises:
        UserError: there is no such network, or the file exists or cannot be written.
    """
    out, images = config.out, config.images
    workdir.check_file(out)
    trained = config.load()
    model = trained.model
    content = export_program(model, images)
    with one_line(f"cannot write {out}"), replacing(out) as partial:
        partial.write_bytes(content)
    height, width = model.image_size
    print(
        f"wrote {out} ({len(content) / 1e6:.1f} MB): {model.variant.name} of {trained.origin}, "
        f"{images} [B, {height}, {width}, {model.in_channels}] -> logits [B, {model.num_classes}], "
        f"for {' and '.join(PLATFORMS)}"
    )
