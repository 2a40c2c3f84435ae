"""Inference on arrays of images, compiled once for any number of images."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from nin_jax.data import transforms
from nin_jax.errors import UserError
from nin_jax.models.nin import NiN, with_dtype
from nin_jax.reading import shown
from nin_jax.training.config import Precision
from nin_jax.training.device import default_device, default_micro_batch_size
from nin_jax.training.step import split_micro_batches


class Predictor:
    """Compute a model's logits for arrays of images.

    There is one compiled program for each shape and dtype of images. The last batch is padded, so
    it needs no other program. On a CPU a batch is computed in micro-batches that fit its caches;
    those of padding alone are left out, so that a few images take little time. On a CPU with a
    batch size of 1, the weights are constants of the program: XLA arranges them for its products
    once, not at each call, which saves up to a sixth of the time. Use that to predict images one
    at a time.

    Args:
        model: its parameters are copied; later changes of the model have no effect.
        batch_size: images sent to the device at a time.
        precision: precision of the computation; None for the model's own. It does not change
            the dtype of the logits.

    Raises:
        UserError: ``model`` is not a NiN, ``batch_size`` is not a whole number above 0, or the
            precision is unknown.

    Example:
        >>> predictor = Predictor(create_model("nin15", image_size=96), batch_size=32)
        >>> predictor(np.zeros((50, 28, 28, 1), np.uint8)).shape
        (50, 10)
    """

    def __init__(self, model: NiN, batch_size: int = 128, precision: Precision | None = None):
        check_model(model)
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
            raise UserError(f"batch_size must be a whole number >= 1, got {shown(batch_size)}")
        if precision not in (None, "float32", "bfloat16"):
            raise UserError(f"precision must be float32 or bfloat16, got {shown(precision)}")
        self.model = with_dtype(model, precision) if precision else nnx.clone(model)
        size, preprocessing = self.model.image_size, self.model.preprocessing
        self.batch_size = batch_size
        graphdef, params = nnx.split(self.model, nnx.Param)
        # nnx's containers would take a tenth of the time of a call with one image.
        self._arrays, structure = jax.tree.flatten(params)
        micro = default_micro_batch_size(model, batch_size)

        def logits(arrays: list[jax.Array], images: jax.Array) -> jax.Array:
            if images.dtype == jnp.uint8:
                images = transforms.prepare(images, size, preprocessing)
            model = nnx.merge(graphdef, jax.tree.unflatten(structure, arrays))
            return model(images)  # [M, classes]

        def batch(
            images: jax.Array, count: jax.Array, arrays: list[jax.Array] = self._arrays
        ) -> jax.Array:
            parts = split_micro_batches(jnp.arange(batch_size), micro)  # [n, M]
            if len(parts) == 1:
                return logits(arrays, images)

            def add(i: jax.Array, done: jax.Array) -> jax.Array:
                return done.at[i].set(logits(arrays, images[parts[i]]))

            one = jax.eval_shape(logits, arrays, images[parts[0]])
            done = jnp.zeros((len(parts), *one.shape), one.dtype)  # [n, M, classes]
            done = jax.lax.fori_loop(0, -(-count // micro), add, done)
            return done.reshape(-1, done.shape[-1])[:batch_size]

        self._batch = jax.jit(batch)
        # Each network would add a program of its size to the compilation cache, so a larger batch,
        # which gains less, takes them as arguments.
        constants = batch_size == 1 and default_device().platform == "cpu"
        self._arguments = () if constants else (self._arrays,)

    def __call__(self, images: np.ndarray | jax.Array) -> np.ndarray:
        """Return the logits.

        Args:
            images: uint8 [N, H, W, C] of any size, resized to the model's as in training, by the
                rule of its preprocessing, and divided by 255; or float [N, height, width, C] in
                [0, 1] of the model's size.

        Returns:
            [N, num_classes] in the `logit_dtype` of the model: float32, or float64.

        Raises:
            UserError: the dtype or the shape does not match the model.
        """
        check_images(self.model, images)
        pending = [self._batch(*part, *self._arguments) for part in self._parts(images)]
        if not pending:
            return np.zeros((0, self.model.num_classes), self.model.logit_dtype)
        # Of one batch too this is a copy, which may be written: an array of JAX may not.
        return np.concatenate(jax.device_get(pending))[: len(images)]

    def __reduce__(self) -> tuple[type["Predictor"], tuple[NiN, int]]:
        """Copy and pickle the network; the copy compiles its own program, for its own device."""
        return type(self), (self.model, self.batch_size)

    def lower(self) -> jax.stages.Lowered:
        """Lower the program for float32 images of the model's size; the weights are arguments."""
        shape = (self.batch_size, *self.model.image_size, self.model.in_channels)
        images = jax.ShapeDtypeStruct(shape, jnp.float32)
        return self._batch.lower(images, self.batch_size, self._arrays)

    def probabilities(self, images: np.ndarray | jax.Array) -> np.ndarray:
        """Return the softmax of the logits, in their shape and dtype; arguments as for the call."""
        return np.array(jax.nn.softmax(self(images)))

    def _parts(
        self, images: np.ndarray | jax.Array
    ) -> Iterator[tuple[np.ndarray | jax.Array, int]]:
        """Yield batches and their counts of images; the last one is padded with black images."""
        size = self.batch_size
        whole = len(images) // size
        if whole == 1 and len(images) == size:  # even a full slice of a device array takes time
            yield images, size
            return
        for i in range(whole):
            yield images[i * size : (i + 1) * size], size
        if missing := -len(images) % size:
            rest = np.asarray(images[whole * size :])
            yield np.pad(rest, ((0, missing), (0, 0), (0, 0), (0, 0))), len(rest)


def check_model(model: NiN) -> None:
    """Raise a `UserError` if the model is not a NiN."""
    if not isinstance(model, NiN):
        raise UserError(f"the model must be a NiN, as create_model makes it, got {shown(model)}")


def check_images(model: NiN, images: np.ndarray | jax.Array) -> None:
    """Check images that are uint8 of any size, or floating of the model's.

    Raises:
        UserError: the dtype or the shape does not match the model.
    """
    channels, size = model.in_channels, model.image_size
    if not isinstance(images, np.ndarray | jax.Array):
        raise UserError(f"images must be an array, got {shown(images)}")
    if images.ndim != 4 or images.shape[3] != channels:
        raise UserError(
            f"images must be [N, H, W, {channels}], got {list(images.shape)}: the model takes "
            f"{channels} channel{'s' if channels > 1 else ''}"
        )
    if images.dtype == np.uint8:
        if 0 in images.shape[1:3]:
            raise UserError(f"images need one or more pixels, got {list(images.shape)}")
        return
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise UserError(f"images must be uint8 or floating in [0, 1], got {images.dtype}")
    if images.shape[1:3] != size:
        raise UserError(
            f"float images must be {size[0]}x{size[1]}, as the model, got "
            f"{images.shape[1]}x{images.shape[2]}; uint8 images are resized"
        )
