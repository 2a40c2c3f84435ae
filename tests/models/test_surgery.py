"""A model whose layers were replaced or changed: everything reads its parameters, not its past."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import nin_jax
from nin_jax import Stage, UserError, Variant
from nin_jax.accounting.programs import Programs
from nin_jax.accounting.xla import program_cost
from nin_jax.inference import predictor as predictor_module
from nin_jax.models import convert
from nin_jax.training.recipes import RECIPES

TINY = Variant("tiny", stages=(Stage(8, 5, padding=2), Stage(16, 3, padding=1)))
SIZE = 20


def _new(**options) -> nin_jax.NiN:
    return nin_jax.create_model(TINY, image_size=SIZE, **options)


def _pruned() -> nin_jax.NiN:
    """Return a model whose first block gives 5 channels instead of 8."""
    model = _new()
    last, following = model.blocks[0].convs[2], model.blocks[1].convs[0]
    last.kernel = nnx.Param(last.kernel[..., :5])
    last.bias = nnx.Param(last.bias[:5])
    following.kernel = nnx.Param(following.kernel[:, :, :5])
    following.in_features = 5
    return model


def _changed(**attributes) -> nin_jax.NiN:
    model = _new()
    for name, value in attributes.items():
        place: nnx.Module = model
        *path, last = name.split("__")
        for step in path:
            place = place[int(step)] if step.isdigit() else getattr(place, step)  # type: ignore
        setattr(place, last, value)
    return model


def _shorter_head() -> nin_jax.NiN:
    model = _new()
    model.head.convs.pop()
    return model


KNOWN = {  # the accounting counts these: (make a model, channels, classes)
    "five classes": (lambda: _changed(head=_new(num_classes=5).head), 1, 5),
    "a hundred classes": (lambda: _changed(head=_new(num_classes=100).head), 1, 100),
    "three channels": (lambda: _changed(blocks__0=_new(in_channels=3).blocks[0]), 3, 10),
    "pruned channels": (_pruned, 1, 10),
    "a shorter head": (_shorter_head, 1, 10),
    "other strides": (lambda: _changed(blocks__0__convs__0__strides=2), 1, 10),
}
RNGS = nnx.Rngs(0)
FOREIGN = {
    "nnx.Conv as head": (lambda: _changed(head=nnx.Conv(16, 3, (1, 1), rngs=RNGS)), 1, 3),
    "nnx.Sequential as head": (
        lambda: _changed(head=nnx.Sequential(nnx.Conv(16, 4, (3, 3), rngs=RNGS), nnx.relu)),
        1,
        4,
    ),
    "a dilation": (lambda: _changed(blocks__1__convs__0__kernel_dilation=2), 1, 10),
    "nnx.Conv at the start": (
        lambda: _changed(blocks__0__convs__0=nnx.Conv(3, 8, (3, 3), rngs=RNGS)),
        3,
        10,
    ),
}


@pytest.mark.parametrize("surgery", [*KNOWN, *FOREIGN])
def test_predictor_and_class_maps_answer_as_the_model(surgery, monkeypatch):
    monkeypatch.setattr(predictor_module, "default_micro_batch_size", lambda *_: 2)
    make, channels, classes = (KNOWN | FOREIGN)[surgery]
    model = make()
    x = np.random.default_rng(0).random((5, SIZE, SIZE, channels), np.float32)
    maps, logits = nnx.jit(lambda model, x: (nin_jax.class_maps(model, x), model(x)))(model, x)
    assert logits.shape == (5, classes)
    assert (model.in_channels, model.num_classes) == (channels, classes)
    predictor = nin_jax.Predictor(model, batch_size=4)
    np.testing.assert_allclose(predictor(x), logits, rtol=1e-5, atol=1e-6)
    assert predictor(x[:0]).shape == (0, classes)
    np.testing.assert_allclose(maps.mean((1, 2)), logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("surgery", KNOWN)
def test_the_accounting_counts_the_layers_there_are(surgery):
    make, channels, classes = KNOWN[surgery]
    model = make()
    account = nin_jax.account(model, xla=surgery == "pruned channels")
    assert (account.in_channels, account.num_classes) == (channels, classes)
    assert account.params == nin_jax.count_params(model)
    forward = Programs(model, RECIPES["d2l"](TINY), 1).plain().forward(1)
    assert program_cost(forward).flops_unexplained == 0


@pytest.mark.parametrize("surgery", FOREIGN)
def test_the_accounting_refuses_layers_without_a_rule(surgery):
    with pytest.raises(ValueError, match="no rule"):
        nin_jax.account(FOREIGN[surgery][0](), xla=False)


@pytest.mark.parametrize("surgery", [*KNOWN, "nnx.Conv as head"])
def test_weights_go_to_a_state_dict_and_back(surgery):
    model = (KNOWN | FOREIGN)[surgery][0]()
    weights = convert.to_torch(model)
    assert sum(array.size for array in weights.values()) == nin_jax.count_params(model)
    doubled = {name: 2 * array for name, array in weights.items()}
    convert.load_state_dict(model, doubled)
    for name, array in convert.to_torch(model).items():
        np.testing.assert_array_equal(array, doubled[name])
    wrong = doubled | {"net.0.0.bias": np.ones(9, np.float32)}
    with pytest.raises(UserError, match=r"net.0.0.bias has shape \[9\]"):
        convert.load_state_dict(model, wrong)


def test_weights_that_a_state_dict_has_no_name_for_are_refused():
    with pytest.raises(UserError, match="no name for the weights of a Sequential"):
        convert.to_torch(FOREIGN["nnx.Sequential as head"][0]())
    with pytest.raises(UserError, match="outside its blocks"):
        convert.to_torch(_changed(extra=nnx.Linear(2, 2, rngs=RNGS)))


def test_images_without_a_map_are_refused_as_the_layers_say():
    stricter = _changed(blocks__0__convs__0__padding=0)
    assert jax.eval_shape(_new(), jnp.zeros((1, 7, 7, 1))).shape == (1, 10)
    with pytest.raises(UserError, match="smallest size that works is 11x11"):
        stricter(jnp.zeros((1, 7, 7, 1)))
    hidden = _changed(head=nnx.Conv(16, 3, (5, 5), padding="VALID", rngs=RNGS))
    with pytest.raises(UserError, match="images of 20x20 are too small for the model"):
        jax.eval_shape(hidden, jnp.zeros((1, SIZE, SIZE, 1)))


def test_a_missing_block_is_an_error_of_one_line():
    model = _new()
    model.blocks.pop()
    x = jnp.zeros((1, SIZE, SIZE, 1))
    uses = (lambda: model(x), lambda: model.layers, lambda: convert.to_torch(model))
    for use in uses:
        with pytest.raises(UserError, match="has 1 blocks before the head, where tiny has 2"):
            use()


def test_logits_are_float64_where_the_parameters_are():
    def logits(x):
        return _changed(head=_new(param_dtype=jnp.float64).head)(x)

    with jax.enable_x64(True):
        x = jnp.zeros((1, SIZE, SIZE, 1))
        assert jax.eval_shape(logits, x).dtype == jnp.float64
