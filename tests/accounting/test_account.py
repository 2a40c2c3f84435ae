"""``account()`` of variants and models, its plain data and its errors."""

import json
from dataclasses import replace

import jax.numpy as jnp
import pytest

import nin_jax
from nin_jax.accounting.account import account
from nin_jax.accounting.account_tables import account_tables
from nin_jax.accounting.xla import ProgramCost
from nin_jax.training.recipes import RECIPES
from tests.support.accounts import known, shapes_of


def test_an_account_is_plain_data():
    result = account("nin", in_channels=3, image_size=96, batch_size=4, xla=False)
    plain = json.loads(json.dumps(result.to_dict()))
    assert plain["params"] == 2_015_398
    assert plain["macs"] == sum(layer["macs"] for layer in plain["layers"])
    assert plain["conventions"]["thop"]["count"] == result.counts["thop"]
    assert plain["memory"]["train"]["paper"]["total_bytes"] > plain["params"] * 8
    assert plain["memory"]["train"]["xla_as_run"] is None
    assert plain["training"] is plain["platform"] is None
    assert plain["layers"][0]["flops_per_byte"] > 1
    assert result.flops_per_training_step == 4 * (
        6 * result.macs - 2 * result.layers[0].macs  # no gradient to the image
    )


def test_products_of_muon_are_counted_once_a_step():
    one, two = (account("nin", recipe="modern", batch_size=n, xla=False) for n in (1, 2))
    sgd = account("nin", recipe="d2l", batch_size=2, xla=False)
    assert one.optimizer_products == two.optimizer_products > sgd.optimizer_products == 0
    more = two.flops_per_training_step - sgd.flops_per_training_step
    assert more == two.to_dict()["flops_of_optimizer_products"] == two.optimizer_products


def test_an_account_contains_figures_by_xla():
    stages = nin_jax.Stage(8, 5, mlp=((1, 0),)), nin_jax.Stage(16, 3, padding=1, mlp=((1, 0),))
    small = nin_jax.Variant("small", stages)
    result = account(small, image_size=33, batch_size=2, train=True)
    for cost in result.forward.values():
        assert cost.flops_unexplained == 0
        assert (cost.bytes_accessed or 0) > 4 * result.params
    assert result.training is not None
    for memory in result.memory.values():
        for plan in (memory.plain, memory.as_run):
            assert plan is not None
            assert known(plan.total_bytes) > 4 * result.params
    plain = json.loads(json.dumps(result.to_dict()))
    assert plain["forward"]["plain"]["flops"] == result.counts["xla"]


@pytest.mark.parametrize(("products", "says"), [(90, True), (100, False), (None, False)])
def test_fewer_products_are_stated_only_where_there_are_fewer(products, says):
    """Without Winograd's filtering, as on a GPU, there are as many."""
    plain = ProgramCost(100.0, 100, 100, 0.0, 0.0, {}, 0, ())
    forward = {"plain": plain, "as_run": replace(plain, flops_products=products)}
    found = replace(account("nin", xla=False), platform="gpu", forward=forward)
    notes = [table.note for table in account_tables(found)]
    assert any("fewer products" in note for note in notes) == says


def test_a_model_has_the_costs_of_its_variant():
    model = shapes_of("nin_fc", in_channels=2, num_classes=7, image_size=(131, 99))
    of_model = account(model, batch_size=3, xla=False)
    of_name = account(
        "nin_fc", in_channels=2, num_classes=7, image_size=(131, 99), batch_size=3, xla=False
    )
    assert of_model == of_name
    assert of_model.params == nin_jax.count_params(model)


def test_precision_dropout_and_last_relu_are_the_models_own():
    model = shapes_of("nin_fc", image_size=96, dtype="bfloat16", logit_relu=False)
    model.dropout.rate = 0.0
    of_model = account(model, batch_size=3, recipe="d2l", xla=False)
    bare = replace(nin_jax.get_variant("nin_fc"), dropout=0.0)
    recipe = replace(RECIPES["d2l"](bare), logit_relu=False)
    of_name = account(
        bare, image_size=96, batch_size=3, precision="bfloat16", recipe=recipe, xla=False
    )
    assert of_model == replace(of_name, recipe="d2l")
    assert of_model.precision == "bfloat16"
    assert sum(layer.relu_comparisons > 0 for layer in of_model.layers) == 11


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda model: setattr(model.blocks[0], "last_relu", False), "without its last ReLU"),
        (lambda model: setattr(model.head.convs[0], "dtype", jnp.bfloat16), "bfloat16 and float32"),
        (lambda model: setattr(model.head.convs[0], "bias", None), "parameters, where"),
    ],
)
def test_a_model_with_a_layer_that_no_rule_counts_raises(change, text):
    model = shapes_of("nin_one_1x1", image_size=67)
    account(model, xla=False)
    change(model)
    with pytest.raises(ValueError, match=text):
        account(model, xla=False)


@pytest.mark.parametrize("options", [{"dtype": "float64"}, {"param_dtype": "bfloat16"}], ids=str)
def test_a_model_in_another_precision_raises(options):
    with pytest.raises(ValueError, match="no rule counts a model that computes in"):
        account(shapes_of("nin_one_1x1", image_size=67, **options), xla=False)
