"""The windows of a pool: their elements, and the sums over the windows that contain a pixel."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nin_jax.errors import UserError
from nin_jax.models.geometry import pooled_side
from nin_jax.models.stages import Pool

WIDEST = 8  # side of the windows that are pooled in one pass; a 16x16 maximum compiles for 20 s


@dataclass(frozen=True)
class Windows:
    """The windows of a pool on maps of one size.

    Attributes:
        sides: (H, W) of the maps.
        size, stride, padding: of rows and of columns.
        round_up, count_padding: of the pool.
    """

    sides: tuple[int, ...]
    size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    round_up: bool
    count_padding: bool

    @classmethod
    def of(cls, x: jax.Array, pool: Pool) -> Self:
        """Return the windows of a pool of x: [B, H, W, C].

        Raises:
            UserError: no window fits.
        """
        size, stride, padding = pool.size, pool.stride, pool.padding
        pairs = (size, size), (stride, stride), (padding, padding)
        windows = cls(x.shape[1:3], *pairs, pool.round_up, pool.count_padding)
        if min(windows.counts) < 1:
            height, width = windows.sides
            raise UserError(f"a map of {height}x{width} is too small for a pool of {size}")
        return windows

    def passes(self) -> list[Self]:
        """Return windows that give the same result in sequence; none is too wide.

        The number of operations is that of a window's elements. For wide windows, each row is
        pooled by itself, then the results: ties and NaN have the same winners.
        """
        if max(self.size) <= WIDEST:
            return [self]
        size, stride, padding = self.size, self.stride, self.padding
        along = replace(self, size=(1, size[1]), stride=(1, stride[1]), padding=(0, padding[1]))
        across = replace(
            self,
            sides=along.counts,
            size=(size[0], 1),
            stride=(stride[0], 1),
            padding=(padding[0], 0),
        )
        return [along, across]

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers of windows: (H', W')."""
        axes = zip(self.sides, self.size, self.stride, self.padding, strict=True)
        return tuple(pooled_side(*axis, self.round_up) for axis in axes)

    @property
    def starts(self) -> list[np.ndarray]:
        """The first row of each window [H'], and the first column [W']; negative in the padding."""
        axes = zip(self.counts, self.stride, self.padding, strict=True)
        return [np.arange(count) * stride - padding for count, stride, padding in axes]

    @property
    def pads(self) -> list[tuple[int, int]]:
        """The pixels that windows need before and behind each axis of [B, H, W, C]."""
        axes = zip(self.starts, self.size, self.sides, self.padding, strict=True)
        pads = [(pad, max(0, int(starts[-1]) + size - side)) for starts, size, side, pad in axes]
        return [(0, 0), *pads, (0, 0)]

    def taps(self, x: jax.Array, outside: float) -> list[jax.Array]:
        """Return the elements of all windows, in row order: each [B, H', W', C]."""
        if any(map(any, self.pads)):
            # The barrier makes a copy: fused, XLA would test for the border in every tap.
            x = lax.optimization_barrier(jnp.pad(x, self.pads, constant_values=outside))
        (down, right), (rows, columns) = self.stride, self.counts
        height, width = down * (rows - 1) + 1, right * (columns - 1) + 1
        return [
            x[:, i : i + height : down, j : j + width : right]
            for i in range(self.size[0])
            for j in range(self.size[1])
        ]

    def collect(self, share: Callable[..., jax.Array], *arrays: tuple[jax.Array, Any]) -> jax.Array:
        """Sum, for each pixel, its shares of the windows that contain it: [B, H, W, C].

        Args:
            share: returns what the windows give to their tap t, from t and a part of each array.
            arrays: each [B, H', W', C] with a value for each window, and the value where there is
                no window.
        """
        (down, right), (top, left) = self.stride, self.padding
        (height, width), (window_rows, window_columns) = self.sides, self.counts
        rows, columns = -(-(top + height) // down), -(-(left + width) // right)  # of blocks
        # Pad the windows, so that every block of stride x stride pixels has, on each side, all
        # windows that may contain it.
        above, before = (self.size[0] - 1) // down, (self.size[1] - 1) // right
        frame = ((0, 0), (above, rows - window_rows), (before, columns - window_columns), (0, 0))
        framed = [jnp.pad(array, frame, constant_values=value) for array, value in arrays]
        framed = lax.optimization_barrier(framed)

        def pixels(a: int, b: int) -> jax.Array:
            """Return the sums of the pixels (a, b) of all blocks: [B, rows, columns, C]."""
            shares = []
            for i in range(a, self.size[0], down)[::-1]:  # in the order in which PyTorch adds them
                for j in range(b, self.size[1], right)[::-1]:
                    r, c = above - i // down, before - j // right
                    parts = [array[:, r : r + rows, c : c + columns] for array in framed]
                    shares.append(share(self.size[1] * i + j, *parts))
            # If the stride exceeds the size of a window, some pixels are in no window.
            return reduce(add, shares) if shares else jnp.zeros_like(framed[-1][:, :rows, :columns])

        by_row = [jnp.stack([pixels(a, b) for b in range(right)], axis=3) for a in range(down)]
        blocks = jnp.stack(by_row, axis=2)  # [B, rows, down, columns, right, C]
        dx = blocks.reshape(blocks.shape[0], rows * down, columns * right, blocks.shape[-1])
        return dx[:, top : top + height, left : left + width]
