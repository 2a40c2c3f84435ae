"""The names and shapes of a PyTorch state dict, from a variant; no framework."""

import math
from collections.abc import Iterator, Mapping, Sequence

from nin_jax.errors import UserError
from nin_jax.models.geometry import trace
from nin_jax.models.stages import ImageSize
from nin_jax.models.variants import Variant
from nin_jax.reading import shown

MAX_LISTED_ERRORS = 30
# Axes of a weight, by rank: [K, K, C, O] -> [O, C, K, K], [N, M] -> [M, N].
TORCH_ORDER = {4: (3, 2, 0, 1), 2: (1, 0)}


def layer_names(variant: Variant, depths: Sequence[int] = ()) -> Iterator[str]:
    """Yield the state dict's name of each layer that the variant's network can have, in order.

    The indices count pools, dropouts, mean and flatten too, and in a block the ReLUs.

    Args:
        variant: gives the blocks and pools.
        depths: the number of convolutions of each block, if they may differ from the variant's.
    """
    stages = (*variant.stages, variant.head)
    depths = depths or [1 + len(stage.mlp) for stage in stages]
    index = 0
    for stage, depth in zip(stages, depths, strict=True):
        index += 1 if stage is stages[-1] else 0  # dropout
        yield from (f"net.{index}.{2 * j}" for j in range(depth))
        index += 1 + (stage.pool is not None) + (stage.dropout > 0)
    yield f"net.{index + 1}"  # the linear layer, after the flatten


def expected_shapes(
    variant: Variant, in_channels: int, num_classes: int, image_size: ImageSize
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a network's state dict by name, without making any array.

    Raises:
        UserError: as for `create_model`.
    """
    layers = [
        layer for layer in trace(variant, in_channels, num_classes, image_size) if layer.params
    ]
    shapes: dict[str, tuple[int, ...]] = {}
    for name, layer in zip(layer_names(variant), layers, strict=False):
        if (conv := layer.convolution) is not None:
            weight = (conv.out_channels, conv.in_channels, conv.kernel, conv.kernel)
        else:
            weight = (num_classes, math.prod(layer.in_shape))
        shapes |= {f"{name}.weight": weight, f"{name}.bias": weight[:1]}
    return shapes


def shown_key(name: object) -> str:
    """Return a key as a message shows it, without quotes if that is safe."""
    return name if isinstance(name, str) and name.isprintable() and len(name) < 60 else shown(name)


def check_shapes(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], variant: str
) -> None:
    """Check a state dict's shapes, before memory is allocated for the arrays.

    Args:
        found: shapes of the state dict's arrays, by name.
        expected: result of `expected_shapes`.
        variant: name of the network.

    Raises:
        UserError: keys are missing or unexpected, or have another shape; the first 30 are listed.
    """
    errors = [f"missing {name}" for name in expected if name not in found]
    errors += [f"unexpected {shown_key(name)}" for name in found if name not in expected]
    errors += [
        f"{name} has shape {shown(list(found[name]))}, not {list(shape)}"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != shape
    ]
    if errors:
        more = ["..."] if len(errors) > MAX_LISTED_ERRORS else []
        raise UserError(
            f"the weights do not fit {variant} ({len(errors)} keys): "
            f"{'; '.join(errors[:MAX_LISTED_ERRORS] + more)}"
        )
