"""Weights to and from PyTorch: a one-to-one mapping between state dicts and models.

A state dict maps ``net.{i}.{j}.weight`` and ``.bias``, the names that nested ``nn.Sequential``
gives, to arrays. Kernels are [O, C, K, K] there and [K, K, C, O] here. The linear layer's weight is
[M, N] there and [N, M] here, with its inputs in C, H, W order on both sides. Every key is used,
every parameter is set, every shape is checked, and nothing is reshaped to fit.

torch is not needed: `numpy.asarray` must accept the arrays, which torch tensors fulfil.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from nin_jax.errors import UserError
from nin_jax.models.geometry import MAX_PARAMS
from nin_jax.models.nin import NiN, count_params, new_model
from nin_jax.models.preprocessing import Preprocessing, from_metadata, to_metadata
from nin_jax.models.stages import ImageSize
from nin_jax.models.state_dict import TORCH_ORDER, check_shapes, expected_shapes, layer_names
from nin_jax.models.variants import Variant
from nin_jax.reading import check_file, is_torch, shown

MAX_FILE_BYTES = 8 * MAX_PARAMS + 2**20  # the largest network in float64, and the header


def _layers(model: NiN) -> list[tuple[str, nnx.Conv | nnx.Linear]]:
    """Return (name in the state dict, layer) of every layer with parameters.

    Raises:
        UserError: a parameter is in a layer that the state dict has no name for.
    """
    blocks = [getattr(block, "convs", [block]) for block in (*model.blocks, model.head)]
    layers = [layer for block in blocks for layer in block]
    layers += [] if model.linear is None else [model.linear]
    for layer in layers:
        if not isinstance(layer, nnx.Conv | nnx.Linear):
            raise UserError(f"a state dict has no name for the weights of a {type(layer).__name__}")
    if sum(map(count_params, layers)) != count_params(model):
        raise UserError("the model has parameters outside its blocks, which no state dict names")
    names = layer_names(model.variant, [len(block) for block in blocks])
    return list(zip(names, layers, strict=False))


def _model_shapes(model: NiN) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the model's state dict, as its parameters say."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, layer in _layers(model):
        shape = layer.kernel.shape
        shapes[f"{name}.weight"] = tuple(shape[i] for i in TORCH_ORDER[len(shape)])
        if layer.bias is not None:
            shapes[f"{name}.bias"] = layer.bias.shape
    return shapes


def _to_torch_layout(kernel: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(kernel.transpose(TORCH_ORDER[kernel.ndim]))


def _from_torch_layout(weight: np.ndarray) -> np.ndarray:
    return weight.transpose((2, 3, 1, 0) if weight.ndim == 4 else (1, 0))


def to_torch(model: NiN) -> dict[str, np.ndarray]:
    """Return the model's parameters as a state dict of arrays in the parameters' dtype.

    PyTorch's ``load_state_dict`` takes
    ``{name: torch.from_numpy(array) for name, array in to_torch(model).items()}``.

    Raises:
        UserError: a layer was replaced by one that a state dict has no name for.
    """
    state = {}
    for name, layer in _layers(model):
        state[f"{name}.weight"] = _to_torch_layout(np.asarray(layer.kernel[...]))
        if layer.bias is not None:
            state[f"{name}.bias"] = np.array(layer.bias[...])
    return state


def _as_arrays(state_dict: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the arrays; one that is not expected may hold anything, so it becomes an empty one."""
    if not isinstance(state_dict, Mapping):
        raise UserError(f"a state dict maps names to arrays, got {shown(state_dict)}")
    return {
        name: _as_array(name, value) if name in expected else np.zeros(0)
        for name, value in state_dict.items()
    }


def _as_array(name: str, value: Any) -> np.ndarray:
    """Return an array or tensor as a floating array, which shares its memory if possible."""
    if hasattr(value, "detach"):  # a tensor may require a gradient, or be on a GPU
        value = value.detach().cpu()
    try:
        array = np.asarray(value)
    except Exception as error:  # sparse, quantized and bfloat16 tensors raise various types
        raise UserError(f"{shown(name)} is not a plain array: {shown(error)}") from None
    if array.dtype.kind != "f":
        raise UserError(
            f"{shown(name)} holds {array.dtype}; float16, float32 or float64 can be read"
        )
    return array


def _shapes(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in arrays.items()}


def load_state_dict(model: NiN, state_dict: Mapping[str, Any]) -> None:
    """Replace all parameters of the model by the state dict's, cast to the parameters' dtype.

    Raises:
        UserError: keys are missing or unexpected, or have another shape (the first 30 are listed),
            a value is not a floating array, or as for `to_torch`. The model is unchanged.
    """
    expected = _model_shapes(model)
    arrays = _as_arrays(state_dict, expected)
    check_shapes(_shapes(arrays), expected, model.variant.name)
    for name, layer in _layers(model):
        weight = _from_torch_layout(arrays[f"{name}.weight"])
        layer.kernel.set_value(jnp.asarray(weight, layer.kernel.dtype))
        if layer.bias is not None:
            layer.bias.set_value(jnp.asarray(arrays[f"{name}.bias"], layer.bias.dtype))


def transfer(model: NiN, state_dict: Mapping[str, Any]) -> list[str]:
    """Load the parameters of the same network for other numbers of channels or classes.

    Layers with another shape, because of the number of input channels or classes, keep their
    parameters.

    Returns:
        The names of those layers, as in `geometry.trace`.

    Raises:
        UserError: the weights are from another network. The model is unchanged.
    """
    variant, size = model.variant, model.image_size
    expected = _model_shapes(model)
    arrays = _as_arrays(state_dict, expected)
    shapes = _shapes(arrays)
    names = list(dict.fromkeys(name.rpartition(".")[0] for name in expected))
    kernel, bias = (shapes.get(n, ()) for n in (f"{names[0]}.weight", f"{names[-1]}.bias"))
    channels = kernel[1] if len(kernel) == 4 else model.in_channels
    classes = bias[0] if len(bias) == 1 else model.num_classes
    check_shapes(shapes, expected_shapes(variant, channels, classes, size), variant.name)

    own_names = [layer.name for layer in model.layers if layer.params]
    skipped = {
        name: layer
        for name, layer in zip(names, own_names, strict=True)
        if shapes[f"{name}.weight"] != expected[f"{name}.weight"]
    }
    loaded = {name: a for name, a in arrays.items() if name.rpartition(".")[0] not in skipped}
    load_state_dict(model, to_torch(model) | loaded)
    return list(skipped.values())


def from_torch(
    state_dict: Mapping[str, Any],
    variant: str | Variant,
    *,
    in_channels: int = 1,
    num_classes: int = 10,
    image_size: ImageSize = 224,
    **options: Any,
) -> NiN:
    """Return a model with the state dict's parameters.

    Args:
        state_dict: maps ``net.{i}.{j}.weight`` and ``.bias`` to arrays or tensors.
        variant, in_channels, num_classes, image_size: as for `create_model`.
        options: further arguments of `create_model`, such as ``logit_relu`` or ``dtype``.

    Raises:
        UserError: as for `create_model` and `load_state_dict`.
    """
    sizes: dict[str, Any] = {
        "in_channels": in_channels,
        "num_classes": num_classes,
        "image_size": image_size,
    }
    # Parameters are shapes at first: drawing values to replace them would compile much.
    model = nnx.eval_shape(lambda: new_model(variant, **sizes, **options))
    load_state_dict(model, state_dict)
    return model


def save_safetensors(model: NiN, path: str | Path) -> None:
    """Write the state dict of `to_torch` to a ``.safetensors`` file, which PyTorch can read.

    A preprocessing other than the default is in the file's metadata.
    """
    from safetensors.numpy import save_file

    save_file(to_torch(model), path, to_metadata(model.preprocessing))


def read_preprocessing(path: str | Path) -> Preprocessing:
    """Read what the metadata of a ``.safetensors`` file say; the default if they say nothing.

    Raises:
        UserError: the file cannot be read, or its preprocessing is damaged.
    """
    with _opened(path) as file:
        return from_metadata(file.metadata(), path)


def load_safetensors(
    path: str | Path, fitting: Mapping[str, tuple[int, ...]] | None = None, network: str = ""
) -> dict[str, np.ndarray]:
    """Read a ``.safetensors`` file.

    Args:
        path: of the file.
        fitting: result of `expected_shapes`; if given, the file's header is compared with it
            before any array is read.
        network: name of that network, for the error message.

    Returns:
        float16, float32 or float64 arrays by name.

    Raises:
        UserError: the file is missing, truncated or in another format (such as a pickle), or an
            array is not floating or does not fit.
    """
    with _opened(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        for name, header in slices.items():
            if fitting is not None and name not in fitting:
                continue  # `check_shapes` names it
            if header.get_dtype() not in ("F16", "F32", "F64"):
                raise UserError(
                    f"{path}: {shown(name)} holds {header.get_dtype()}; F16, F32 or F64 can be read"
                )
        shapes = {name: tuple(header.get_shape()) for name, header in slices.items()}
        if fitting is not None:
            check_shapes(shapes, fitting, network)
        return {name: file.get_tensor(name) for name in slices}


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    """Open a ``.safetensors`` file; every error while it is open becomes one line."""
    from safetensors import SafetensorError, safe_open

    check_file(path, MAX_FILE_BYTES, f"cannot read weights {path}")
    try:
        with safe_open(path, "numpy") as file:
            yield file
    except SafetensorError as error:
        raise _damaged(path, error) from None
    except OSError as error:
        raise UserError(f"cannot read weights {path}: {error.strerror or error}") from None
    except UserError:
        raise
    except ValueError as error:  # an empty array with sides too large for NumPy
        raise _damaged(path, error) from None


def _damaged(path: str | Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:300]  # it may quote the file
    hint = "; it is a PyTorch file: convert it with scripts/convert.py" if is_torch(path) else ""
    return UserError(f"{path} is not a complete safetensors file: {reason}{hint}")
