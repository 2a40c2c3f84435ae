"""The compiled training step, with micro-batches, against the published pipeline."""

from dataclasses import replace

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from PIL import Image

import nin_jax
import nin_torch_ref
from nin_jax.data import transforms
from nin_jax.training.optimizer import make_optimizer
from nin_jax.training.recipes import Recipe
from nin_jax.training.step import init_train_state, make_train_step
from parity_tests.frameworks import as_array, as_nchw, as_tensor, assert_close
from parity_tests.pairs import make_pair
from parity_tests.tolerances import GRADIENT, OPTIMIZER_STEPS

SIZE = (67, 71)
RECIPE = Recipe(lr=0.1, momentum=0.9, nesterov=True, batch_size=6)
EXAMPLES, EPOCHS = 16, 2  # batches of 6, 6 and 4


def _examples() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(EXAMPLES, 28, 28, 1), dtype=np.uint8)
    return images, rng.integers(10, size=EXAMPLES).astype(np.int32)


def _published_pipeline(images: np.ndarray) -> torch.Tensor:
    """Resize on PIL images, then ToTensor: uint8 [B, 28, 28, 1] -> [B, 1, height, width]."""
    resized = [
        np.asarray(Image.fromarray(i[..., 0]).resize((SIZE[1], SIZE[0]), Image.Resampling.BILINEAR))
        for i in images
    ]
    return as_nchw(np.stack(resized)[..., None].astype(np.float32) / np.float32(255)).double()


@pytest.mark.parametrize("micro_batch_size", [4, pytest.param(6, marks=pytest.mark.slow)])
def test_epochs_of_the_compiled_step(micro_batch_size):
    variant = replace(nin_jax.get_variant("nin_one_1x1"), dropout=0.0)
    pair = make_pair(variant, image_size=SIZE)
    images, labels = _examples()
    graphdef, params = nnx.split(pair.model, nnx.Param)
    optimizer = make_optimizer(RECIPE, total_steps=6)
    state = init_train_state(params, optimizer)
    step = make_train_step(graphdef, optimizer, RECIPE, SIZE, micro_batch_size)
    reference = torch.optim.SGD(pair.reference.parameters(), 0.1, momentum=0.9, nesterov=True)
    losses, expected_losses = [], []
    for epoch in range(EPOCHS):
        order = transforms.epoch_order(
            state.key, jax.numpy.int32(epoch), EXAMPLES, RECIPE.batch_size
        )
        for row in np.asarray(order):
            state, figures = step(state, images, labels, order)
            losses.append(float(figures.sums.loss / figures.sums.count))
            batch = row[row >= 0]
            loss = nin_torch_ref.train_step(
                pair.reference,
                reference,
                _published_pipeline(images[batch]),
                as_tensor(labels[batch].astype(np.int64)),
            )
            expected_losses.append(float(loss))
    assert_close(losses, expected_losses, OPTIMIZER_STEPS, "losses")
    actual = nin_jax.convert.to_torch(nnx.merge(graphdef, state.params))
    for name, value in pair.reference.state_dict().items():
        assert_close(actual[name], as_array(value), OPTIMIZER_STEPS, name)


@pytest.mark.parametrize(
    ("smoothing", "micro_batch_size"),
    [pytest.param(0.0, 16, marks=pytest.mark.slow), (0.1, 5)],
)
def test_gradient_of_a_loss_with_class_weights(smoothing, micro_batch_size):
    """A step of plain SGD at rate 1 subtracts the gradient."""
    variant = replace(nin_jax.get_variant("nin_one_1x1"), dropout=0.0)
    pair = make_pair(variant, image_size=SIZE)
    images, labels = _examples()
    weights = np.random.default_rng(1).uniform(0.2, 5, 10)
    recipe = Recipe(lr=1.0, batch_size=EXAMPLES, label_smoothing=smoothing)
    graphdef, params = nnx.split(pair.model, nnx.Param)
    before = nin_jax.convert.to_torch(pair.model)
    optimizer = make_optimizer(recipe, total_steps=1)
    step = make_train_step(
        graphdef, optimizer, recipe, SIZE, micro_batch_size, class_weights=weights
    )
    order = np.random.default_rng(2).permutation(EXAMPLES)[None].astype(np.int32)
    state, figures = step(init_train_state(params, optimizer), images, labels, order)
    criterion = torch.nn.CrossEntropyLoss(as_tensor(weights), label_smoothing=smoothing)
    targets = as_tensor(labels.astype(np.int64))
    loss = criterion(pair.reference(_published_pipeline(images)), targets)
    loss.backward()
    assert_close(float(figures.sums.loss / EXAMPLES), loss.item(), GRADIENT["float64"], "loss")
    after = nin_jax.convert.to_torch(nnx.merge(graphdef, state.params))
    for name, parameter in pair.reference.named_parameters():
        assert parameter.grad is not None
        gradient = before[name] - after[name]
        assert_close(gradient, as_array(parameter.grad), GRADIENT["float64"], name)
