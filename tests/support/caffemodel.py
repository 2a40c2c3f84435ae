"""Files of Caffe, written byte by byte, with the field numbers of its ``caffe.proto``."""

from collections.abc import Sequence

import numpy as np

ZOO = (
    *("conv1", "cccp1", "cccp2", "conv2", "cccp3", "cccp4", "conv3", "cccp5", "cccp6"),
    *("conv4-1024", "cccp7-1024", "cccp8-1024"),
)


def varint(number: int) -> bytes:
    """A number in groups of seven bits, the lowest first."""
    groups = []
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    return bytes([*groups, number])


def field(number: int, value: int | bytes) -> bytes:
    """A field that holds a number, or a text, packed numbers or a message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def blob(
    array: np.ndarray, old: bool = False, packed: bool = True, claimed: tuple[int, ...] = ()
) -> bytes:
    """A BlobProto: float32 or float64 numbers, and their shape in four fields or in one."""
    sides = claimed or array.shape
    if old:
        sides = (1,) * (4 - len(sides)) + sides
        shape = b"".join(field(i, side) for i, side in enumerate(sides, start=1))
    else:
        shape = field(7, field(1, b"".join(map(varint, sides))))
    number, kind, wire = (8, "<f8", 1) if array.dtype == np.float64 else (5, "<f4", 5)
    if packed:
        return shape + field(number, array.astype(kind).tobytes())
    each = np.zeros(array.size, [("tag", "u1"), ("value", kind)])
    each["tag"], each["value"] = number << 3 | wire, array.ravel()
    return shape + each.tobytes()


def caffemodel(
    arrays: Sequence[np.ndarray | bytes | None],
    names: Sequence[str] = ZOO,
    v1: bool = True,
    old: bool = True,
    packed: bool = True,
    kind: int | bytes | None = None,
) -> bytes:
    """A NetParameter with convolutions, among layers without weights.

    Args:
        arrays: weight, bias, weight, bias and so on: each an array, a blob, or None for no bias.
        names: of the convolutions.
        v1: whether the layers are of the older kind, as in the model zoo's file.
        old, packed: as for `blob`.
        kind: of the layers, if it is not that of a convolution.
    """
    outer, name_at, type_at, blobs_at = (2, 4, 5, 6) if v1 else (100, 1, 2, 7)
    kind = kind or (4 if v1 else b"Convolution")
    relu = field(name_at, b"relu") + field(type_at, 18 if v1 else b"ReLU")
    layers = [field(1, b"data"), relu]  # the first has a top only
    for name, *pair in zip(names, arrays[::2], arrays[1::2], strict=False):
        head = field(name_at, name.encode()) + field(type_at, kind)
        blobs = (
            field(blobs_at, value if isinstance(value, bytes) else blob(value, old, packed))
            for value in pair
            if value is not None
        )
        layers += [head + b"".join(blobs), relu]
    return field(1, b"CaffeNet") + b"".join(field(outer, layer) for layer in layers)
