"""What devices tell each other in a training step: called within `jax.shard_map`, on one device.

Arrays that are divided over the devices travel as one, laid end to end: one gather and one scatter
a step, however many arrays a network has.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

Axes = Sequence[int | None]  # along which each array is divided; None for one that is whole


def gather(tree: Any, axes: Axes, name: str) -> Any:
    """This device's slices -> the whole arrays, in one all-gather.

    Args:
        tree: of arrays.
        axes: one for each of them.
        name: of the mesh axis.
    """
    leaves, structure = jax.tree.flatten(tree)
    divided = [i for i, axis in enumerate(axes) if axis is not None]
    if not divided:
        return tree
    mine = jnp.concatenate([leaves[i].reshape(-1) for i in divided])  # [n]
    everyones = jax.lax.all_gather(mine, name)  # [D, n]
    start = 0
    for i in divided:
        part = everyones[:, start : start + leaves[i].size]
        start += leaves[i].size
        leaves[i] = _joined(part.reshape(-1, *leaves[i].shape), axes[i] or 0)
    return jax.tree.unflatten(structure, leaves)


def sum_over_devices(grads: Any, sums: Any, axes: Axes, name: str) -> tuple[Any, Any]:
    """Every device's gradients and sums added up, in one all-reduce.

    Of a gradient that is divided each device gets its own slice of the sum, all of them in one
    reduce-scatter; then the all-reduce is of the few that are whole, and of ``sums``.
    """
    leaves, structure = jax.tree.flatten(grads)
    divided = [i for i, axis in enumerate(axes) if axis is not None]
    if divided:
        devices = jax.lax.axis_size(name)
        parts = [_sliced(leaves[i], axes[i] or 0, devices) for i in divided]  # [D, ...] each
        flat = jnp.concatenate([part.reshape(devices, -1) for part in parts], axis=1)  # [D, n]
        mine = jax.lax.psum_scatter(flat, name)  # [n]
        start = 0
        for i, part in zip(divided, parts, strict=True):
            size = part[0].size
            leaves[i] = mine[start : start + size].reshape(part.shape[1:])
            start += size
    whole = {i: leaf for i, leaf in enumerate(leaves) if axes[i] is None}
    whole, sums = jax.lax.psum((whole, sums), name)
    leaves = [whole.get(i, leaf) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, leaves), sums


def _sliced(array: jax.Array, axis: int, devices: int) -> jax.Array:
    """[..., D s, ...] -> [D, ..., s, ...]: each device's slice along the axis."""
    shape = array.shape
    split = (*shape[:axis], devices, shape[axis] // devices, *shape[axis + 1 :])
    return jnp.moveaxis(array.reshape(split), axis, 0)


def _joined(slices: jax.Array, axis: int) -> jax.Array:
    """[D, ..., s, ...] -> [..., D s, ...], the inverse of `_sliced`."""
    devices, *shape = slices.shape
    shape[axis] *= devices
    return jnp.moveaxis(slices, 0, axis).reshape(shape)
