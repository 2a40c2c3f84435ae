"""The programs for CUDA, lowered on any machine: what they contain, and what they must not."""

import re
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.sharding import AbstractMesh, AxisType

import nin_jax
from nin_jax.inference import predictor
from nin_jax.models import processor
from nin_jax.models.nin import new_model
from nin_jax.training.evaluate import EvalState, make_eval_step
from nin_jax.training.optimizer import make_optimizer
from nin_jax.training.recipes import RECIPES
from nin_jax.training.sharding import AXIS, Layout
from nin_jax.training.step import TrainState, make_train_step, make_train_steps

SIZE, BATCH, EXAMPLES, STEPS = (64, 64), 32, 100, 10
ARRAYS = 2 * 15  # kernels and biases of nin15
CONVOLUTIONS = 5  # of nin15, besides the 1x1 ones, which are matrix products
SUMS = 5  # arrays that a step sums over devices besides the gradients, as in `step.Sums`

KINDS = {"float32": "f32", "bfloat16": "bf16"}  # of a convolution's result, by the network's dtype

# XLA's slow forms of pooling; calls of the host or of a library.
UNWANTED = ("select_and_scatter", "reduce_window", "custom_call", "infeed", "outfeed")


def lowered(function, *arguments) -> str:
    return function.trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()


def shape(*sides, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sides, dtype)


IMAGES = shape(EXAMPLES, 28, 28, 1, dtype=jnp.uint8), shape(EXAMPLES, dtype=jnp.int32)


def network(dtype="float32"):
    model = nnx.eval_shape(lambda: new_model("nin15", image_size=SIZE, dtype=dtype))
    return nnx.split(model, nnx.Param)


def train_steps(recipe: str, dtype: str = "float32", layout: Layout | None = None) -> str:
    options = RECIPES[recipe](nin_jax.get_variant("nin15"))
    optimizer = make_optimizer(options, total_steps=100)
    graphdef, params = network(dtype)

    def first(params):
        zero = jnp.zeros((), jnp.int32)
        return TrainState(params, optimizer.init(params), zero, jax.random.key(0))

    state = jax.eval_shape(first, params)
    step = make_train_step(graphdef, optimizer, options, SIZE, BATCH, layout)
    steps = make_train_steps(step, STEPS, layout, state)
    order = shape(-(-EXAMPLES // BATCH), BATCH, dtype=jnp.int32)
    text = lowered(steps, state, *IMAGES, order, shape(dtype=jnp.int32))
    donated = text.count("tf.aliasing_output")
    assert donated == len(jax.tree.leaves(state))
    return text


def operations(text: str) -> Counter[str]:
    return Counter(re.findall(r"stablehlo\.(\w+)", text))


def kinds_of_convolutions(text: str) -> set[str]:
    """Return the dtypes of their results."""
    return set(re.findall(r"stablehlo\.convolution.*-> tensor<[\dx]+x(\w+)>", text))


def assert_xla_convolutions(text: str, input_gradients: int, kernel_gradients: int) -> None:
    """Assert that convolutions and their gradients are XLA's own, each in one operation."""
    found = re.findall(r"stablehlo\.convolution.*?(\[.*?\])x(\[.*?\])->", text)
    of_images, of_kernels = "[b, 0, 1, f]", "[0, 1, i, o]"
    assert Counter(found) == Counter(
        {
            (of_images, of_kernels): CONVOLUTIONS,
            (of_images, "[0, 1, o, i]"): input_gradients,  # with the kernel reversed
            ("[f, 0, 1, b]", "[i, 0, 1, o]"): kernel_gradients,
        }
    )
    counts = operations(text)
    assert counts["reverse"] == input_gradients
    assert not {name: counts[name] for name in UNWANTED if counts[name]}


@pytest.mark.parametrize("recipe", ["d2l", "modern"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_train_steps(recipe, dtype):
    text = train_steps(recipe, dtype)
    assert_xla_convolutions(text, CONVOLUTIONS - 1, CONVOLUTIONS)
    assert kinds_of_convolutions(text) == {KINDS[dtype]}
    assert operations(text)["while"] == 1  # the steps of a call; a batch is not divided on a GPU
    assert operations(text)["all_reduce"] == 0


def test_the_program_does_not_depend_on_the_processor_beside_the_gpu(monkeypatch):
    programs = []
    for multiplies in (False, True):
        monkeypatch.setattr(processor, "multiplies_bfloat16", lambda value=multiplies: value)
        programs.append(train_steps("modern", "bfloat16"))
    assert programs[0] == programs[1]


@pytest.mark.parametrize("precision", ["default", "highest"])
def test_precision_of_products(precision):
    """JAX's setting reaches every product, also those of the gradients and of Muon."""
    with jax.default_matmul_precision(precision):
        text = train_steps("modern")
    products = re.findall(r"stablehlo\.(?:convolution|dot_general).*", text)
    assert products
    found = {tuple(re.findall(r"\b(DEFAULT|HIGH|HIGHEST)\b", line)) for line in products}
    assert found == {(precision.upper(),) * 2}  # of both factors


def layout_without_devices(devices: int, shard_params: bool = False) -> Layout:
    """Return a layout that is enough to lower a program."""
    mesh: Any = AbstractMesh((devices,), (AXIS,), axis_types=(AxisType.Auto,))
    return Layout(mesh, shard_params)


@pytest.mark.parametrize("recipe", ["d2l", "modern"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_train_steps_on_eight_devices(recipe, dtype):
    text = train_steps(recipe, dtype, layout_without_devices(8))
    assert_xla_convolutions(text, CONVOLUTIONS - 1, CONVOLUTIONS)
    # Each array once; XLA makes one exchange of them, as tests/training/test_sharding.py measures.
    found = {name: operations(text)[name] for name in ("all_reduce", "all_gather", "all_to_all")}
    assert found == {"all_reduce": ARRAYS + SUMS, "all_gather": 0, "all_to_all": 0}


@pytest.mark.parametrize("recipe", ["d2l", "modern"])
def test_train_steps_with_divided_parameters(recipe):
    text = train_steps(recipe, layout=layout_without_devices(8, shard_params=True))
    assert_xla_convolutions(text, CONVOLUTIONS - 1, CONVOLUTIONS)
    found = [operations(text)[name] for name in ("all_gather", "reduce_scatter", "all_to_all")]
    assert found == [1, 1, 0]  # of all divided parameters, and of all their gradients


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize(("dtype", "kind"), KINDS.items())
def test_evaluation(dtype, kind, devices):
    graphdef, params = network(dtype)
    step = make_eval_step(graphdef, SIZE, BATCH, layout_without_devices(devices))
    counts = shape(devices, 10, 10, dtype=jnp.int32)
    state = EvalState(shape(dtype=jnp.int32), shape(devices), counts)  # type: ignore[arg-type]
    images, labels = (shape(devices * EXAMPLES, *a.shape[1:], dtype=a.dtype) for a in IMAGES)
    text = lowered(step, params, state, images, labels)
    assert_xla_convolutions(text, 0, 0)
    assert kinds_of_convolutions(text) == {kind}
    assert operations(text)["all_reduce"] == 0  # the counts are added once, after the last batch


@pytest.mark.parametrize(("dtype", "kind"), KINDS.items())
@pytest.mark.parametrize("images", [shape(BATCH, *SIZE, 1), IMAGES[0]])
def test_prediction(images, monkeypatch, dtype, kind):
    # As beside a GPU: a batch is not divided, and the weights are arguments.
    monkeypatch.setattr(predictor, "default_micro_batch_size", lambda model, batch_size: batch_size)
    model = nin_jax.create_model("nin15", image_size=SIZE, dtype=dtype)
    predict = nin_jax.Predictor(model, images.shape[0])
    text = lowered(predict._batch, images, images.shape[0], *predict._arguments)
    assert_xla_convolutions(text, 0, 0)
    assert kinds_of_convolutions(text) == {kind}
    assert operations(text)["while"] == 0


def test_the_cpu_has_other_gradients():
    """So that the tests above can fail."""
    graphdef, params = network()
    loss = jax.jit(jax.grad(lambda params, x: nnx.merge(graphdef, params)(x).sum()))
    text = loss.trace(params, shape(BATCH, *SIZE, 1)).lower(lowering_platforms=("cpu",)).as_text()
    with pytest.raises(AssertionError):
        assert_xla_convolutions(text, CONVOLUTIONS - 1, CONVOLUTIONS)
