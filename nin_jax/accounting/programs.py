"""The programs to analyze: a prediction, a training step, and the parts of a step.

Nothing is computed: models and batches are shapes only, so the batch size does not change the cost
of the analysis.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from nin_jax.inference.predictor import Predictor
from nin_jax.models import ops
from nin_jax.models.geometry import Layer
from nin_jax.models.init import flat
from nin_jax.models.nin import NiN, new_model, with_operations
from nin_jax.models.stages import ImageSize
from nin_jax.models.variants import Variant
from nin_jax.training.config import Precision
from nin_jax.training.device import default_micro_batch_size
from nin_jax.training.optimizer import make_optimizer
from nin_jax.training.recipes import Recipe
from nin_jax.training.step import cross_entropy, init_train_state, make_train_step

Shape = jax.ShapeDtypeStruct
TOTAL_STEPS = 1_000_000  # of the schedule; the number does not change the operations


def abstract_model(
    variant: Variant,
    in_channels: int,
    num_classes: int,
    image_size: ImageSize,
    precision: Precision,
    logit_relu: bool,
) -> NiN:
    """Return the network with shapes in place of parameters."""
    return nnx.eval_shape(
        lambda: new_model(
            variant,
            in_channels=in_channels,
            num_classes=num_classes,
            image_size=image_size,
            dtype=precision,
            logit_relu=logit_relu,
        )
    )


@dataclass(frozen=True)
class Programs:
    """Lowered programs of one network, recipe and batch.

    Attributes:
        model: with shapes in place of parameters, or with arrays.
        recipe: optimizer and loss.
        batch_size: images in a batch.
        micro_batch_size: images in a micro-batch of training; None for the device's default.
    """

    model: NiN
    recipe: Recipe
    batch_size: int
    micro_batch_size: int | None = None

    def plain(self) -> "Programs":
        """Return the same network in XLA's own operations, the whole batch at once."""
        model = with_operations(self.model, ops.PLAIN)
        return Programs(model, self.recipe, self.batch_size, self.batch_size)

    def at_once(self, batch_size: int) -> "Programs":
        """Return the same network for another batch size, the whole batch at once."""
        return Programs(self.model, self.recipe, batch_size, batch_size)

    @property
    def micro(self) -> int:
        """Images in a micro-batch."""
        wanted = self.micro_batch_size or default_micro_batch_size(self.model, self.batch_size)
        return min(wanted, self.batch_size)

    @property
    def micro_batches(self) -> int:
        """The number of micro-batches in a batch."""
        return -(-self.batch_size // self.micro)

    def forward(self, batch_size: int) -> jax.stages.Lowered:
        """Lower the logits of a batch, computed at once."""
        graphdef, params = nnx.split(self.model, nnx.Param)
        logits = jax.jit(lambda params, images: nnx.merge(graphdef, params)(images))
        return logits.lower(params, self._images(batch_size))

    def predict(self) -> jax.stages.Lowered:
        """Lower the program that `Predictor` runs for a batch, with weights as arguments."""
        return Predictor(self.model, self.batch_size).lower()

    def train_step(self) -> jax.stages.Lowered:
        """Lower the step that scripts/train.py runs on images that need no resize."""
        return self._train_step(self.batch_size, self.micro)

    def micro_step(self) -> jax.stages.Lowered:
        """Lower the step of one micro-batch, without the loop whose body XLA would count once."""
        return self._train_step(self.micro, self.micro)

    def _train_step(self, batch_size: int, micro: int) -> jax.stages.Lowered:
        graphdef, params = nnx.split(self.model, nnx.Param)
        optimizer = make_optimizer(self.recipe, TOTAL_STEPS)
        step = make_train_step(graphdef, optimizer, self.recipe, self.model.image_size, micro)
        state = jax.eval_shape(lambda params: init_train_state(params, optimizer), params)
        return step.lower(
            state,
            self._images(batch_size, jnp.uint8),
            Shape((batch_size,), jnp.int32),
            Shape((1, batch_size), jnp.int32),
        )

    def loss(self) -> jax.stages.Lowered:
        """Lower the forward pass, with dropout, and the loss of one micro-batch."""
        return jax.jit(self._loss).lower(*self._loss_arguments())

    def draws(self) -> jax.stages.Lowered | None:
        """Lower the random numbers of dropout for one micro-batch; None without dropout."""
        dropouts = [layer for layer in self.model.layers if layer.dropout]
        if not dropouts:
            return None

        def draw(key: jax.Array) -> list[jax.Array]:
            return [jax.random.bernoulli(key, 1 - d.dropout, flat(d.out_shape)) for d in dropouts]

        return jax.jit(jax.vmap(draw)).lower(self._keys())

    def gradient(self) -> jax.stages.Lowered:
        """Lower forward pass, loss and the gradient to every parameter, of one micro-batch."""
        return jax.jit(jax.value_and_grad(self._loss)).lower(*self._loss_arguments())

    def _loss(
        self, params: Any, images: jax.Array, labels: jax.Array, keys: jax.Array
    ) -> jax.Array:
        graphdef, _ = nnx.split(self.model, nnx.Param)
        logits = nnx.merge(graphdef, params)(images, rngs=keys)
        return cross_entropy(logits, labels, self.recipe.label_smoothing).sum()

    def _loss_arguments(self) -> tuple[Any, ...]:
        _, params = nnx.split(self.model, nnx.Param)
        return params, self._images(self.micro), Shape((self.micro,), jnp.int32), self._keys()

    def _keys(self) -> Any:
        return jax.eval_shape(lambda: jax.random.split(jax.random.key(0), self.micro))

    def optimizer(self) -> jax.stages.Lowered:
        """Lower the optimizer's update: from gradients to new parameters."""
        _, params = nnx.split(self.model, nnx.Param)
        optimizer = make_optimizer(self.recipe, TOTAL_STEPS)

        def update(grads: Any, state: Any, params: Any) -> Any:
            updates, state = optimizer.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        state = jax.eval_shape(optimizer.init, params)
        return jax.jit(update).lower(params, state, params)

    def layer_gradients(self) -> list["LayerGradients"]:
        """Lower the gradients of each convolution and linear layer, for one micro-batch."""
        layers = [layer for layer in self.model.layers if layer.macs]
        known: dict[Any, LayerGradients] = {}  # layers of the same shape share programs
        found: list[LayerGradients] = []
        for layer in layers:
            shape = layer.convolution, layer.in_shape, layer.out_shape
            if shape not in known:
                known[shape] = _layer_gradients(layer, self.model.operations, self.micro)
            found.append(known[shape])
        # Training does not need the gradient to the image.
        return [(None, found[0][1]), *found[1:]]

    def _images(self, batch_size: int, dtype: Any = jnp.float32) -> Shape:
        return Shape((batch_size, *self.model.image_size, self.model.in_channels), dtype)


# Programs of the gradients of one layer's product: to its input and to its weights.
LayerGradients = tuple[jax.stages.Lowered | None, jax.stages.Lowered]


def _layer_gradients(layer: Layer, operations: ops.Operations, batch_size: int) -> LayerGradients:
    if (conv := layer.convolution) is not None:
        kernel = (conv.kernel, conv.kernel, conv.in_channels, conv.out_channels)
        x, y = (batch_size, *layer.in_shape), (batch_size, *layer.out_shape)

        def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
            return operations.conv(x, kernel, conv.stride, conv.padding)
    else:
        features = math.prod(layer.in_shape)
        kernel = (features, *layer.out_shape)
        x, y = (batch_size, features), (batch_size, *layer.out_shape)

        def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
            return x @ kernel

    shapes = [Shape(shape, jnp.float32) for shape in (x, kernel, y)]
    to_input = jax.jit(lambda x, k, grad: jax.vjp(lambda x: product(x, k), x)[1](grad))
    to_weights = jax.jit(lambda x, k, grad: jax.vjp(lambda k: product(x, k), k)[1](grad))
    return to_input.lower(*shapes), to_weights.lower(*shapes)
