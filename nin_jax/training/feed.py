"""Place examples on the devices, in the order of the run.

A small dataset is on every device for the whole run. Of a large one each device gets only the
examples of its own part of the batches, a chunk of steps at a time. The batches are the same.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from nin_jax.data.datasets import Split
from nin_jax.training.sharding import COLUMNS, EVERYWHERE, Layout

# `datasets.Split.read` or `streaming.StreamedSplit.read`.
Read = Callable[[np.ndarray, int], Iterator[tuple[np.ndarray, np.ndarray]]]


class Chunk(NamedTuple):
    """Examples on the devices, and how they form batches.

    Attributes:
        images: uint8 [n, H, W, C].
        labels: int32 [n].
        order: int32 [rows, B], where B is a multiple of the number of devices: the batch of
            step s is row s % rows; -1 is padding.
        steps: number of steps for which the chunk has examples.
    """

    images: jax.Array
    labels: jax.Array
    order: jax.Array
    steps: int


class Resident:
    """All training examples on every device, for the whole run."""

    def __init__(self, layout: Layout, split: Split):
        self.layout = layout
        self.images = layout.place(split.images, EVERYWHERE)
        self.labels = layout.place(split.labels, EVERYWHERE)

    def chunks(self, order: np.ndarray, step: int) -> Iterator[Chunk]:
        """Yield the chunks of the rest of an epoch.

        Args:
            order: int32 [steps, B], from `transforms.epoch_order`.
            step: the next step of the run.
        """
        placed = self.layout.place(_padded(order, self.layout), COLUMNS)
        yield Chunk(self.images, self.labels, placed, len(order) - step % len(order))


class Shares:
    """On each device only the examples of its columns of the batches, ``rows`` steps at a time.

    Args:
        layout: of the devices, with ``own_examples``.
        read: reads examples by their index.
        rows: steps of a chunk.
    """

    def __init__(self, layout: Layout, read: Read, rows: int):
        self.layout, self.read, self.rows = layout, read, rows

    def chunks(self, order: np.ndarray, step: int) -> Iterator[Chunk]:
        """Yield the chunks of the rest of an epoch, as `Resident.chunks`.

        If the dataset is streamed, threads read the next chunks at the same time.
        """
        columns = _padded(order, self.layout).reshape(len(order), self.layout.devices, -1)
        columns = np.pad(columns, ((0, self.rows), (0, 0), (0, 0)), constant_values=-1)
        done = step % len(order)
        starts = range(done, len(order), self.rows)
        picks = [  # the batch of step s is in row s % rows
            np.roll(columns[start : start + self.rows], step - done + start, 0).transpose(1, 0, 2)
            for start in starts
        ]  # [D, rows, B / D] each
        divided = _divided(self.layout, self.read, picks)
        for start, pick, (images, labels) in zip(starts, picks, divided, strict=True):
            yield Chunk(images, labels, self._order(pick), min(self.rows, len(order) - start))

    def _order(self, pick: np.ndarray) -> jax.Array:
        """Return the positions of the examples on each device: they are in the order of use."""
        own = np.arange(pick[0].size, dtype=np.int32).reshape(pick[0].shape)  # [rows, B / D]
        local = np.where(pick >= 0, own, -1).astype(np.int32)  # [D, rows, B / D]
        return self.layout.place(local.transpose(1, 0, 2).reshape(self.rows, -1), COLUMNS)


def evaluation_parts(
    layout: Layout, read: Read, count: int, most: int
) -> Iterator[tuple[jax.Array, jax.Array]]:
    """Yield a split in parts, divided over the D devices: uint8 [D m, H, W, C], int32 [D m].

    Each example is in one part, on one device; padding has the label -1.

    Args:
        layout: of the devices.
        read: reads the split.
        count: its number of examples.
        most: maximum number of examples of a part on one device.
    """
    share = min(most, -(-count // layout.devices))
    parts = -(-count // (share * layout.devices))
    indices = np.arange(parts * layout.devices * share).reshape(parts, layout.devices, share)
    return _divided(layout, read, list(np.where(indices < count, indices, -1)), filler=-1)


def _padded(order: np.ndarray, layout: Layout) -> np.ndarray:
    """Pad an order with -1: [steps, B] -> [steps, D ceil(B / D)]."""
    filler = -order.shape[1] % layout.devices
    return np.pad(order, ((0, 0), (0, filler)), constant_values=-1)


def _divided(
    layout: Layout, read: Read, picks: list[np.ndarray], filler: int = 0
) -> Iterator[tuple[jax.Array, jax.Array]]:
    """Yield the examples of each of ``picks``, int [D, ...], with row d on device d.

    This process reads only the examples of its own devices. Padding (-1) gets the label ``filler``.
    """
    own = layout.own
    mine = [pick[own].reshape(-1) for pick in picks]
    for pick, (images, labels) in zip(mine, read(np.concatenate(mine), len(mine[0])), strict=True):
        labels = np.where(pick >= 0, labels, np.int32(filler))
        yield _placed(layout, images), _placed(layout, labels)


def _placed(layout: Layout, array: np.ndarray) -> jax.Array:
    """Place equal parts on the devices of this process: [own n, ...] -> [D n, ...]."""
    blocks = np.split(array, len(layout.own))
    return layout.divide(dict(zip(layout.own, blocks, strict=True)))
