"""Third-party counters: each must print exactly the count that the table of rules predicts."""

import copy
import sys
from dataclasses import replace
from unittest import mock

import pytest
import thop
import torch
from fvcore.nn import FlopCountAnalysis
from hypothesis import given
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import nin_jax
import nin_torch_ref
from nin_jax.accounting.conventions import CONVENTIONS, all_counts
from nin_jax.accounting.layers import LayerCost, layer_costs
from nin_jax.accounting.memory import torch_kept_bytes
from nin_jax.accounting.programs import Programs, abstract_model
from nin_jax.accounting.xla import program_cost
from nin_jax.models.geometry import trace
from nin_jax.training.recipes import Recipe
from parity_tests.pairs import distinct_variants, random_cases
from parity_tests.test_random_architectures import networks

# ptflops looks for torchvision, which it does not need; one for another torch fails.
with mock.patch.dict(sys.modules, torchvision=None):
    from ptflops import get_model_complexity_info

RUN_HERE = {convention.key for convention in CONVENTIONS} - {"macs", "flops", "xla"}


def _counts(model: nn.Module, x: torch.Tensor) -> dict[str, int | None]:
    """Return each tool's count for one image [1, C, H, W]. Some tools leave hooks in the model."""
    model = model.eval()
    fvcore = FlopCountAnalysis(copy.deepcopy(model), x)
    fvcore.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    forward = FlopCounterMode(display=False)
    with forward:
        logits = model(x)
    backward = FlopCounterMode(display=False)
    with backward:
        logits.sum().backward()
    counts: dict[str, int | None] = {
        "thop": int(thop.profile(copy.deepcopy(model), (x,), verbose=False)[0]),
        "fvcore": int(fvcore.total()),
        "flop_counter_mode": forward.get_total_flops(),
        "flop_counter_mode_backward": backward.get_total_flops(),
    }
    for backend in ("pytorch", "aten"):
        found, _ = get_model_complexity_info(
            copy.deepcopy(model),
            tuple(x.shape[1:]),
            print_per_layer_stat=False,
            as_strings=False,
            backend=backend,
        )
        assert isinstance(found, int | float)
        counts[f"ptflops_{backend}"] = int(found)
    return counts


def _costs(variant: str | nin_jax.Variant, *sizes) -> list[LayerCost]:
    return layer_costs(trace(nin_jax.get_variant(variant), *sizes))


@pytest.mark.parametrize("variant", distinct_variants())
def test_every_tool_counts_as_its_rules_predict(variant):
    channels, classes, sides = 2, 7, (131, 99)
    reference = nin_torch_ref.create_model(
        variant, in_channels=channels, num_classes=classes, image_size=sides
    )
    counts = _counts(reference, torch.zeros(1, channels, *sides))
    assert counts.keys() == RUN_HERE
    predicted = all_counts(_costs(variant, channels, classes, sides))
    assert counts == {key: predicted[key] for key in counts}


@pytest.mark.parametrize(
    ("variant", "classes", "parameters", "millions"),
    [("nin_cifar10", 10, 966_986, "222.97"), ("nin_cifar100", 100, 984_356, "224.08")],
)
def test_the_figures_that_pytorchcv_documents(variant, classes, parameters, millions):
    """Its column "FLOPs/2" (model_stats.py of osmr/imgclsmob, from which it is made).

    It is half the sum of two for each multiply-add, one for each output of a ReLU, and the number
    of a window's pixels for each output of a pool or of the mean. Biases are left out.
    """
    costs = _costs(variant, 3, classes, 32)
    assert sum(cost.params for cost in costs) == parameters
    flops = sum(cost.flops() - cost.bias_additions + cost.maxima for cost in costs)
    assert f"{flops / 2e6:.2f}" == millions


def test_the_published_figures():
    counts = all_counts(_costs("nin", 3, 10, 224))
    assert counts["thop"] == 830_042_124
    assert counts["macs"] == 830_041_864
    reference = nin_torch_ref.create_model("nin", in_channels=3)
    found = thop.profile(reference, (torch.zeros(1, 3, 224, 224),), verbose=False)
    assert found == (830_042_124, 2_015_398)


@pytest.mark.parametrize("examples", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_random_architectures(examples):
    built = 0

    @random_cases(examples)
    @given(networks())
    def run(network) -> None:
        nonlocal built
        sizes = (network.in_channels, network.num_classes, network.image_size)
        try:
            costs = _costs(network.variant, *sizes)
        except nin_jax.UserError:
            return
        reference = nin_torch_ref.create_model(
            network.architecture,
            in_channels=network.in_channels,
            num_classes=network.num_classes,
            image_size=network.image_size,
        )
        counts = _counts(reference, torch.zeros(1, network.in_channels, *network.image_size))
        model = abstract_model(network.variant, *sizes, "float32", logit_relu=True)
        plain = Programs(model, Recipe(), 1).plain()
        counts["xla"] = program_cost(plain.forward(1)).flops
        predicted = all_counts(costs)
        assert counts == {key: predicted[key] for key in counts}
        saved = _saved_bytes(reference.train(), torch.zeros(3, sizes[0], *network.image_size))
        assert saved == 3 * torch_kept_bytes(costs)
        built += 1

    run()
    assert built >= examples * 3 // 4, "too few networks were built"


def _saved_bytes(model: nn.Module, x: torch.Tensor) -> int:
    """Return the bytes that autograd keeps for the backward pass, without parameters and x."""
    known = {p.untyped_storage().data_ptr() for p in [*model.parameters(), x]}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(x)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("variant", distinct_variants())
def test_pytorch_keeps_the_activations_that_are_counted(variant):
    reference = nin_torch_ref.create_model(variant, image_size=96).train()
    saved = _saved_bytes(reference, torch.zeros(3, 1, 96, 96))
    assert saved == 3 * torch_kept_bytes(_costs(variant, 1, 10, 96))


def test_nothing_is_kept_for_a_missing_last_relu_or_dropout():
    architecture = replace(nin_torch_ref.ARCHITECTURES["nin_one_1x1"], dropout=0.0)
    reference = nin_torch_ref.create_model(architecture, image_size=96, logit_relu=False).train()
    variant = replace(nin_jax.get_variant("nin_one_1x1"), dropout=0.0)
    costs = layer_costs(trace(variant, 1, 10, 96), logit_relu=False)
    assert _saved_bytes(reference, torch.zeros(2, 1, 96, 96)) == 2 * torch_kept_bytes(costs)


def test_a_layer_without_a_rule_raises():
    (cost, *_) = _costs("nin", 1, 10, 96)
    for convention in CONVENTIONS:
        with pytest.raises(ValueError, match=r"has no rule for block1\.conv1 of kind 'norm'"):
            convention.count([replace(cost, kind="norm")])
