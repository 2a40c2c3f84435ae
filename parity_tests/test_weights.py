"""Weights between the frameworks: equal bits in both directions; errors load nothing."""

from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import nin_jax
import nin_torch_ref
from nin_jax.models import convert
from parity_tests.frameworks import as_array
from parity_tests.pairs import distinct_variants

SIZES = {"in_channels": 3, "num_classes": 7, "image_size": (71, 83)}


def _reference_weights(variant: str) -> dict[str, torch.Tensor]:
    return nin_torch_ref.create_model(variant, **SIZES).state_dict()


def _assert_same(actual, expected) -> None:
    assert list(actual) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(np.asarray(actual[name]), np.asarray(value), name)
        assert np.asarray(actual[name]).dtype == np.asarray(value).dtype


@pytest.mark.parametrize("variant", distinct_variants())
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
    weights["net.2.0.weight"] = weights["net.2.0.weight"].permute(2, 3, 1, 0)  # Flax's layout
    weights["net.4.2.bias"] = weights["net.4.2.bias"][:-1]
    with pytest.raises(nin_jax.UserError) as error:
        convert.load_state_dict(model, weights)
    for fault in (
        "missing net.0.0.bias",
        "missing net.7.4.weight",
        "unexpected net.8.weight",
        "net.2.0.weight has shape [5, 5, 96, 256], not [256, 96, 5, 5]",
        "net.4.2.bias has shape [383], not [384]",
    ):
        assert fault in str(error.value)
    assert "(5 keys)" in str(error.value)
    _assert_same(convert.to_torch(model), before)


def test_the_weights_of_another_variant_raise():
    with pytest.raises(nin_jax.UserError, match=r"missing net\.9\.0\.weight"):
        convert.from_torch(_reference_weights("nin"), "nin15", **SIZES)


SMALL = nin_jax.Variant("small", (nin_jax.Stage(4, 3, padding=1),))
SMALL_SIZES: dict[str, Any] = {"in_channels": 1, "num_classes": 3, "image_size": 8}


def _parallel(weights):
    return {f"module.{name}": value for name, value in weights.items()}


def _training(weights, key="state_dict", **more):
    """Return a checkpoint as training scripts write it, with the state of an optimizer."""
    parameters = [torch.nn.Parameter(value) for value in weights.values()]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    return {"epoch": 3, key: weights, "optimizer": optimizer.state_dict(), **more}


WAYS = {
    "as they are": (lambda w: w, ""),
    "parameters": (lambda w: {n: torch.nn.Parameter(v) for n, v in w.items()}, ""),
    "a prefix": (_parallel, "module.net.0.0.weight is net.0.0.weight, and so on"),
    "prefixes twice": (
        lambda w: {f"_orig_mod.{n}": v for n, v in _parallel(_parallel(w)).items()},
        "_orig_mod.module.module.net.0.0.weight is net.0.0.weight, and so on",
    ),
    "a bare nn.Sequential": (
        lambda w: {n.removeprefix("net."): v for n, v in w.items()},
        "0.0.weight is net.0.0.weight, and so on",
    ),
    "a checkpoint": (_training, "taken from state_dict; not used: epoch, optimizer"),
    "a checkpoint of another name": (
        lambda w: _training(w, "model_state_dict"),
        "taken from model_state_dict; not used: epoch, optimizer",
    ),
    "averaged weights too": (
        lambda w: _training(w, "params", params_ema=w),
        "taken from params; not used: epoch, optimizer, params_ema",
    ),
    "a checkpoint in one": (
        lambda w: {"model": {"state_dict": w}},
        "taken from model.state_dict",
    ),
    "Lightning": (
        lambda w: {
            "state_dict": {f"model.{n}": v for n, v in w.items()},
            "pytorch-lightning_version": "2.0",
        },
        "taken from state_dict; model.net.0.0.weight is net.0.0.weight, and so on; "
        "not used: pytorch-lightning_version",
    ),
    "a counter of batches": (
        lambda w: {**w, "net.1.num_batches_tracked": torch.tensor(5)},
        "not used: net.1.num_batches_tracked",
    ),
    "many entries": (
        lambda w: {**w, **{f"loss of epoch {i}": 0.5 for i in range(2000)}},
        "not used: loss of epoch 0, loss of epoch 1, loss of epoch 2, loss of epoch 3, "
        "loss of epoch 4 and 1,995 more",
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_weights_as_users_bring_them(way, tmp_path, capsys):
    weights = _small_weights()
    change, note = WAYS[way]
    torch.save(change(weights), tmp_path / "weights.pt")
    read = nin_torch_ref.load_state_dict_file(tmp_path / "weights.pt")
    model = convert.from_torch(read, SMALL, **SMALL_SIZES)
    assert capsys.readouterr().err == (f"note: weights: {note}\n" if note else "")
    _assert_same(convert.to_torch(model), weights)


def _small_weights() -> dict[str, torch.Tensor]:
    arrays = convert.to_torch(nin_jax.create_model(SMALL, **SMALL_SIZES))
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


@pytest.mark.parametrize("source", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("target", ["float32", "bfloat16"])
def test_other_dtypes_are_cast_and_that_is_said(source, target, tmp_path, capsys):
    """From tensors and from a safetensors file, which can hold all of them."""
    weights = {name: value.to(getattr(torch, source)) for name, value in _small_weights().items()}
    save_file(weights, tmp_path / "a.safetensors")
    expected = convert.expected_shapes(SMALL, **SMALL_SIZES)
    for read in (weights, convert.load_safetensors(tmp_path / "a.safetensors", expected, "small")):
        model = convert.from_torch(read, SMALL, **SMALL_SIZES, param_dtype=target)
        note = f"note: weights: {source} cast to {target}\n" if source != target else ""
        assert capsys.readouterr().err == note
        rounded = {name: value.to(getattr(torch, target)) for name, value in weights.items()}
        _assert_same(
            convert.to_torch(model), {name: value.float() for name, value in rounded.items()}
        )
    convert.save_safetensors(model, tmp_path / "b.safetensors")  # in the parameters' dtype
    written = load_file(tmp_path / "b.safetensors")
    assert all(torch.equal(written[name], value) for name, value in rounded.items())
    assert {value.dtype for value in written.values()} == {getattr(torch, target)}


def test_a_tensor_that_only_claims_its_size_takes_no_memory():
    weights = _small_weights()
    weights["net.0.0.bias"] = torch.zeros(1, dtype=torch.bfloat16).expand(2**40)
    with pytest.raises(nin_jax.UserError, match=r"bias has shape \[1099511627776\], not \[4\]"):
        convert.from_torch(weights, SMALL, **SMALL_SIZES)


def test_float64_weights_round_to_float32():
    weights = {name: value.double() / 3 for name, value in _reference_weights("nin").items()}
    model = convert.from_torch(weights, "nin", **SIZES)
    rounded = {name: as_array(value.float()) for name, value in weights.items()}
    _assert_same(convert.to_torch(model), rounded)
