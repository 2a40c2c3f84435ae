"""Weights between the frameworks: equal bits in both directions; errors load nothing."""

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from safetensors.torch import load_file, save_file

import nin_jax
import nin_torch_ref
from nin_jax.models import convert
from parity_tests.frameworks import as_array

SIZES = {"in_channels": 3, "num_classes": 7, "image_size": (71, 83)}


def _reference_weights(variant: str) -> dict[str, torch.Tensor]:
    return nin_torch_ref.create_model(variant, **SIZES).state_dict()


def _assert_same(actual, expected) -> None:
    assert list(actual) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(np.asarray(actual[name]), np.asarray(value), name)
        assert np.asarray(actual[name]).dtype == np.asarray(value).dtype


@pytest.mark.parametrize("variant", nin_jax.list_variants())
def test_torch_to_flax_to_torch_through_files(variant, tmp_path):
    weights = _reference_weights(variant)
    save_file(weights, tmp_path / "torch.safetensors")
    read = convert.load_safetensors(tmp_path / "torch.safetensors")
    model = convert.from_torch(read, variant, **SIZES)
    _assert_same(convert.to_torch(model), weights)
    convert.save_safetensors(model, tmp_path / "flax.safetensors")
    state_dict = load_file(tmp_path / "flax.safetensors")
    reference = nin_torch_ref.create_model(variant, **SIZES)
    reference.load_state_dict(state_dict, strict=True)
    _assert_same(reference.state_dict(), weights)


def test_flax_to_torch_to_flax():
    model = nin_jax.create_model("nin_fc", **SIZES, seed=1)
    reference = nin_torch_ref.create_model("nin_fc", **SIZES)
    tensors = {name: torch.from_numpy(value) for name, value in convert.to_torch(model).items()}
    reference.load_state_dict(tensors, strict=True)
    back = convert.from_torch(reference.state_dict(), "nin_fc", **SIZES)
    graphdef, params = nnx.split(model, nnx.Param)
    graphdef_back, params_back = nnx.split(back, nnx.Param)
    assert graphdef_back == graphdef
    jax.tree.map(np.testing.assert_array_equal, params_back, params)


def test_pt_file_both_ways(tmp_path):
    weights = _reference_weights("nin_fc")
    torch.save(weights, tmp_path / "weights.pt")
    read = nin_torch_ref.load_state_dict_file(tmp_path / "weights.pt")
    _assert_same(convert.to_torch(convert.from_torch(read, "nin_fc", **SIZES)), weights)


def test_names_follow_the_published_sequential():
    model = nin_jax.create_model("nin_fc", image_size=67)
    blocks = [f"net.{i}.{j}" for i in (0, 2, 4, 7) for j in (0, 2, 4)]
    layers = [*blocks, "net.9"]
    assert list(convert.to_torch(model)) == [
        f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")
    ]


def test_every_mismatch_is_reported_and_nothing_is_loaded():
    model = nin_jax.create_model("nin", **SIZES)
    before = convert.to_torch(model)
    weights = dict(_reference_weights("nin"))
    del weights["net.0.0.bias"], weights["net.7.4.weight"]
    weights["net.8.weight"] = torch.zeros(3)
    weights["extra"] = torch.zeros(())
    weights["net.2.0.weight"] = weights["net.2.0.weight"].permute(2, 3, 1, 0)  # Flax's layout
    weights["net.4.2.bias"] = weights["net.4.2.bias"][:-1]
    with pytest.raises(nin_jax.UserError) as error:
        convert.load_state_dict(model, weights)
    for fault in (
        "missing net.0.0.bias",
        "missing net.7.4.weight",
        "unexpected net.8.weight",
        "unexpected extra",
        "net.2.0.weight has shape [5, 5, 96, 256], not [256, 96, 5, 5]",
        "net.4.2.bias has shape [383], not [384]",
    ):
        assert fault in str(error.value)
    assert "(6 keys)" in str(error.value)
    _assert_same(convert.to_torch(model), before)


def test_the_weights_of_another_variant_raise():
    with pytest.raises(nin_jax.UserError, match=r"missing net\.9\.0\.weight"):
        convert.from_torch(_reference_weights("nin"), "nin15", **SIZES)


def test_float64_weights_round_to_float32():
    weights = {name: value.double() / 3 for name, value in _reference_weights("nin").items()}
    model = convert.from_torch(weights, "nin", **SIZES)
    rounded = {name: as_array(value.float()) for name, value in weights.items()}
    _assert_same(convert.to_torch(model), rounded)
