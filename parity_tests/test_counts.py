"""Parameters and multiply-adds: PyTorch's counts, nin_jax's and the published ones."""

import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import nin_jax
import nin_torch_ref
from nin_jax.models.geometry import trace

# 10 classes: (variant, channels) -> (parameters, multiply-adds of one image of the variant's size).
GOLDEN = {
    ("nin", 1): (1_992_166, 762_297_352),
    ("nin", 3): (2_015_398, 830_041_864),
    ("nin_one_1x1", 1): (1_769_112, 669_884_996),
    ("nin_one_1x1", 3): (1_792_344, 737_629_508),
    ("nin_three_1x1", 1): (2_215_220, 854_709_708),
    ("nin_three_1x1", 3): (2_238_452, 922_454_220),
    ("nin_3x3", 1): (5_549_094, 2_240_895_048),
    ("nin_3x3", 3): (5_572_326, 2_308_639_560),
    ("nin_fc", 1): (1_994_676, 762_299_852),
    ("nin_fc", 3): (2_017_908, 830_044_364),
    ("nin_gradual", 1): (2_787_478, 782_162_152),
    ("nin_gradual", 3): (2_810_710, 849_906_664),
    ("nin_gradual_1x1", 1): (2_123_926, 765_573_352),
    ("nin_gradual_1x1", 3): (2_147_158, 833_317_864),
    ("nin15", 1): (2_225_510, 1_678_678_048),
    ("nin15", 3): (2_226_662, 1_693_128_736),
    ("nin21", 1): (4_570_342, 2_478_331_936),
    ("nin21", 3): (4_571_494, 2_492_782_624),
    ("nin27", 1): (6_915_174, 3_277_985_824),
    ("nin27", 3): (6_916_326, 3_292_436_512),
    ("nin_cifar10", 1): (957_386, 212_656_128),
    ("nin_cifar10", 3): (966_986, 222_486_528),
    ("nin_cifar100", 1): (957_386, 212_656_128),
    ("nin_cifar100", 3): (966_986, 222_486_528),
    ("nin_svhn", 1): (957_386, 212_656_128),
    ("nin_svhn", 3): (966_986, 222_486_528),
    ("nin_paper", 1): (957_386, 212_656_128),
    ("nin_paper", 3): (966_986, 222_486_528),
    ("nin_imagenet", 1): (6_557_194, 995_948_928),
    ("nin_imagenet", 3): (6_580_426, 1_063_693_440),
}


def _torch_counts(
    variant: str, in_channels: int, image_size: tuple[int, int], num_classes: int = 10
) -> list[tuple[int, int]]:
    """Return (parameters, multiply-adds) of every layer that has parameters."""
    counter = FlopCounterMode(display=False)
    with torch.device("meta"):
        model = nin_torch_ref.create_model(
            variant, in_channels=in_channels, num_classes=num_classes, image_size=image_size
        )
        with counter:
            model(torch.empty(1, in_channels, *image_size))
    flops = counter.get_flop_counts()  # PyTorch counts two for a multiply-add
    return [
        (sum(p.numel() for p in layer.parameters()), sum(flops[f"NiN.{name}"].values()) // 2)
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]


@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize("variant", nin_jax.list_variants())
def test_parameters_and_macs(variant, in_channels):
    layers = trace(nin_jax.get_variant(variant), in_channels, 10, None)
    height, width, _ = layers[0].in_shape
    counts = [(layer.params, layer.macs) for layer in layers if layer.params]
    sides = height, width
    assert counts == _torch_counts(variant, in_channels, sides)
    golden = GOLDEN[variant, in_channels]
    assert tuple(map(sum, zip(*counts, strict=True))) == golden
    text = nin_jax.describe(variant, in_channels=in_channels)
    assert f"{golden[0]:,} parameters, {golden[1]:,} MACs" in text


@pytest.mark.parametrize("variant", nin_jax.list_variants())
def test_parameters_and_macs_of_another_size(variant):
    sizes = {"in_channels": 2, "num_classes": 7, "image_size": (131, 99)}
    layers = trace(nin_jax.get_variant(variant), *sizes.values())
    counts = [(layer.params, layer.macs) for layer in layers if layer.params]
    assert counts == _torch_counts(variant, 2, (131, 99), 7)


def test_the_images_are_those_of_the_publications():
    small = {"nin_cifar10", "nin_cifar100", "nin_svhn", "nin_paper"}
    for name in nin_jax.list_variants():
        side = 32 if name in small else 224
        assert nin_jax.describe(name).startswith(f"{name}: {side}x{side}x1")


# The authors' train_val.prototxt of nin_imagenet in the Caffe model zoo, layer by layer:
# convolutions as (num_output, kernel_size, stride, pad), pools as (kernel_size, stride).
ZOO = (
    *((96, 11, 4, 0), (96, 1, 1, 0), (96, 1, 1, 0), (3, 2)),
    *((256, 5, 1, 2), (256, 1, 1, 0), (256, 1, 1, 0), (3, 2)),
    *((384, 3, 1, 1), (384, 1, 1, 0), (384, 1, 1, 0), (3, 2)),
    *((1024, 3, 1, 1), (1024, 1, 1, 0), (1000, 1, 1, 0)),
)


def test_the_network_for_imagenet_is_the_zoos_layer_by_layer():
    layers = [
        layer
        for layer in trace(nin_jax.get_variant("nin_imagenet"), 3, 1000, 224)
        if layer.params or "pool" in layer.name
    ]
    channels, side, params = 3, 224, 0
    for layer, numbers in zip(layers, ZOO, strict=True):
        if len(numbers) == 4:
            out, kernel, stride, pad = numbers
            count = out * (channels * kernel**2 + 1)
            channels, side = out, (side + 2 * pad - kernel) // stride + 1
        else:  # Caffe rounds up
            (kernel, stride), count = numbers, 0
            side = math.ceil((side - kernel) / stride) + 1
        assert layer.params == count, layer.name
        assert layer.out_shape == (side, side, channels), layer.name
        params += count
    assert side == 6  # the zoo's last pool is an average of 6x6
    assert params == 7_595_176  # 29 MiB, the size of its caffemodel


def test_both_packages_have_the_same_variants_and_rates_of_dropout():
    assert nin_jax.list_variants() == list(nin_torch_ref.ARCHITECTURES)
    for name, architecture in nin_torch_ref.ARCHITECTURES.items():
        variant = nin_jax.get_variant(name)
        rates = tuple(stage.dropout for stage in variant.stages)
        assert rates == architecture.dropouts or (not architecture.dropouts and not any(rates))
        assert variant.dropout == architecture.dropout
