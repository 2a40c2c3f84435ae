"""Data parallelism: the device mesh, the placement of arrays on it, and the collectives of a step.

Each device computes the gradient of its share of a batch; the gradients are summed over the
devices once per step. Parameters are replicated, or each device keeps a shard of the parameters and
of the optimizer state (ZeRO, Rajbhandari et al. 2020). Sharded parameters are gathered before the
gradient is computed, and their gradients are scattered afterwards.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXIS = "data"
EVERYWHERE, DIVIDED, COLUMNS = P(), P(AXIS), P(None, AXIS)


@dataclass(frozen=True)
class Layout:
    """A mesh of D devices that share every batch.

    Attributes:
        mesh: has one axis, "data".
        shard_params: whether parameters and optimizer state are sharded too.
        own_examples: whether each device holds only the examples of its share of the batches;
            otherwise all devices hold the same examples.
    """

    mesh: Mesh
    shard_params: bool = False
    own_examples: bool = False

    @property
    def devices(self) -> int:
        """Number of devices, D."""
        return self.mesh.size

    @property
    def examples(self) -> P:
        """Partition of images and labels."""
        return DIVIDED if self.own_examples else EVERYWHERE

    def columns(self, batch_size: int) -> int:
        """Return the number of examples per device in a batch; the last device may have fewer."""
        return -(-batch_size // self.devices)

    def specs(self, tree: Any) -> Any:
        """Return the partition of parameters, or of an optimizer state with the same shapes."""
        return jax.tree.map(self._spec, tree)

    def _spec(self, leaf: Any) -> P:
        axis = self._axis(leaf.shape)
        return EVERYWHERE if axis is None else P(*[None] * axis, AXIS)

    def _axis(self, shape: tuple[int, ...]) -> int | None:
        """Return the longest axis that D divides; None if the array is not sharded."""
        fitting = [n for n in shape if n % self.devices == 0]
        return shape.index(max(fitting)) if self.shard_params and fitting else None

    def sharding(self, spec: P) -> NamedSharding:
        """Return the partition as a sharding on this mesh."""
        return NamedSharding(self.mesh, spec)

    def place(self, tree: Any, specs: Any) -> Any:
        """Copy arrays from the host to the mesh. Every process must have the same arrays.

        Args:
            tree: of arrays.
            specs: one `PartitionSpec` for all of them, or a tree of them.
        """

        def one(leaf: Any, spec: P) -> jax.Array:
            if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                return jax.random.wrap_key_data(one(jax.random.key_data(leaf), spec))
            value, sharding = np.asarray(jax.device_get(leaf)), self.sharding(spec)
            if sharding.is_fully_addressable:
                return jax.device_put(value, sharding)
            with jax.transfer_guard("allow"):  # this transfer is explicit
                return jax.make_array_from_callback(value.shape, sharding, lambda part: value[part])

        if isinstance(specs, P):
            return jax.tree.map(lambda leaf: one(leaf, specs), tree)
        return jax.tree.map(one, tree, specs)

    @property
    def own(self) -> list[int]:
        """Positions on the mesh of the devices of this process."""
        me = jax.process_index()
        return [d for d, device in enumerate(self.mesh.devices.flat) if device.process_index == me]

    def divide(self, blocks: Mapping[int, np.ndarray]) -> jax.Array:
        """Return the array [D n, ...] of which device d holds ``blocks[d]``, [n, ...].

        Args:
            blocks: those of the devices of this process.
        """
        devices = self.mesh.devices.flat
        parts = [jax.device_put(block, devices[d]) for d, block in blocks.items()]
        shape = (self.devices * len(parts[0]), *parts[0].shape[1:])
        return jax.make_array_from_single_device_arrays(shape, self.sharding(DIVIDED), parts)

    def whole(self, params: Any) -> Any:
        """Return the parameters replicated on every device."""
        return _replicate(self)(params) if self.shard_params else params

    def over_devices(self, gradient: Callable[..., tuple[Any, Any]]) -> Callable[..., Any]:
        """Return a function for a whole batch.

        Each device computes ``gradient`` of its share, and the results are summed.

        Args:
            gradient: ``(params, images, labels, indices, positions, key) -> (grads, sums)``, sums
                over the examples at ``indices``, int32 [b]; ``positions``, int32 [b], are their
                positions in the whole batch.

        Returns:
            The same function without ``positions``. The gradients have the partition of the
            parameters; the sums are replicated.
        """

        def whole(params: Any, images: Any, labels: Any, indices: Any, key: Any) -> Any:
            axes = [self._axis(leaf.shape) for leaf in jax.tree.leaves(params)]

            def share(params: Any, images: Any, labels: Any, indices: Any, key: Any) -> Any:
                columns = len(indices)  # [B / D]
                positions = jax.lax.axis_index(AXIS) * columns + jnp.arange(columns)
                params = _gather(params, axes)
                found = gradient(params, images, labels, indices, positions, key)
                return _sum_over_devices(*found, axes)

            # With check_vma, JAX would sum the gradients over the devices in every micro-batch, not
            # once per step.
            divided = jax.shard_map(
                share,
                mesh=self.mesh,
                in_specs=(self.specs(params), self.examples, self.examples, DIVIDED, EVERYWHERE),
                out_specs=(self.specs(params), EVERYWHERE),
                check_vma=False,
            )
            return divided(params, images, labels, indices, key)

        return whole


@functools.cache
def _replicate(layout: Layout) -> Callable[[Any], Any]:
    return jax.jit(lambda tree: tree, out_shardings=layout.sharding(EVERYWHERE))


def make_layout(
    devices: Sequence[Any], *, shard_params: bool = False, own_examples: bool = False
) -> Layout:
    """Return the layout over these devices, which are the same in every process."""
    mesh = Mesh(np.asarray(devices), (AXIS,), axis_types=(AxisType.Auto,))
    return Layout(mesh, shard_params, own_examples)


# The collectives of a step. They run on each device, inside `jax.shard_map`. Sharded arrays are
# concatenated first, so that a step has one gather and one scatter, whatever the number of arrays.

Axes = Sequence[int | None]  # the sharded axis of each array; None for a replicated array


def _gather(tree: Any, axes: Axes) -> Any:
    """Return the whole arrays from each device's shards, in one all-gather."""
    leaves, structure = jax.tree.flatten(tree)
    sharded = [i for i, axis in enumerate(axes) if axis is not None]
    if not sharded:
        return tree
    mine, unravel = ravel_pytree([leaves[i] for i in sharded])  # [n]
    shards = jax.vmap(unravel)(jax.lax.all_gather(mine, AXIS))  # [D, ...] each
    for i, each in zip(sharded, shards, strict=True):
        leaves[i] = _join(each, axes[i] or 0)
    return jax.tree.unflatten(structure, leaves)


def _sum_over_devices(grads: Any, sums: Any, axes: Axes) -> tuple[Any, Any]:
    """Sum gradients and ``sums`` over the devices.

    One reduce-scatter gives each device its shard of the sharded gradients; one all-reduce sums the
    replicated gradients and ``sums``.
    """
    leaves, structure = jax.tree.flatten(grads)
    sharded = [i for i, axis in enumerate(axes) if axis is not None]
    if sharded:
        devices = jax.lax.axis_size(AXIS)
        parts = [_split(leaves[i], axes[i] or 0, devices) for i in sharded]  # [D, ...] each
        flat = jax.vmap(lambda parts: ravel_pytree(parts)[0])(parts)  # [D, n]
        _, unravel = ravel_pytree([part[0] for part in parts])
        mine = unravel(jax.lax.psum_scatter(flat, AXIS))  # [...] each
        for i, each in zip(sharded, mine, strict=True):
            leaves[i] = each
    replicated = {i: leaf for i, leaf in enumerate(leaves) if axes[i] is None}
    replicated, sums = jax.lax.psum((replicated, sums), AXIS)
    leaves = [replicated.get(i, leaf) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, leaves), sums


def _split(array: jax.Array, axis: int, devices: int) -> jax.Array:
    """Reshape [..., D s, ...] to [D, ..., s, ...]: one shard per device, along the axis."""
    shape = array.shape
    split = (*shape[:axis], devices, shape[axis] // devices, *shape[axis + 1 :])
    return jnp.moveaxis(array.reshape(split), axis, 0)


def _join(shards: jax.Array, axis: int) -> jax.Array:
    """Reshape [D, ..., s, ...] to [..., D s, ...], the inverse of `_split`."""
    devices, *shape = shards.shape
    shape[axis] *= devices
    return jnp.moveaxis(shards, 0, axis).reshape(shape)
