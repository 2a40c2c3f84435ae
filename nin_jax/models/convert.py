"""Weights to and from PyTorch: a one-to-one mapping between state dicts and models.

A state dict maps ``net.{i}.{j}.weight`` and ``.bias``, the names that nested ``nn.Sequential``
gives, to arrays. Kernels are [O, C, K, K] there and [K, K, C, O] here. The linear layer's weight is
[M, N] there and [N, M] here, with its inputs in C, H, W order on both sides. Every parameter is
set, every shape is checked, and nothing is reshaped to fit. Checkpoints, prefixes and other
names are recognized (`recognition`); one line on standard error says what was done.

torch is not needed: the values are torch tensors or anything that `numpy.asarray` accepts.
"""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from nin_jax.errors import UserError, unknown_name
from nin_jax.models import caffe
from nin_jax.models.nin import NiN, check_blocks, count_params, new_model
from nin_jax.models.preprocessing import Preprocessing, to_metadata
from nin_jax.models.recognition import Recognized, pytorchcv_names, recognize
from nin_jax.models.stages import ImageSize
from nin_jax.models.state_dict import TORCH_ORDER, check_shapes, expected_shapes, layer_names
from nin_jax.models.variants import Variant, get_variant
from nin_jax.models.weight_files import load_safetensors, read_preprocessing
from nin_jax.writing import replacing

__all__ = [
    "check_shapes",
    "expected_shapes",
    "from_caffe",
    "from_torch",
    "load_safetensors",
    "load_state_dict",
    "read_preprocessing",
    "save_safetensors",
    "to_torch",
    "transfer",
]


def _layers(model: NiN) -> list[tuple[str, nnx.Conv | nnx.Linear]]:
    """Return (name in the state dict, layer) of every layer with parameters.

    Raises:
        UserError: a parameter is in a layer that the state dict has no name for, or blocks were
            added or removed.
    """
    check_blocks(model)
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


Naming = Literal["sequential", "pytorchcv"]


def to_torch(model: NiN, naming: Naming = "sequential") -> dict[str, np.ndarray]:
    """Return the model's parameters as a state dict of arrays.

    They have the parameters' dtype; bfloat16 ones are float32, as NumPy and PyTorch have no
    bfloat16 in common. PyTorch's ``load_state_dict`` takes
    ``{name: torch.from_numpy(array) for name, array in to_torch(model).items()}``.

    Args:
        model: whose parameters are wanted.
        naming: "sequential" for the names above, or "pytorchcv" for that package's, such as
            ``features.stage1.unit1.conv.weight``.

    Raises:
        UserError: a layer was replaced by one that a state dict has no name for, or pytorchcv has
            no name for a linear layer.
    """
    return {
        name: array.astype(np.float32) if array.dtype == jnp.bfloat16 else array
        for name, array in _arrays(model, naming).items()
    }


def _arrays(model: NiN, naming: Naming) -> dict[str, np.ndarray]:
    """Return the parameters by name, in their own dtype."""
    if naming not in get_args(Naming):
        raise unknown_name("naming", str(naming), get_args(Naming))
    layers = _layers(model)
    names = {name: name for name, _ in layers}
    if naming == "pytorchcv" and not (names := pytorchcv_names(list(names))):
        raise UserError(f"pytorchcv has no name for the linear layer of {model.variant.name}")
    state = {}
    for name, layer in layers:
        kernel = np.asarray(layer.kernel[...])
        weight = np.ascontiguousarray(kernel.transpose(TORCH_ORDER[kernel.ndim]))
        state[f"{names[name]}.weight"] = weight
        if layer.bias is not None:
            state[f"{names[name]}.bias"] = np.array(layer.bias[...])
    return state


def _shapes(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in arrays.items()}


def load_state_dict(model: NiN, state_dict: Mapping[str, Any]) -> None:
    """Replace all parameters of the model by the state dict's, cast to the parameters' dtype.

    Args:
        model: to change.
        state_dict: as for `from_torch`.

    Raises:
        UserError: no key has a known name; keys are missing, have another shape or belong to
            a larger network (the first 30 are listed); a value is not a floating array; or as for
            `to_torch`. The model is unchanged.
    """
    expected = _model_shapes(model)
    found = recognize(state_dict, expected)
    check_shapes(_shapes(found.arrays), expected, model.variant.name)
    _set(model, found)


def _set(model: NiN, found: Recognized) -> None:
    """Replace the parameters of the layers that are found, and say what was done, if anything."""
    layers = _layers(model)
    for name, layer in layers:
        if (weight := found.arrays.get(f"{name}.weight")) is not None:
            kernel = weight.transpose(*np.argsort(TORCH_ORDER[weight.ndim]))
            layer.kernel.set_value(jnp.asarray(kernel, layer.kernel.dtype))
        if layer.bias is not None and (bias := found.arrays.get(f"{name}.bias")) is not None:
            layer.bias.set_value(jnp.asarray(bias, layer.bias.dtype))
    note = found.note(layers[0][1].kernel.dtype)
    if note and jax.process_index() == 0:
        print(f"note: weights: {note}", file=sys.stderr)


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
    found = recognize(state_dict, expected)
    shapes = _shapes(found.arrays)
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
    kept = {n: array for n, array in found.arrays.items() if n.rpartition(".")[0] not in skipped}
    _set(model, replace(found, arrays=kept))
    return list(skipped.values())


def from_torch(
    state_dict: Mapping[str, Any],
    variant: str | Variant,
    *,
    in_channels: int = 1,
    num_classes: int = 10,
    image_size: ImageSize | None = None,
    **options: Any,
) -> NiN:
    """Return a model with the state dict's parameters.

    Args:
        state_dict: maps ``net.{i}.{j}.weight`` and ``.bias`` to arrays or tensors: float16,
            bfloat16, float32 or float64. pytorchcv's names and the prefixes ``module.``,
            ``_orig_mod.``, ``model.`` and ``net.`` are recognized. It may also be a
            checkpoint that holds it under ``state_dict``, ``model_state_dict``, ``model`` or
            ``params``. Entries that no network has, such as ``num_batches_tracked``, are ignored;
            a note lists them.
        variant, in_channels, num_classes, image_size: as for `create_model`.
        options: further arguments of `create_model`, such as ``logit_relu`` or ``dtype``.

    Raises:
        UserError: as for `create_model` and `load_state_dict`.
    """
    sizes = {"in_channels": in_channels, "num_classes": num_classes, "image_size": image_size}
    model = _without_values(variant, **sizes, **options)
    load_state_dict(model, state_dict)
    return model


def _without_values(variant: str | Variant, **options: Any) -> NiN:
    """Return a model with shapes in place of values, which take long to draw."""
    return nnx.eval_shape(lambda: new_model(variant, **options))


def from_caffe(
    path: str | Path,
    variant: str | Variant = "nin_imagenet",
    *,
    in_channels: int = 3,
    num_classes: int = 1000,
    image_size: ImageSize | None = None,
    preprocessing: Preprocessing | None = None,
    **options: Any,
) -> NiN:
    """Return a model with the weights of a ``.caffemodel``. Caffe is not needed.

    The convolutions are taken in the order of the file, whatever their names, and every shape is
    checked. The file does not say which images the network takes, so that is stated here.

    Args:
        path: of the file.
        variant, in_channels, num_classes: as for `create_model`.
        image_size: as for `create_model`; by default that of the variant.
        preprocessing: of the images. Default: `caffe.PREPROCESSING`, that of the model zoo's
            network for ImageNet; without its mean and crop for another variant, and none at all for
            images without three channels.
        options: further arguments of `create_model`.

    Raises:
        UserError: as for `create_model` and `caffe.read`; the network has a linear layer; or the
            convolutions do not fit it.
    """
    variant = get_variant(variant)
    if preprocessing is None:
        preprocessing = caffe.usual_preprocessing(variant.name, in_channels)
    sizes = {"in_channels": in_channels, "num_classes": num_classes, "image_size": image_size}
    model = _without_values(variant, **sizes, preprocessing=preprocessing, **options)
    if model.linear is not None:
        raise UserError(f"{variant.name} has a linear layer, which no network in Caffe's form has")
    found = caffe.read(path, [name for name, _ in _layers(model)], variant.name)
    check_shapes(_shapes(found.arrays), _model_shapes(model), variant.name)
    _set(model, replace(found, remarks=(*found.remarks, f"preprocessing: {preprocessing}")))
    return model


def save_safetensors(model: NiN, path: str | Path, naming: Naming = "sequential") -> None:
    """Write the parameters to a ``.safetensors`` file, which PyTorch can read.

    They keep their dtype. A preprocessing other than the default is in the file's metadata. If
    writing fails, a file that was there before stays as it was.

    Args:
        model, naming: as for `to_torch`.
        path: of the file.

    Raises:
        UserError: as for `to_torch`.
        OSError: the file cannot be written.
    """
    from safetensors.numpy import save

    # The library's own `save_file` makes files that only their owner can read, whatever the umask.
    content = save(_arrays(model, naming), to_metadata(model.preprocessing))
    with replacing(Path(path)) as partial:
        partial.write_bytes(content)
