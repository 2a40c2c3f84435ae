"""Many devices as one: the mesh, where each array lies on it, and a batch divided over it.

Data parallelism: every device works on its share of each batch, and the gradients are summed over
the devices, once a step. Parameters are on all devices, or each device keeps a slice of them and of
the optimiser's state (ZeRO, Rajbhandari et al. 2020); then they are gathered before a step's work
and their gradients are scattered after it.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from nin_jax.training import exchange

AXIS = "data"
EVERYWHERE, DIVIDED, COLUMNS = P(), P(AXIS), P(None, AXIS)


@dataclass(frozen=True)
class Layout:
    """A mesh of devices over which every batch is divided.

    Attributes:
        mesh: of one axis, "data".
        shard_params: whether parameters and optimiser state are divided over it too.
        own_examples: whether each device holds the examples of its own share of the batches and no
            others; else all devices hold the same ones.
    """

    mesh: Mesh
    shard_params: bool = False
    own_examples: bool = False

    @property
    def devices(self) -> int:
        return self.mesh.size

    @property
    def examples(self) -> P:
        """How images and labels lie on the mesh."""
        return DIVIDED if self.own_examples else EVERYWHERE

    def columns(self, batch_size: int) -> int:
        """Examples of a batch that each device works on, the last ones perhaps on fewer."""
        return -(-batch_size // self.devices)

    def specs(self, tree: Any) -> Any:
        """How parameters, or an optimiser's state of their shapes, lie on the mesh."""
        return jax.tree.map(self._spec, tree)

    def _spec(self, leaf: Any) -> P:
        axis = self._axis(leaf.shape)
        return EVERYWHERE if axis is None else P(*[None] * axis, AXIS)

    def _axis(self, shape: tuple[int, ...]) -> int | None:
        """The longest axis that the devices divide; None where the array stays whole."""
        fitting = [n for n in shape if n % self.devices == 0]
        return shape.index(max(fitting)) if self.shard_params and fitting else None

    def shardings(self, specs: Any) -> Any:
        """A tree of `PartitionSpec` -> `NamedSharding`."""
        return jax.tree.map(self.sharding, specs, is_leaf=lambda leaf: isinstance(leaf, P))

    def sharding(self, spec: P) -> NamedSharding:
        return NamedSharding(self.mesh, spec)

    def place(self, tree: Any, specs: Any) -> Any:
        """Arrays of the host, the same in every process, as arrays on the mesh."""

        def one(leaf: Any, spec: P) -> jax.Array:
            if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                return jax.random.wrap_key_data(one(jax.random.key_data(leaf), spec))
            value, sharding = np.asarray(jax.device_get(leaf)), self.sharding(spec)
            if sharding.is_fully_addressable:
                return jax.device_put(value, sharding)
            with jax.transfer_guard("allow"):  # what is asked for here
                return jax.make_array_from_callback(value.shape, sharding, lambda part: value[part])

        if isinstance(specs, P):
            return jax.tree.map(lambda leaf: one(leaf, specs), tree)
        return jax.tree.map(one, tree, specs)

    @property
    def own(self) -> list[int]:
        """The devices, by their place on the mesh, that are this process's."""
        me = jax.process_index()
        return [d for d, device in enumerate(self.mesh.devices.flat) if device.process_index == me]

    def divide(self, blocks: Mapping[int, np.ndarray]) -> jax.Array:
        """The array [D n, ...] of which device d holds ``blocks[d]``, [n, ...].

        Args:
            blocks: of this process's devices.
        """
        devices = self.mesh.devices.flat
        parts = [jax.device_put(block, devices[d]) for d, block in blocks.items()]
        shape = (self.devices * len(parts[0]), *parts[0].shape[1:])
        return jax.make_array_from_single_device_arrays(shape, self.sharding(DIVIDED), parts)

    def whole(self, params: Any) -> Any:
        """Parameters as every device has all of them; nothing happens if that is so already."""
        if not self.shard_params:
            return params
        return _everywhere(self)(params)

    def over_devices(self, gradient: Callable[..., tuple[Any, Any]]) -> Callable[..., Any]:
        """The sum over the devices of what ``gradient`` makes of each one's share of a batch.

        Args:
            gradient: ``(params, images, labels, indices, positions, key) -> (grads, sums)``, sums
                over the examples at ``indices``, int32 [b]; ``positions``, int32 [b], are their
                places in the whole batch.

        Returns:
            The same function of the whole batch, without ``positions``. Gradients lie on the mesh
            as the parameters do, sums are everywhere.
        """

        def whole(params: Any, images: Any, labels: Any, indices: Any, key: Any) -> Any:
            axes = [self._axis(leaf.shape) for leaf in jax.tree.leaves(params)]

            def share(params: Any, images: Any, labels: Any, indices: Any, key: Any) -> Any:
                columns = len(indices)  # [B / D]
                positions = jax.lax.axis_index(AXIS) * columns + jnp.arange(columns)
                params = exchange.gather(params, axes, AXIS)
                found = gradient(params, images, labels, indices, positions, key)
                return exchange.sum_over_devices(*found, axes, AXIS)

            # JAX's own bookkeeping of what varies over the axis is off: it would sum a gradient
            # over the devices in every micro-batch, not once a step.
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
def _everywhere(layout: Layout) -> Callable[[Any], Any]:
    return jax.jit(lambda tree: tree, out_shardings=layout.sharding(EVERYWHERE))


def make_layout(
    devices: Sequence[Any], *, shard_params: bool = False, own_examples: bool = False
) -> Layout:
    """The layout over these devices, the same in every process."""
    mesh = Mesh(np.asarray(devices), (AXIS,), axis_types=(AxisType.Auto,))
    return Layout(mesh, shard_params, own_examples)
