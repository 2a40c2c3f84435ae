"""The compiled steps: micro-batches, the last batch, transfers, recompilation, evaluation."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from sklearn.utils.class_weight import compute_class_weight

import nin_jax
from nin_jax import Stage, UserError, Variant
from nin_jax.data import transforms
from nin_jax.models.variants import get_variant
from nin_jax.training.class_weights import weights_of_classes
from nin_jax.training.config import TrainConfig, recipe_of
from nin_jax.training.evaluate import evaluate, make_eval_step
from nin_jax.training.feed import evaluation_parts
from nin_jax.training.optimizer import make_optimizer, make_schedule
from nin_jax.training.recipes import RECIPES, Recipe
from nin_jax.training.sharding import make_layout
from nin_jax.training.step import cross_entropy, init_train_state, make_train_step
from nin_jax.validation import from_json, to_json
from tests.support.virtual_devices import examples

TINY = Variant("tiny", stages=(Stage(4, 3, padding=1), Stage(8, 3, padding=1)), dropout=0.0)
SIZE = (16, 16)
RECIPE = Recipe(lr=0.1, momentum=0.9, batch_size=6)
NOISY = {
    "variant": Variant("noisy", stages=TINY.stages, dropout=0.5),
    "recipe": replace(RECIPE, augment="flip_shift"),
    "param_dtype": jnp.float64,
}


def start(variant=TINY, recipe=RECIPE, param_dtype=jnp.float32, steps=40):
    model = nin_jax.create_model(
        variant, image_size=SIZE, dtype=param_dtype, param_dtype=param_dtype
    )
    graphdef, params = nnx.split(model, nnx.Param)
    optimizer = make_optimizer(recipe, steps)
    state = init_train_state(params, optimizer)
    return graphdef, optimizer, state


@partial(jax.jit, static_argnums=0)
def logits_of(graphdef, params, images):
    return nnx.merge(graphdef, params)(transforms.prepare(images, SIZE))


def train(micro_batch_size, steps=8, **kw):
    graphdef, optimizer, state = start(**kw)
    recipe = kw.get("recipe", RECIPE)
    step = make_train_step(graphdef, optimizer, recipe, SIZE, micro_batch_size)
    split = examples(20)
    per_epoch = -(-len(split.labels) // recipe.batch_size)
    sums = []
    for i in range(steps):
        if i % per_epoch == 0:
            order = transforms.epoch_order(
                state.key, jnp.int32(i // per_epoch), 20, recipe.batch_size
            )
        state, new = step(state, split.images, split.labels, order)
        sums.append(new.sums)
    return state, sums, step


@pytest.fixture(scope="module")
def whole_batches():
    """The state and the sums of steps that compute a batch at once."""
    with jax.enable_x64(True):
        return train(6, **NOISY)[:2]


@pytest.mark.parametrize("micro_batch_size", [1, 4])
def test_micro_batches_add_up_to_the_batch(whole_batches, micro_batch_size):
    """float64 bound 1e-12: the sums differ in order alone. 4 does not divide 6.

    Dropout and augmentation of an example do not depend on the other examples in its micro-batch.
    """
    whole, whole_sums = whole_batches
    with jax.enable_x64(True):
        parts, part_sums, _ = train(micro_batch_size, **NOISY)
    for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(parts.params), strict=True):
        assert np.abs(a - b).max() <= 1e-12 * np.abs(a).max()
    np.testing.assert_allclose(
        [float(s.loss) for s in whole_sums], [float(s.loss) for s in part_sums], rtol=1e-12
    )
    for a, b in zip(whole_sums, part_sums, strict=True):
        np.testing.assert_array_equal(a.labels, b.labels)
        np.testing.assert_array_equal(a.predictions, b.predictions)


def test_the_last_batch_counts_what_it_holds_and_nothing_recompiles():
    _, sums, step = train(6, steps=8)
    assert [int(s.count) for s in sums] == [6, 6, 6, 2] * 2
    assert [int(s.labels.sum()) for s in sums] == [6, 6, 6, 2] * 2
    assert [int(s.predictions.sum()) for s in sums] == [6, 6, 6, 2] * 2
    assert step._cache_size() == 1  # type: ignore[attr-defined]


def test_a_step_consumes_the_state_and_transfers_nothing():
    graphdef, optimizer, state = start()
    step = make_train_step(graphdef, optimizer, RECIPE, SIZE, 6)
    split = examples(20)
    images, labels = jax.device_put((split.images, split.labels))
    order = transforms.epoch_order(state.key, jnp.int32(0), 20, 6)
    with jax.transfer_guard("disallow"):
        for _ in range(4):
            given = state
            state, sums = step(given, images, labels, order)
            assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given.params))
        jax.device_get(sums)  # explicit
        with pytest.raises(Exception, match=r"[Dd]isallowed"):
            step(state, images, labels, np.zeros((4, 6), np.int32))


def test_dropout_and_augmentation_are_drawn_anew_each_step():
    noisy = Variant("noisy", stages=TINY.stages, dropout=0.5)
    recipe = replace(RECIPE, lr=1e-30, augment="flip_shift", batch_size=20)
    _, sums, _ = train(20, steps=3, variant=noisy, recipe=recipe)
    assert len({float(s.loss) for s in sums}) == 3
    _, again, _ = train(20, steps=3, variant=noisy, recipe=recipe)
    assert [float(s.loss) for s in sums] == [float(s.loss) for s in again]


@pytest.mark.parametrize("batch_size", [3, 64])
def test_evaluation_counts_every_example_once(batch_size):
    graphdef, _, state = start()
    split = examples(20)
    layout = make_layout(jax.devices()[:1])
    step = make_eval_step(graphdef, SIZE, batch_size, layout)
    score = evaluate(
        step,
        state.params,
        evaluation_parts(layout, split.read, 20, 7),
        count=20,
        num_classes=10,
        batch_size=batch_size,
        layout=layout,
    )
    logits = np.asarray(logits_of(graphdef, state.params, split.images))
    wanted = np.zeros((10, 10), int)
    np.add.at(wanted, (split.labels, logits.argmax(1)), 1)
    np.testing.assert_array_equal(score.confusion, wanted)
    assert score.accuracy == (logits.argmax(1) == split.labels).mean()
    loss = cross_entropy(logits, jnp.asarray(split.labels)).mean()
    np.testing.assert_allclose(score.loss, loss, rtol=1e-6)
    assert sum(row["images"] for row in score.per_class()) == 20


def test_balanced_weights_are_scikit_learns():
    labels = np.repeat([0, 1, 3, 4], [1, 7, 30, 2])
    present = np.unique(labels)
    expected = np.zeros(6)  # classes 2 and 5 have no examples
    expected[present] = compute_class_weight("balanced", classes=present, y=labels)
    found = weights_of_classes("balanced", labels, 6)
    assert found is not None
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    with pytest.raises(UserError, match="use --feed resident"):
        weights_of_classes("balanced", None, 6)


def test_label_smoothing_against_its_formula():
    logits = jnp.array([[2.0, 0.0, -1.0]])
    targets = np.array([0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3])
    wanted = -(targets * np.asarray(jax.nn.log_softmax(logits))).sum()
    np.testing.assert_allclose(cross_entropy(logits, jnp.array([0]), 0.1)[0], wanted, rtol=1e-6)


def rates_of(recipe, total_steps, count):
    schedule = make_schedule(recipe, total_steps)
    return [np.asarray(schedule(step)) for step in range(count)]


def test_a_warm_up_of_less_than_a_step_and_a_constant_rate():
    recipe = recipe_of(TrainConfig(recipe="modern", lr=1.0, warmup=0.01))
    assert max(rates_of(recipe, 20, 20)) == pytest.approx(1.0)
    assert rates_of(recipe_of(TrainConfig(variant="nin")), 10, 10)[9] == pytest.approx(0.03)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_the_same_after_a_file_and_has_the_variants_size(name):
    for variant in ("nin", "nin_cifar10"):
        recipe = recipe_of(TrainConfig(variant=variant, recipe=name))
        assert from_json(Recipe, to_json(recipe)) == recipe
        assert recipe.image_size == get_variant(variant).image_size
    assert (
        recipe_of(TrainConfig(variant="nin_cifar10", recipe=name, image_size=40)).image_size == 40
    )


def test_lr_batch_size_scales_the_learning_rate():
    config = TrainConfig(recipe="modern", batch_size=1024)
    assert recipe_of(config).lr == 0.01
    assert recipe_of(replace(config, lr_batch_size=64)).lr == pytest.approx(0.01 * 16)
