"""Weights to and from PyTorch: a bijection between state dicts and models.

A state dict maps the names that nested ``nn.Sequential`` gives, ``net.{i}.{j}.weight`` and
``.bias``, to arrays. Kernels are [O, C, K, K] there and [K, K, C, O] here; the linear head's
weight is [M, N] there and [N, M] here, over the same C, H, W order of inputs. No value is ever
reshaped to fit: every key is used, every target filled, every shape checked.

torch is not needed: anything that `numpy.asarray` takes will do, torch tensors included.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from nin_jax.errors import UserError
from nin_jax.model import NiN, create_model
from nin_jax.variants import ImageSize, Variant


def _layers(model: NiN) -> Iterator[tuple[str, Any]]:
    """(name in the state dict, layer) for every layer with parameters.

    The reference's Sequential counts pools, dropout, mean and flatten too, and inside a block
    each convolution is followed by its ReLU.
    """
    index = 0
    for stage, block in zip(model.variant.stages, model.blocks, strict=True):
        yield from ((f"net.{index}.{2 * j}", conv) for j, conv in enumerate(block.convs))
        index += 2 if stage.pool else 1
    index += 1  # dropout
    yield from ((f"net.{index}.{2 * j}", conv) for j, conv in enumerate(model.head.convs))
    if model.linear is not None:
        yield f"net.{index + 2}", model.linear  # after the head and the flatten


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


def load_state_dict(model: NiN, state_dict: Mapping[str, Any]) -> None:
    """Overwrites every parameter of the model with the state dict's, cast to its dtype.

    Raises:
        UserError: keys are missing, unexpected or misshaped; all of them are listed, and the
            model is left as it was.
    """
    expected = {name: array.shape for name, array in to_torch(model).items()}
    arrays = {name: np.asarray(value) for name, value in state_dict.items()}
    faults = [f"missing {name}" for name in expected if name not in arrays]
    faults += [f"unexpected {name}" for name in arrays if name not in expected]
    faults += [
        f"{name} has shape {list(arrays[name].shape)}, not {list(shape)}"
        for name, shape in expected.items()
        if name in arrays and arrays[name].shape != shape
    ]
    if faults:
        raise UserError(
            f"the weights do not fit {model.variant.name} ({len(faults)} keys): {'; '.join(faults)}"
        )
    for name, layer in _layers(model):
        weight, bias = arrays[f"{name}.weight"], arrays[f"{name}.bias"]
        layer.kernel[...] = jnp.asarray(_from_torch_layout(weight), layer.kernel.dtype)
        layer.bias[...] = jnp.asarray(bias, layer.bias.dtype)


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
        UserError: keys are missing, unexpected or misshaped; all of them are listed.
    """
    model = create_model(
        variant, in_channels=in_channels, num_classes=num_classes, image_size=image_size, **options
    )
    load_state_dict(model, state_dict)
    return model


def save_safetensors(model: NiN, path: str | Path) -> None:
    """Writes `to_torch`'s arrays as a ``.safetensors`` file, which PyTorch reads as it stands."""
    from safetensors.numpy import save_file

    save_file(to_torch(model), path)


def load_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a ``.safetensors`` file.

    Raises:
        UserError: the file is missing, truncated, or of another format (a pickle, say).
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is not a whole safetensors file: {error}") from None
    except OSError as error:
        raise UserError(f"cannot read weights {path}: {error.strerror or error}") from None
