"""The Flax network: shapes, state, dtypes, dropout, initialization and errors."""

import math

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import nin_jax
from nin_jax import Pool, Stage, Variant
from nin_jax.models import processor
from nin_jax.models.block import drop
from nin_jax.models.geometry import trace
from nin_jax.models.init import kernel_init
from nin_jax.models.variants import VARIANTS

TINY = Variant("tiny", stages=(Stage(8, 5, padding=2), Stage(16, 3, padding=1)))
# As few operations as possible, for tests that compile each by itself.
SMALLEST = Variant(
    "smallest",
    stages=(Stage(4, 2, mlp=(), pool=Pool(size=2)),),
    head=Stage(None, 1, mlp=(), pool=None),
)


@nnx.jit
def run(model, x, key=None):
    """Return the logits. Without jit each operation would be compiled by itself."""
    return model(x, rngs=None if key is None else nnx.Rngs(dropout=key))


@pytest.mark.parametrize("name", VARIANTS)
def test_parameters_are_the_only_state(name):
    model = nnx.eval_shape(lambda: nin_jax.create_model(name, image_size=96))
    _, params, rest = nnx.split(model, nnx.Param, ...)
    assert not jax.tree.leaves(rest)
    layers = trace(VARIANTS[name], 1, 10, 96)
    assert nin_jax.count_params(model) == sum(layer.params for layer in layers)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize("classifier", ["mean", "linear"])
@pytest.mark.parametrize("size", [(32, 32), (37, 45)])
def test_any_size_and_number_of_classes(classifier, size):
    variant = Variant("v", stages=TINY.stages, classifier=classifier)
    model = nin_jax.create_model(variant, in_channels=3, num_classes=7, image_size=size)
    assert run(model, jnp.zeros((2, *size, 3))).shape == (2, 7)


def test_the_mean_takes_other_image_sizes():
    model = nin_jax.create_model(TINY, image_size=32)
    assert run(model, jnp.zeros((1, 61, 40, 1))).shape == (1, 10)  # not the size it was made for


def test_dropout_is_on_only_with_rngs():
    model = nin_jax.create_model(TINY, image_size=32)
    x = jax.random.uniform(jax.random.key(0), (2, 32, 32, 1))
    np.testing.assert_array_equal(run(model, x), run(model, x))
    one, again, two = (run(model, x, jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, two)
    assert not np.array_equal(one, run(model, x))


def test_without_logit_relu_logits_can_be_negative():
    x = jax.random.uniform(jax.random.key(0), (4, 32, 32, 1))
    published = run(nin_jax.create_model(TINY, image_size=32), x)
    without = run(nin_jax.create_model(TINY, image_size=32, logit_relu=False), x)
    assert published.min() >= 0
    assert without.min() < 0


def test_bfloat16_computation_returns_float32_logits():
    model = nin_jax.create_model(TINY, image_size=32, dtype=jnp.bfloat16)
    x = jax.random.uniform(jax.random.key(0), (2, 32, 32, 1))
    assert run(model, x).dtype == jnp.float32
    assert jax.eval_shape(model.blocks[0], x.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    assert model.blocks[0].convs[0].kernel.dtype == jnp.float32


@pytest.mark.parametrize(
    ("info", "multiplies"),
    [
        ("flags\t: fpu avx2\n", False),
        ("flags\t: avx2 avx512_bf16\n", True),
        ("flags\t: avx2 amx_bf16\n", True),
        ("Features\t: fp asimd bf16\n", False),
        ("", False),
    ],
)
def test_processors_that_multiply_bfloat16(tmp_path, monkeypatch, info, multiplies):
    monkeypatch.setattr(processor, "CPU_INFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(info)
    assert processor.multiplies_bfloat16.__wrapped__() is multiplies  # without its cache


@pytest.mark.parametrize("classifier", ["mean", "linear"])
def test_an_empty_batch_has_no_logits_and_no_gradient(classifier):
    # 32 channels: Winograd's convolution, too
    variant = Variant("v", stages=(Stage(32, 3, padding=1),), classifier=classifier)
    model = nin_jax.create_model(variant, in_channels=32, image_size=16)
    none = jnp.zeros((0, 16, 16, 32))

    def loss(model):
        logits = model(none)
        return logits.sum(), logits

    (_, logits), gradient = nnx.jit(nnx.value_and_grad(loss, has_aux=True))(model)
    assert logits.shape == (0, 10)
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradient))


def test_export_with_a_symbolic_batch():
    model = nnx.eval_shape(lambda: nin_jax.create_model("nin_fc", image_size=67))
    graphdef, params = nnx.split(model, nnx.Param)
    run = jax.jit(lambda params, x: nnx.merge(graphdef, params)(x))
    shape = jax.export.symbolic_shape("b, 67, 67, 1")
    exported = jax.export.export(run)(params, jax.ShapeDtypeStruct(shape, jnp.float32))
    assert exported.out_avals[0].shape == (shape[0], 10)


@pytest.mark.slow
def test_intermediates_are_captured_and_layers_tabulated():
    model, x = nin_jax.create_model(SMALLEST, image_size=5), jnp.zeros((1, 5, 5, 1))
    table = nnx.tabulate(model, x)
    assert "NiNBlock" in table
    assert "check" not in table  # a method of its own would be a row
    logits, _ = nnx.capture(model, nnx.Intermediate)(x)
    assert logits.shape == (1, 10)


@pytest.mark.slow
def test_gradients_without_jit():
    model = nin_jax.create_model(SMALLEST, image_size=5)
    x = jax.random.uniform(jax.random.key(0), (2, 5, 5, 1))
    graphdef, params = nnx.split(model, nnx.Param)
    gradient = jax.grad(lambda params: nnx.merge(graphdef, params)(x).sum())
    expected = jax.jit(gradient)(params)
    with jax.disable_jit():
        actual = gradient(params)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-6)


def test_no_rank_is_promoted():
    with jax.numpy_rank_promotion("raise"):
        model = nin_jax.create_model(TINY, image_size=32)
        x = jnp.zeros((2, 32, 32, 1))
        nnx.eval_shape(nnx.grad(lambda model: model(x, rngs=nnx.Rngs(0)).sum()), model)
        nin_jax.Predictor(model, 2).probabilities(np.zeros((3, 9, 9, 1), np.uint8))


@pytest.mark.parametrize("shape", [(3, 3, 4, 5), (6, 7)])
def test_kernels_have_the_bits_of_draws_in_their_shape(shape):
    key, bound = jax.random.key(3), math.sqrt(6 / (math.prod(shape[:-2]) * sum(shape[-2:])))
    xavier = jax.random.uniform(key, shape, jnp.float32, -bound, bound)
    gaussian = 0.05 * jax.random.normal(key, shape)
    for ours, expected in [(kernel_init("xavier"), xavier), (kernel_init("gaussian"), gaussian)]:
        np.testing.assert_array_equal(ours(key, shape, jnp.float32), expected)


@pytest.mark.parametrize("broadcast_dims", [(), (0, 1)])
def test_dropout_with_a_key_for_each_example(broadcast_dims):
    dropout = nnx.Dropout(0.5, broadcast_dims=broadcast_dims)
    x, keys = jnp.ones((3, 4, 5, 6)), jax.random.split(jax.random.key(0), 3)
    actual = drop(dropout, x, keys)
    for one, key, result in zip(x, keys, actual, strict=True):
        np.testing.assert_array_equal(result, dropout(one, deterministic=False, rngs=key))
    assert len(np.unique(np.asarray(actual).reshape(3, -1), axis=0)) == 3
