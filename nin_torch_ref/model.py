"""The network in PyTorch: one ``nn.Sequential``, as in the d2l book.

Images are float [B, C, H, W]; logits are [B, num_classes] in the parameters' dtype.
"""

import copy
import math
from typing import Literal, get_args

import torch
from torch import nn

from nin_torch_ref.architectures import ARCHITECTURES, Architecture, ConvTuple, Mlp, PoolTuple

Init = Literal["xavier", "he", "gaussian", "identity"]


def nin_block(
    in_channels: int, conv: ConvTuple, mlp: Mlp, num_classes: int, last_relu: bool = True
) -> nn.Sequential:
    """Return a convolution and the perceptron's convolutions, each followed by ReLU.

    [B, in_channels, H, W] -> [B, channels, H', W'].
    """
    channels, kernel, stride, padding = conv
    before, after = in_channels, channels or num_classes
    layers = [nn.Conv2d(before, after, kernel, stride, padding), nn.ReLU()]
    for *width, size, pad in mlp:
        before, after = after, (width[0] or num_classes) if width else after
        layers += [nn.Conv2d(before, after, size, padding=pad), nn.ReLU()]
    return nn.Sequential(*(layers if last_relu else layers[:-1]))


def pool_layer(pool: PoolTuple) -> nn.Module:
    """Return the layer of a pool: [B, C, H, W] -> [B, C, H', W']."""
    kind, size, stride, padding, ceil_mode, count_include_pad = pool
    if kind == "max":
        return nn.MaxPool2d(size, stride, padding, ceil_mode=ceil_mode)
    return nn.AvgPool2d(size, stride, padding, ceil_mode, count_include_pad)


class NiN(nn.Module):
    """A Network in Network; make one with `create_model`.

    ``net`` contains, in order: the blocks, each with its pool and dropout if it has them; dropout,
    the head, and the global mean and flatten (or flatten and a linear layer). Parameters are named
    ``net.{layer}.{position in block}.weight`` and ``.bias``.
    """

    def __init__(
        self,
        architecture: Architecture,
        in_channels: int,
        num_classes: int,
        image_size: tuple[int, int],
        logit_relu: bool,
    ):
        super().__init__()
        *blocks, head = zip(architecture.blocks, architecture.mlps, strict=True)
        layers: list[nn.Module] = []
        channels = in_channels
        dropouts = architecture.dropouts or (0.0,) * len(blocks)
        for (conv, mlp), pool, rate in zip(blocks, architecture.pools, dropouts, strict=True):
            block = nin_block(channels, conv, mlp, num_classes)
            channels = _convs(block)[-1].out_channels
            layers.append(block)
            layers += [pool_layer(pool)] if pool else []
            layers += [nn.Dropout(rate)] if rate else []
        layers.append(nn.Dropout(architecture.dropout))
        layers.append(nin_block(channels, *head, num_classes, last_relu=logit_relu))
        maps = _output_shape(nn.Sequential(*layers), (in_channels, *image_size))
        if architecture.classifier == "mean":
            layers += [nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten()]
        else:
            layers += [nn.Flatten(), nn.Linear(math.prod(maps), num_classes)]
        self.net = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits [B, num_classes] of images [B, C, H, W]."""
        return self.net(x)


def _output_shape(layers: nn.Module, image_shape: tuple[int, int, int]) -> torch.Size:
    """Return the layers' output shape [C, H, W] for one image [C, H, W].

    PyTorch computes it on the meta device, without memory or arithmetic.
    """
    try:
        return (
            copy.deepcopy(layers).to("meta")(torch.empty(1, *image_shape, device="meta"))[0].shape
        )
    except RuntimeError as error:
        _, height, width = image_shape
        raise ValueError(f"image size {height}x{width} does not fit: {error}") from None


def _initialize(model: NiN, init: Init) -> None:
    """Draw the initial parameters, in place.

    "xavier" leaves biases as PyTorch drew them; the others set them to 0.
    """
    for parameter in model.parameters():
        if parameter.ndim > 1 and init == "xavier":  # Glorot and Bengio 2010, eq. 16
            nn.init.xavier_uniform_(parameter)
        elif parameter.ndim > 1 and init == "gaussian":  # Lin et al. 2013, their cuda-convnet files
            nn.init.normal_(parameter, std=0.05)
        elif parameter.ndim > 1:  # He et al. 2015, eq. 10
            nn.init.kaiming_normal_(parameter, nonlinearity="relu")
        elif init != "xavier":
            nn.init.zeros_(parameter)
    if init == "identity":
        blocks = [layer for layer in model.net if isinstance(layer, nn.Sequential)]
        for block in blocks:
            identity_block(block)
        # Every class's own channel has a gradient at the start.
        convs = _convs(blocks[-1])
        changing = [conv for conv in convs if conv.in_channels != conv.out_channels]
        bias = (changing[-1] if changing else convs[0]).bias
        assert bias is not None
        nn.init.ones_(bias)


def _convs(block: nn.Sequential) -> list[nn.Conv2d]:
    return [layer for layer in block if isinstance(layer, nn.Conv2d)]


def identity_block(block: nn.Sequential) -> None:
    """Make a block's convolutions after the first the identity, where they keep the channels."""
    for conv in _convs(block)[1:]:
        if conv.in_channels == conv.out_channels:
            nn.init.dirac_(conv.weight)


def create_model(
    architecture: str | Architecture = "nin",
    *,
    in_channels: int = 1,
    num_classes: int = 10,
    image_size: int | tuple[int, int] = 224,
    logit_relu: bool = True,
    init: Init = "xavier",
    seed: int = 0,
) -> NiN:
    """Return a newly initialized network, float32, on the CPU, in training mode.

    Args:
        architecture: a name from `ARCHITECTURES`, or an `Architecture`.
        in_channels: C of the images [B, C, H, W].
        num_classes: number of logits.
        image_size: side in pixels, or (height, width). With a "mean" classifier the network
            also takes other sizes.
        logit_relu: whether ReLU follows the last convolution, as published.
        init: "xavier" (uniform weights, PyTorch's biases), "he" (normal weights, biases 0),
            "gaussian" (normal weights of standard deviation 0.05, biases 0), or
            "identity" (as "he", but a block's convolutions after the first start as the identity
            where they keep the number of channels, and the biases of the head's first convolution
            that has one channel per class start at 1).
        seed: of the initial parameters; PyTorch's global generator is not changed.

    Raises:
        ValueError: the architecture or initialization is unknown, a count is below 1, or the image
            is so small that a map vanishes.

    Example:
        >>> create_model("nin15", image_size=96)(torch.zeros(2, 1, 96, 96)).shape
        torch.Size([2, 10])
    """
    if isinstance(architecture, str):
        if architecture not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise ValueError(f"unknown architecture {architecture!r}; known: {known}")
        architecture = ARCHITECTURES[architecture]
    if init not in get_args(Init):
        known = ", ".join(get_args(Init))
        raise ValueError(f"unknown initialization {init!r}; known: {known}")
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if min(in_channels, num_classes, height, width) < 1:
        raise ValueError("channels, classes and image sides must be at least 1")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = NiN(architecture, in_channels, num_classes, (height, width), logit_relu)
        _initialize(model, init)
        return model
