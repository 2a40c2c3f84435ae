"""Read the convolutions of a ``.caffemodel`` and the mean of a ``.binaryproto``, without Caffe.

Both are protocol buffers. Only the fields that are needed are described here, with the numbers that
Caffe's ``caffe.proto`` gives them; the others are skipped.
"""

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

from nin_jax.errors import UserError, one_line
from nin_jax.models.preprocessing import Preprocessing
from nin_jax.models.recognition import Recognized
from nin_jax.models.state_dict import shown_key
from nin_jax.reading import check_file, shown

# A parsed file takes several times its size. The network for ImageNet has 30 MB.
MAX_FILE_BYTES = 2**28
CONVOLUTION_V1 = 4  # in the enumeration of the older layers
MAX_SIDES = 8

# The model zoo's networks for ImageNet take the center of pictures of 256x256 pixels: values
# 0..255, channels in the order BGR, minus the mean of each channel.
PREPROCESSING = Preprocessing(
    scale=255, mean=(104, 117, 123), channel_order="bgr", crop_fraction=0.875
)

# Fields by message: name, number, type, and whether it repeats. A type that is not a
# scalar is a message. An enumeration is read as an integer.
_SCHEMA = {
    "BlobShape": [("dim", 1, "int64", True)],
    "BlobProto": [
        *[(name, i, "int32", False) for i, name in enumerate(("num", "channels", "height"), 1)],
        ("width", 4, "int32", False),
        ("data", 5, "float", True),
        ("shape", 7, "BlobShape", False),
        ("double_data", 8, "double", True),
    ],
    "LayerParameter": [
        ("name", 1, "bytes", False),
        ("type", 2, "bytes", False),
        ("blobs", 7, "BlobProto", True),
    ],
    "V1LayerParameter": [
        ("name", 4, "bytes", False),
        ("type", 5, "int32", False),
        ("blobs", 6, "BlobProto", True),
    ],
    "NetParameter": [
        ("layers", 2, "V1LayerParameter", True),
        ("layer", 100, "LayerParameter", True),
    ],
}


def usual_preprocessing(network: str, in_channels: int) -> Preprocessing:
    """Return the usual preprocessing of a Caffe network, for an owner who states no other.

    Args:
        network: name of its variant. The mean is known for nin_imagenet only.
        in_channels: of its images; if there are not three, the images are left as they are.
    """
    if in_channels != 3:
        return Preprocessing()
    if network == "nin_imagenet":
        return PREPROCESSING
    return Preprocessing(scale=255, channel_order="bgr")


@functools.cache
def _message(name: str) -> type[Any]:
    """Return the class of a message of the schema, in a pool of its own.

    Protobuf's common pool would refuse these names in a process that also imports Caffe.
    """
    file = descriptor_pb2.FileDescriptorProto(name="nin_jax_caffe.proto", package="caffe")
    kinds = descriptor_pb2.FieldDescriptorProto
    for title, fields in _SCHEMA.items():
        described = file.message_type.add(name=title)
        for field, number, kind, repeated in fields:
            added = described.field.add(
                name=field,
                number=number,
                label=kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL,
            )
            if kind in _SCHEMA:
                added.type, added.type_name = kinds.TYPE_MESSAGE, f".caffe.{kind}"
            else:
                added.type = kinds.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{name}"))


def read(path: str | Path, names: Sequence[str], network: str) -> Recognized:
    """Return the weights [O, C, K, K] and biases [O] of the convolutions in a ``.caffemodel``.

    Args:
        path: of a file with layers of the current kind or of the older one (V1).
        names: of the network's convolutions, which get those of the file in their order.
        network: its name, for the error message.

    Returns:
        Arrays with the names ``{name}.weight`` and ``{name}.bias``: float32 or float64, as in the
        file.

    Raises:
        UserError: the file is missing, too large, truncated or no ``.caffemodel``, has another
            number of convolutions, or another kind of layer with weights.
    """
    net = _parsed(path, "NetParameter")
    layers = [layer for layer in (net.layer or net.layers) if len(layer.blobs) > 0]
    titles = [shown_key(layer.name.decode(errors="replace")) for layer in layers]
    between = f", {titles[0]} to {titles[-1]}" if titles else ""
    if len(layers) != len(names):
        raise UserError(
            f"{path} has {len(layers)} layers with weights{between}; {network} has {len(names)}"
        )
    arrays: dict[str, np.ndarray] = {}
    for name, title, layer in zip(names, titles, layers, strict=True):
        weight, *bias = _convolution(layer, f"{path}: {title}")
        arrays |= {f"{name}.weight": weight, **{f"{name}.bias": array for array in bias}}
    return Recognized(arrays, (f"convolutions{between.replace(', ', ' ')} in the file's order",))


def read_mean(path: str | Path) -> tuple[float, ...]:
    """Return the mean of each channel of the image in a ``.binaryproto``.

    Raises:
        UserError: as for `read`, or it is not one image.
    """
    image = _array(_parsed(path, "BlobProto"), f"{path}: the mean")
    image = image[0] if image.ndim == 4 and len(image) == 1 else image  # [C, H, W]
    if image.ndim != 3:
        raise UserError(f"{path} is no mean image: it has the shape {list(image.shape)}")
    return tuple(float(mean) for mean in image.mean((1, 2), dtype=np.float64))


def _parsed(path: str | Path, kind: str) -> Any:
    """Parse a file as one message."""
    problem = f"cannot read {path}"
    check_file(path, MAX_FILE_BYTES, problem)
    with one_line(problem):
        content = Path(path).read_bytes()
    try:
        return _message(kind).FromString(content)
    except (message.DecodeError, RecursionError):  # the latter from its slow implementation
        raise UserError(f"{path} is not a complete file of Caffe ({kind})") from None


def _convolution(layer: Any, what: str) -> list[np.ndarray]:
    """Return the weight [O, C, K, K] and the bias [O], if there is one."""
    if layer.type not in (CONVOLUTION_V1, b"Convolution"):
        kind = layer.type if isinstance(layer.type, int) else layer.type.decode(errors="replace")
        raise UserError(f"{what} has weights, but is no convolution: its type is {shown(kind)}")
    arrays = [_array(blob, what) for blob in layer.blobs[:3]]
    if len(arrays) > 2 or arrays[0].ndim != 4:
        raise UserError(
            f"{what} has arrays of the shapes {' and '.join(str(list(a.shape)) for a in arrays)}: "
            "a convolution has a weight [O, C, K, K] and a bias"
        )
    # Older files give every array four sides, so a bias is [1, 1, 1, O].
    return [arrays[0], *(bias.reshape(-1) for bias in arrays[1:])]


def _array(blob: Any, what: str) -> np.ndarray:
    """Return a blob's numbers in its shape, after a check that there are as many."""
    is_old, is_double = not blob.HasField("shape"), len(blob.double_data) > 0
    old_shape = (blob.num, blob.channels, blob.height, blob.width)
    sides = old_shape if is_old else tuple(blob.shape.dim)
    numbers = blob.double_data if is_double else blob.data
    if len(sides) > MAX_SIDES or min(sides, default=1) < 1 or math.prod(sides) != len(numbers):
        raise UserError(
            f"{what} holds {len(numbers):,} numbers, but claims the shape {shown(list(sides))}"
        )
    dtype = np.float64 if is_double else np.float32
    return np.fromiter(numbers, dtype, len(numbers)).reshape(sides)
