"""Recognize users' state dicts: in checkpoints, with prefixes, other names or dtypes.

Names are compared with those of `state_dict.expected_shapes`.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from nin_jax.errors import UserError
from nin_jax.models.state_dict import shown_key
from nin_jax.reading import shown

# Keys under which training scripts put a state dict. If there are several, the first counts.
WRAPPERS = ("state_dict", "model_state_dict", "model", "params")
MAX_WRAPPERS = 8  # a dict can contain itself
# What DistributedDataParallel, torch.compile, Lightning and this project put before every name.
PREFIXES = re.compile(r"(?:(?:module|_orig_mod|model|net)\.)*")
FLOATS = ("float16", "bfloat16", "float32", "float64")
CAN_BE_READ = "float16, bfloat16, float32 or float64 can be read"
LAYER = re.compile(r"([\d.]+|(features|output)\..*)\.(weight|bias)")  # of any network
MAX_SHOWN = 5
KNOWN_NAMES = (
    "0.0.weight (nn.Sequential) and features.stage1.unit1.conv.weight (pytorchcv), also after "
    "module., _orig_mod., model. or net."
)


def pytorchcv_names(layers: Sequence[str]) -> dict[str, str]:
    """Return pytorchcv's name of each layer by its name in the state dict; {} if it has none.

    Args:
        layers: all layers, ``net.{block}.{position}``, in order. pytorchcv has no network with a
            linear layer, ``net.{position}``.
    """
    blocks = [list(block) for _, block in groupby(layers, lambda name: name.rpartition(".")[0])]
    if any(name.count(".") != 2 for name in layers):
        return {}
    names = {
        layer: f"features.stage{i}.unit{j}.conv"
        for i, block in enumerate(blocks, start=1)
        for j, layer in enumerate(block, start=1)
    }
    return names | {layers[-1]: "output.final_conv.conv"}


@dataclass(frozen=True)
class Match:
    """Names of a state dict that stand for those of a network.

    Attributes:
        names: the state dict's name by this project's, in the network's order.
        foreign: names of the same kind that the network does not have: those of another one.
        unused: all other keys.
    """

    names: dict[str, str]
    foreign: list[str]
    unused: list[object]


def find(keys: Collection[object], expected: Collection[str]) -> Match | None:
    """Find a network's names among keys; None if there is not one.

    Args:
        keys: of a state dict.
        expected: the network's names, as those of `state_dict.expected_shapes`.

    Raises:
        UserError: two keys stand for one name.
    """
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in expected))
    others = pytorchcv_names(layers)
    own = {name.removeprefix("net."): name for name in expected}
    for layer, other in others.items():
        own |= {f"{other}.{kind}": f"{layer}.{kind}" for kind in ("weight", "bias")}
    names: dict[str, str] = {}
    rest: list[object] = []
    for key in keys:
        name = own.get(_bare(key))
        if name in names:
            raise UserError(f"both {shown_key(names[name])} and {shown_key(key)} stand for {name}")
        if name is None:
            rest.append(key)
        else:
            names[name] = str(key)
    if not names:
        return None
    foreign = [str(key) for key in rest if LAYER.fullmatch(_bare(key))]
    ordered = {name: names[name] for name in expected if name in names}
    return Match(ordered, foreign, [key for key in rest if not LAYER.fullmatch(_bare(key))])


def _bare(key: object) -> str:
    """Return a key without the prefixes; "" if it is not a text."""
    return PREFIXES.sub("", key, count=1) if isinstance(key, str) else ""


def unknown_names(keys: Collection[object]) -> UserError:
    """Return the error for a state dict in which no name of a network was found."""
    first = ", ".join(shown_key(key) for key in list(keys)[:MAX_SHOWN])
    return UserError(
        f"the weights have no name of a known kind: {f'the first are {first}' if first else 'none'}"
        f"; known are {KNOWN_NAMES}"
    )


@dataclass(frozen=True)
class Recognized:
    """A state dict with this project's names.

    Attributes:
        arrays: floating arrays by name. Names that belong to another network are kept too, each
            with an empty array, so that `check_shapes` reports them.
        remarks: what was done to read them, without casts.
    """

    arrays: dict[str, np.ndarray]
    remarks: tuple[str, ...]

    def note(self, dtype: DTypeLike) -> str:
        """Return what was done to load the arrays as this dtype, in one line; "" if nothing."""
        kinds = dict.fromkeys(array.dtype.name for array in self.arrays.values())
        cast = [kind for kind in kinds if kind != jnp.dtype(dtype).name]
        casts = [f"{' and '.join(cast)} cast to {jnp.dtype(dtype).name}"] if cast else []
        return "; ".join((*self.remarks, *casts))


def recognize(state_dict: Mapping[Any, Any], expected: Collection[str]) -> Recognized:
    """Find a network's arrays in a state dict, or in a checkpoint that holds one.

    Args:
        state_dict: maps names to arrays or tensors, or is a checkpoint that holds such a mapping.
        expected: the network's names, as those of `state_dict.expected_shapes`.

    Raises:
        UserError: no name of the network is found, two keys stand for one name, or a value is not
            a plain floating array.
    """
    if not isinstance(state_dict, Mapping):
        raise UserError(f"a state dict maps names to arrays, got {shown(state_dict)}")
    wrappers: list[str] = []
    unused: list[object] = []
    while (match := find(state_dict, expected)) is None:
        wrapper = next((k for k in WRAPPERS if isinstance(state_dict.get(k), Mapping)), None)
        if wrapper is None or len(wrappers) == MAX_WRAPPERS:
            raise unknown_names(state_dict)
        wrappers.append(wrapper)
        unused += [key for key in state_dict if key != wrapper]
        state_dict = state_dict[wrapper]
    arrays = {own: _as_array(name, state_dict[name]) for own, name in match.names.items()}
    remarks = [f"taken from {'.'.join(wrappers)}"] if wrappers else []
    renamed = (f"{theirs} is {own}" for own, theirs in match.names.items() if own != theirs)
    remarks += [f"{first}, and so on" for first in list(renamed)[:1]]
    if unused := [*unused, *match.unused]:
        more = f" and {len(unused) - MAX_SHOWN:,} more" if len(unused) > MAX_SHOWN else ""
        remarks.append(f"not used: {', '.join(map(shown_key, unused[:MAX_SHOWN]))}{more}")
    return Recognized(arrays | {name: np.zeros(0) for name in match.foreign}, tuple(remarks))


def _as_array(name: str, value: Any) -> np.ndarray:
    """Return an array or tensor as a floating array, which shares its memory if possible."""
    try:
        if hasattr(value, "detach"):  # a tensor may require a gradient, or be on a GPU
            value = _from_tensor(value.detach().cpu())
        array = np.asarray(value)
    except Exception as error:  # sparse and quantized tensors raise various types
        raise UserError(f"{shown(name)} is not a plain array: {shown(error)}") from None
    if array.dtype.name not in FLOATS:
        raise UserError(f"{shown(name)} holds {array.dtype}; {CAN_BE_READ}")
    return array


def _from_tensor(tensor: Any) -> np.ndarray:
    import torch  # there is a tensor, so it is installed

    if tensor.dtype != torch.bfloat16:
        return tensor.numpy()
    return tensor.view(torch.int16).numpy().view(jnp.bfloat16)  # NumPy itself has no such type
