"""The networks as tuples, in the published notation.

Sources: Lin, Chen and Yan, "Network in Network" (2013), sections 3.1 (the block) and 3.2 (the
mean instead of a dense classifier); Zhang et al., "Dive into Deep Learning" (d2l), chapter
"Network in Network", for the numbers and the exercises; pytorchcv (``nin_cifar.py``), the authors'
definitions for cuda-convnet and the Caffe model zoo (``NIN-Imagenet``) for the classic networks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

ConvTuple = tuple[int | None, int, int, int]
"""(channels, kernel, stride, padding); channels is None for the number of classes."""

Mlp = tuple[tuple[int, int] | tuple[int | None, int, int], ...]
"""(kernel, padding) of each convolution after a block's first; the paper's 1x1 is (1, 0).

With three numbers, (channels, kernel, padding), where the channels change within the block."""

PoolTuple = tuple[str, int, int, int, bool, bool]
"""(kind, size, stride, padding, ceil_mode, count_include_pad); the kind is "max" or "average"."""

MAX_3X3: PoolTuple = ("max", 3, 2, 0, False, True)


@dataclass(frozen=True)
class Architecture:
    """A network as numbers.

    Attributes:
        blocks: first convolution of every block; the last block is the head.
        mlps: convolutions after the first, one entry for every block.
        pools: the pool that follows, or None, one entry for every block but the head.
        classifier: "mean" of each of the head's maps, or "linear" on the flattened maps.
        dropout: probability of dropping an activation before the head.
        dropouts: the same after each block's pool; empty for none.

    Raises:
        ValueError: the numbers of blocks, mlps, pools and dropouts do not fit together.
    """

    blocks: tuple[ConvTuple, ...]
    mlps: tuple[Mlp, ...]
    pools: tuple[PoolTuple | None, ...]
    classifier: Literal["mean", "linear"] = "mean"
    dropout: float = 0.5
    dropouts: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.blocks) == len(self.mlps) == len(self.pools) + 1:
            raise ValueError(
                "every block needs an mlp, and every block but the head a pool or none: got "
                f"{len(self.blocks)} blocks, {len(self.mlps)} mlps, {len(self.pools)} pools"
            )
        if len(self.dropouts) not in (0, len(self.pools)):
            raise ValueError(f"got {len(self.dropouts)} dropouts for {len(self.pools)} pools")


def _uniform(
    blocks: tuple[ConvTuple, ...],
    mlp: Mlp = ((1, 0), (1, 0)),
    classifier: Literal["mean", "linear"] = "mean",
    no_pool_after: tuple[int, ...] = (),
) -> Architecture:
    """Return a network with the same mlp in every block, and a pool after all but some blocks."""
    pools = tuple(None if i in no_pool_after else MAX_3X3 for i in range(len(blocks) - 1))
    return Architecture(blocks, (mlp,) * len(blocks), pools, classifier)


D2L = ((96, 11, 4, 0), (256, 5, 1, 2), (384, 3, 1, 1), (None, 3, 1, 1))
GRADUAL = (*D2L[:3], (192, 3, 1, 1), (48, 3, 1, 1), D2L[3])
GRADUAL_1X1 = (*D2L[:3], (192, 1, 1, 0), (48, 1, 1, 0), D2L[3])
NIN15 = ((64, 3, 2, 1), (256, 3, 1, 1), (256, 3, 1, 1), (384, 3, 1, 1), (None, 3, 1, 1))
NIN21 = (*NIN15[:3], *NIN15[2:4], *NIN15[3:])
NIN27 = (*NIN15[:3], *NIN15[2:3] * 2, *NIN15[3:4] * 3, NIN15[4])

CIFAR = ((192, 5, 1, 2), (192, 5, 1, 2), (192, 3, 1, 1))
CIFAR_MLPS = (((160, 1, 0), (96, 1, 0)), ((1, 0), (1, 0)), ((1, 0), (None, 1, 0)))
PYTORCHCV = Architecture(
    CIFAR,
    CIFAR_MLPS,
    pools=(("max", 3, 2, 1, False, True), ("average", 3, 2, 1, False, True)),
    dropouts=(0.5, 0.0),
)
IMAGENET_MLPS = (*[((1, 0), (1, 0))] * 3, ((1, 0), (None, 1, 0)))

ARCHITECTURES: Mapping[str, Architecture] = {
    "nin": _uniform(D2L),
    "nin_one_1x1": _uniform(D2L, mlp=((1, 0),)),
    "nin_three_1x1": _uniform(D2L, mlp=((1, 0), (1, 0), (1, 0))),
    "nin_3x3": _uniform(D2L, mlp=((3, 1), (3, 1))),
    "nin_fc": _uniform(D2L, classifier="linear"),
    "nin_gradual": _uniform(GRADUAL, no_pool_after=(3, 4)),
    "nin_gradual_1x1": _uniform(GRADUAL_1X1, no_pool_after=(3, 4)),
    "nin15": _uniform(NIN15),
    "nin21": _uniform(NIN21, no_pool_after=(2, 4)),
    "nin27": _uniform(NIN27, no_pool_after=(2, 3, 5, 6)),
    "nin_cifar10": PYTORCHCV,
    "nin_cifar100": PYTORCHCV,
    "nin_svhn": PYTORCHCV,
    "nin_paper": Architecture(
        CIFAR,
        CIFAR_MLPS,
        pools=(("max", 3, 2, 0, True, True),) * 2,  # NIN/cifar-10_def of mavenlin/cuda-convnet
        dropouts=(0.5, 0.0),
    ),
    "nin_imagenet": Architecture(
        (*D2L[:3], (1024, 3, 1, 1)), IMAGENET_MLPS, pools=(("max", 3, 2, 0, True, True),) * 3
    ),
}
