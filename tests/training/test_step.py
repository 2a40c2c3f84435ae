"""The compiled steps: micro-batches, the last batch, transfers, recompilation, evaluation."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from sklearn.utils.class_weight import compute_class_weight

import nin_jax
from nin_jax import Stage, UserError, Variant
from nin_jax.data import transforms
from nin_jax.data.datasets import Split
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

TINY = Variant("tiny", stages=(Stage(4, 3, padding=1), Stage(8, 3, padding=1)), dropout=0.0)
SIZE = (16, 16)
RECIPE = Recipe(lr=0.1, momentum=0.9, batch_size=6)
NOISY = {
    "variant": Variant("noisy", stages=TINY.stages, dropout=0.5),
    "recipe": replace(RECIPE, augment="flip_shift"),
    "param_dtype": jnp.float64,
}


def examples(count=20):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 8, 8, 1), np.uint8)
    return Split(images, rng.integers(0, 10, count).astype(np.int32))


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
    split = examples()
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


@pytest.mark.parametrize("micro_batch_size", [1, 4, pytest.param(5, marks=pytest.mark.slow)])
def test_micro_batches_add_up_to_the_batch(whole_batches, micro_batch_size):
    """float64 bound 1e-12: the sums differ in order alone. 4 and 5 do not divide 6.

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


def test_a_partial_batch_trains_as_its_examples_alone_would():
    graphdef, optimizer, state = start()
    split = examples(2)
    order = jnp.array([[1, 0, -1, -1, -1, -1]])

    def loss(params):
        return cross_entropy(logits_of(graphdef, params, split.images), split.labels).mean()

    @jax.jit
    def update(params):
        updates, _ = optimizer.update(jax.grad(loss)(params), state.opt_state, params)
        return optax.apply_updates(params, updates)

    wanted = update(state.params)
    step = make_train_step(graphdef, optimizer, RECIPE, SIZE, 6)
    got, _ = step(state, split.images, split.labels, order)
    for a, b in zip(jax.tree.leaves(wanted), jax.tree.leaves(got.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_step_consumes_the_state_and_transfers_nothing():
    graphdef, optimizer, state = start()
    step = make_train_step(graphdef, optimizer, RECIPE, SIZE, 6)
    images, labels = jax.device_put((examples().images, examples().labels))
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
    split = examples()
    layout = make_layout(jax.devices()[:1])
    step = make_eval_step(graphdef, SIZE, 10, batch_size, layout)
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


def test_epoch_order_is_a_permutation_of_all_and_differs_by_epoch():
    key = jax.random.key(0)
    first, second = (np.asarray(transforms.epoch_order(key, jnp.int32(e), 20, 6)) for e in (0, 1))
    assert first.shape == (4, 6)
    assert sorted(first.ravel())[:4] == [-1] * 4
    assert sorted(first.ravel())[4:] == list(range(20))
    assert not np.array_equal(first, second)


def test_augment_flips_and_shifts_whole_images():
    image = np.arange(1, 65, dtype=np.uint8).reshape(1, 8, 8, 1)
    batch, keys = jnp.asarray(np.repeat(image, 1000, 0)), jax.random.split(jax.random.key(0), 1000)
    flipped = np.asarray(transforms.augment(batch, keys, 0))
    kinds = {row.tobytes() for row in flipped}
    assert kinds == {image.tobytes(), image[:, :, ::-1].tobytes()}
    moved = np.asarray(transforms.augment(batch, keys, 2))
    assert len({row.tobytes() for row in moved}) == 2 * 5 * 5
    assert set(np.unique(moved)) == set(range(65))  # 0 comes in at the edge


@pytest.mark.parametrize(("size", "padding"), [((32, 32), 4), ((28, 28), 3), ((24, 40), 5)])
def test_pad_crop_pads_with_zeros_and_crops_at_random(size, padding):
    """Every place of the crop occurs, with and without a flip, as in this statement in NumPy."""
    assert transforms.largest_shift("pad_crop", size) == padding
    image = np.random.default_rng(0).integers(1, 256, (*size, 3), np.uint8)
    places, possible = range(2 * padding + 1), {}
    for flip in (False, True):
        padded = np.pad(image[:, ::-1] if flip else image, ((padding,) * 2, (padding,) * 2, (0, 0)))
        for row in places:
            for column in places:
                crop = padded[row : row + size[0], column : column + size[1]]
                possible[crop.tobytes()] = 0
    keys = jax.random.split(jax.random.key(1), 20 * len(possible))
    batch = jnp.broadcast_to(jnp.asarray(image), (len(keys), *image.shape))
    for crop in np.asarray(jax.jit(transforms.augment, static_argnums=2)(batch, keys, padding)):
        possible[crop.tobytes()] += 1  # a KeyError means that it is none of them
    # Of 20 on average, fewer than 3 anywhere would happen with one key in 10,000.
    assert min(possible.values()) > 2
    assert max(possible.values()) < 50


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


def test_schedule_warms_up_from_its_first_step_and_ends_at_zero():
    recipe = recipe_of(TrainConfig(recipe="modern", lr=1.0, warmup=0.01))
    rates = rates_of(recipe, 1000, 1001)
    np.testing.assert_allclose(rates[:11], np.linspace(0.1, 1, 11), rtol=1e-6)
    assert rates[1000] == pytest.approx(0, abs=1e-7)
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


def test_weight_decay_spares_biases():
    recipe = replace(RECIPE, momentum=0.0, weight_decay=0.5, lr=1.0)
    params = [jnp.ones((2, 2)), jnp.ones(2)]  # a kernel and a bias
    optimizer = make_optimizer(recipe, 10)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    kernel, bias = jax.tree.leaves(updates)
    np.testing.assert_array_equal(kernel, -0.5 * np.ones((2, 2)))
    np.testing.assert_array_equal(bias, np.zeros(2))
