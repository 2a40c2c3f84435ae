"""Weights to and from PyTorch: a bijection between state dicts and models.

A state dict maps the names that nested ``nn.Sequential`` gives, ``net.{i}.{j}.weight`` and
``.bias``, to arrays. Kernels are [O, C, K, K] there and [K, K, C, O] here; the linear head's
weight is [M, N] there and [N, M] here, over the same C, H, W order of inputs. No value is ever
reshaped to fit: every key is used, every target filled, every shape checked.

torch is not needed: anything that `numpy.asarray` takes will do, torch tensors included.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from nin_jax.errors import UserError
from nin_jax.models.geometry import MAX_PARAMS, trace
from nin_jax.models.nin import NiN, new_model
from nin_jax.models.variants import ImageSize, Variant, get_variant
from nin_jax.reading import check_file, shown

# The largest network's weights in float64, and the header.
MAX_FILE_BYTES = 8 * MAX_PARAMS + 2**20
MAX_FAULTS = 30


def _names(variant: Variant) -> Iterator[str]:
    """Each layer with parameters, in order, by its name in the state dict.

    The reference's Sequential counts pools, dropout, mean and flatten too, and inside a block
    each convolution is followed by its ReLU.
    """
    index = 0
    for stage in variant.stages:
        yield from (f"net.{index}.{2 * j}" for j in range(1 + len(stage.mlp)))
        index += 2 if stage.pool else 1
    index += 1  # dropout
    yield from (f"net.{index}.{2 * j}" for j in range(1 + len(variant.head.mlp)))
    if variant.classifier == "linear":
        yield f"net.{index + 2}"  # after the head and the flatten


def _layers(model: NiN) -> Iterator[tuple[str, Any]]:
    """(name in the state dict, layer) for every layer with parameters."""
    layers = [conv for block in (*model.blocks, model.head) for conv in block.convs]
    layers += [] if model.linear is None else [model.linear]
    return zip(_names(model.variant), layers, strict=True)


def expected_shapes(
    variant: Variant, in_channels: int, num_classes: int, image_size: ImageSize
) -> dict[str, tuple[int, ...]]:
    """The shape of each array in a network's state dict, by its name; no array is made.

    Raises:
        UserError: as `create_model`.
    """
    layers = [
        layer for layer in trace(variant, in_channels, num_classes, image_size) if layer.params
    ]
    shapes: dict[str, tuple[int, ...]] = {}
    for name, layer in zip(_names(variant), layers, strict=True):
        if (conv := layer.convolution) is not None:
            weight = (conv.out_channels, conv.in_channels, conv.kernel, conv.kernel)
        else:
            weight = (num_classes, math.prod(layer.in_shape))
        shapes |= {f"{name}.weight": weight, f"{name}.bias": weight[:1]}
    return shapes


def _word(name: object) -> str:
    """A key as a message shows it: as it is where that is safe."""
    return name if isinstance(name, str) and name.isprintable() and len(name) < 60 else shown(name)


def check_shapes(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], variant: str
) -> None:
    """Refuses a state dict that does not fit, before any memory is taken for it.

    Args:
        found: shapes of the state dict's arrays, by name.
        expected: what `expected_shapes` gives.
        variant: the network's name.

    Raises:
        UserError: keys are missing, unexpected or misshaped; the first 30 are listed.
    """
    faults = [f"missing {name}" for name in expected if name not in found]
    faults += [f"unexpected {_word(name)}" for name in found if name not in expected]
    faults += [
        f"{name} has shape {shown(list(found[name]))}, not {list(shape)}"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != shape
    ]
    if faults:
        more = ["..."] if len(faults) > MAX_FAULTS else []
        raise UserError(
            f"the weights do not fit {variant} ({len(faults)} keys): "
            f"{'; '.join(faults[:MAX_FAULTS] + more)}"
        )


def _to_torch_layout(kernel: np.ndarray) -> np.ndarray:
    order = (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)  # [K, K, C, O] -> [O, C, K, K]
    return np.ascontiguousarray(kernel.transpose(order))


def _from_torch_layout(weight: np.ndarray) -> np.ndarray:
    return weight.transpose((2, 3, 1, 0) if weight.ndim == 4 else (1, 0))


def to_torch(model: NiN) -> dict[str, np.ndarray]:
    """The model's parameters under the reference's names, as arrays of the parameters' dtype.

    ``{k: torch.from_numpy(v) for k, v in to_torch(model).items()}`` is what
    ``load_state_dict`` takes.
    """
    state = {}
    for name, layer in _layers(model):
        state[f"{name}.weight"] = _to_torch_layout(np.asarray(layer.kernel[...]))
        state[f"{name}.bias"] = np.array(layer.bias[...])
    return state


def _items(state_dict: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    if not isinstance(state_dict, Mapping):
        raise UserError(f"a state dict maps names to arrays, got {shown(state_dict)}")
    return state_dict.items()


def _as_array(name: str, value: Any) -> np.ndarray:
    """An array or tensor as a floating array, which shares its memory where it can."""
    if hasattr(value, "detach"):  # a tensor may require a gradient, and live on a GPU
        value = value.detach().cpu()
    try:
        array = np.asarray(value)
    except Exception as error:  # sparse, quantised, bfloat16: whatever its maker raises
        raise UserError(f"{shown(name)} is no plain array: {shown(error)}") from None
    if array.dtype.kind != "f":
        raise UserError(
            f"{shown(name)} holds {array.dtype}; float16, float32 or float64 can be read"
        )
    return array


def load_state_dict(model: NiN, state_dict: Mapping[str, Any]) -> None:
    """Overwrites every parameter of the model with the state dict's, cast to its dtype.

    Raises:
        UserError: keys are missing, unexpected or misshaped; the first 30 are listed, and the
            model is left as it was. Or a value is no floating array.
    """
    arrays = {name: _as_array(name, value) for name, value in _items(state_dict)}
    expected = expected_shapes(
        model.variant, model.in_channels, model.num_classes, model.image_size
    )
    shapes = {name: array.shape for name, array in arrays.items()}
    check_shapes(shapes, expected, model.variant.name)
    for name, layer in _layers(model):
        weight, bias = arrays[f"{name}.weight"], arrays[f"{name}.bias"]
        layer.kernel[...] = jnp.asarray(_from_torch_layout(weight), layer.kernel.dtype)
        layer.bias[...] = jnp.asarray(bias, layer.bias.dtype)


def transfer(model: NiN, state_dict: Mapping[str, Any]) -> list[str]:
    """Overwrite the parameters with those of the same network for other channels or classes.

    Layers whose shape the number of input channels or of classes changes keep what they have.

    Returns:
        The names of those layers, as `geometry.trace` has them.

    Raises:
        UserError: the weights are of another network; the model is left as it was.
    """
    variant, size = model.variant, model.image_size
    arrays = {name: _as_array(name, value) for name, value in _items(state_dict)}
    shapes = {name: array.shape for name, array in arrays.items()}
    names = list(_names(variant))
    kernel, bias = (shapes.get(n, ()) for n in (f"{names[0]}.weight", f"{names[-1]}.bias"))
    channels = kernel[1] if len(kernel) == 4 else model.in_channels
    classes = bias[0] if len(bias) == 1 else model.num_classes
    check_shapes(shapes, expected_shapes(variant, channels, classes, size), variant.name)

    expected = expected_shapes(variant, model.in_channels, model.num_classes, size)
    layers = [
        layer.name
        for layer in trace(variant, model.in_channels, model.num_classes, size)
        if layer.params
    ]
    drawn = {
        name: layer
        for name, layer in zip(names, layers, strict=True)
        if shapes[f"{name}.weight"] != expected[f"{name}.weight"]
    }
    kept = {name: a for name, a in arrays.items() if name.rpartition(".")[0] not in drawn}
    load_state_dict(model, to_torch(model) | kept)
    return list(drawn.values())


def from_torch(
    state_dict: Mapping[str, Any],
    variant: str | Variant,
    *,
    in_channels: int = 1,
    num_classes: int = 10,
    image_size: ImageSize = 224,
    **options: Any,
) -> NiN:
    """A model with the state dict's parameters.

    Args:
        state_dict: names ``net.{i}.{j}.weight`` and ``.bias`` to arrays or tensors.
        variant, in_channels, num_classes, image_size: as for `create_model`.
        options: further arguments of `create_model`, such as ``logit_relu`` or ``dtype``.

    Raises:
        UserError: as `create_model` and `load_state_dict`; before any parameter is made.
    """
    variant = get_variant(variant)
    arrays = {name: _as_array(name, value) for name, value in _items(state_dict)}
    expected = expected_shapes(variant, in_channels, num_classes, image_size)
    check_shapes({name: array.shape for name, array in arrays.items()}, expected, variant.name)
    model = new_model(
        variant, in_channels=in_channels, num_classes=num_classes, image_size=image_size, **options
    )
    load_state_dict(model, arrays)
    return model


def save_safetensors(model: NiN, path: str | Path) -> None:
    """Writes `to_torch`'s arrays as a ``.safetensors`` file, which PyTorch reads as it stands."""
    from safetensors.numpy import save_file

    save_file(to_torch(model), path)


def load_safetensors(
    path: str | Path, fitting: Mapping[str, tuple[int, ...]] | None = None, network: str = ""
) -> dict[str, np.ndarray]:
    """The arrays of a ``.safetensors`` file.

    Args:
        path: of the file.
        fitting: if given, what `expected_shapes` gives: the file's header is held against it
            before any array is read.
        network: the name of the network that they have to fit.

    Returns:
        float16, float32 or float64 arrays by name.

    Raises:
        UserError: the file is missing, truncated, or of another format (a pickle, say); an array
            is not of floating point, or does not fit.
    """
    from safetensors import SafetensorError, safe_open

    check_file(path, MAX_FILE_BYTES, f"cannot read weights {path}")
    try:
        with safe_open(path, "numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            for name, header in slices.items():
                if header.get_dtype() not in ("F16", "F32", "F64"):
                    raise UserError(
                        f"{path}: {shown(name)} holds {header.get_dtype()}; F16, F32 or F64 can "
                        "be read"
                    )
            shapes = {name: tuple(header.get_shape()) for name, header in slices.items()}
            if fitting is not None:
                check_shapes(shapes, fitting, network)
            return {name: file.get_tensor(name) for name in slices}
    except SafetensorError as error:
        raise _damaged(path, error) from None
    except OSError as error:
        raise UserError(f"cannot read weights {path}: {error.strerror or error}") from None
    except UserError:
        raise
    except ValueError as error:  # no element, but sides that NumPy cannot count
        raise _damaged(path, error) from None


def _damaged(path: str | Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:300]  # it may repeat what the file holds
    return UserError(f"{path} is not a whole safetensors file: {reason}")
