"""How images reach the devices: each way gives the same run, also after a resume."""

import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from nin_jax.errors import Interrupted
from nin_jax.runs import preparation
from nin_jax.runs.fit import fit
from nin_jax.training.feed import Resident, Shares, evaluation_parts
from nin_jax.training.sharding import Layout, make_layout
from parity_tests.passes import AS_USERS_COMPILE
from tests.runs.test_resume import signal_at
from tests.support.disturbed import assert_same
from tests.support.picture_folders import make_folder, pictures
from tests.support.virtual_devices import examples


def _as_users_compile_it(make: Callable[..., Any]) -> Callable[..., Any]:
    def made(*arguments):
        step, programs = make(*arguments), {}

        def call(*operands):
            shapes = str(jax.tree.map(jax.typeof, operands))
            if shapes not in programs:
                lowered = step.lower(*operands)
                programs[shapes] = lowered.compile(compiler_options=AS_USERS_COMPILE)
            return programs[shapes](*operands)

        return call

    return made


@pytest.mark.slow
def test_a_streamed_run_that_goes_on_with_the_other_feed_is_the_resident_one(
    tmp_path, config, monkeypatch
):
    """From an image folder, in chunks of two steps; an epoch has three.

    As the suite compiles, programs for chunks of different sizes round differently.
    """
    for name in ("make_train_steps", "make_eval_step"):
        monkeypatch.setattr(preparation, name, _as_users_compile_it(getattr(preparation, name)))
    monkeypatch.setattr(preparation, "CHUNK_BYTES", 2 * config.batch_size * 8 * 8)
    labels = np.sort(np.random.default_rng(0).integers(0, 3, 120))
    make_folder(tmp_path / "set", pictures(120, 8, 8), labels)
    config = replace(config, dataset=f"folder:{tmp_path / 'set'}", limit_train=None)
    config = replace(config, optimizer="sgd", lr=0.01)  # Muon takes long to compile as users do
    resident = replace(config, feed="resident", workdir=tmp_path / "resident")
    fit(resident)
    with monkeypatch.context() as patch:
        signal_at(patch, signal.SIGTERM, 4)  # in the middle of a chunk
        with pytest.raises(Interrupted):
            fit(replace(config, feed="stream"))
    fit(replace(config, feed="resident", resume=True))
    assert_same(config.workdir, resident.workdir)


@pytest.mark.parametrize(
    ("start", "rows"), [(0, 4), (3, 4), (7, 4), (9, 4), (3, 1), (0, 11), (3, 11)]
)
def test_shares_hold_the_batches_of_the_order(start, rows):
    """Row s % rows of a chunk's order are the examples of step s, wherever it begins."""
    split, steps = examples(50), 11
    layout = make_layout(jax.devices()[:1], own_examples=True)
    order = np.random.default_rng(0).integers(-1, 50, (steps, 6)).astype(np.int32)
    step = 2 * steps + start
    for chunk in Shares(layout, split.read, rows).chunks(order, step):
        for s in range(step, step + chunk.steps):
            local, expected = np.asarray(chunk.order)[s % rows], order[s % steps]
            np.testing.assert_array_equal(local >= 0, expected >= 0)
            held = local[local >= 0]
            wanted = expected[expected >= 0]
            np.testing.assert_array_equal(np.asarray(chunk.images)[held], split.images[wanted])
            np.testing.assert_array_equal(np.asarray(chunk.labels)[held], split.labels[wanted])
        step += chunk.steps
    assert step == 3 * steps


class SecondOfTwo(Layout):
    """The layout that the second of two processes sees, with one device each.

    It returns what would go to the devices.
    """

    devices = property(lambda self: 2)
    own = property(lambda self: [1])

    def divide(self, blocks):
        return blocks  # type: ignore[return-value]

    def place(self, tree, specs):
        return tree


def test_a_process_reads_its_own_share_and_no_more():
    split, order = examples(40), np.random.default_rng(0).permutation(40).reshape(5, 8)
    asked = []

    def read(indices, size):
        asked.append(indices)
        return split.read(indices, size)

    layout = SecondOfTwo(make_layout(jax.devices()[:1]).mesh, own_examples=True)
    chunks = list(Shares(layout, read, 5).chunks(order.astype(np.int32), 0))
    (indices,) = asked
    np.testing.assert_array_equal(indices.reshape(5, 4), order[:, 4:])
    (images,) = (chunk.images for chunk in chunks)
    np.testing.assert_array_equal(images[1], split.images[indices])  # type: ignore[index]


def test_a_resident_feed_is_one_chunk():
    layout = make_layout(jax.devices()[:1])
    order = np.arange(12, dtype=np.int32).reshape(4, 3)
    (chunk,) = Resident(layout, examples(12)).chunks(order, 4 * 5 + 1)
    assert chunk.steps == 3
    np.testing.assert_array_equal(chunk.order, order)


@pytest.mark.parametrize(("count", "most"), [(1, 5), (10, 5), (11, 5), (11, 100)])
def test_evaluation_has_each_example_once(count, most):
    split = examples(count)
    layout = make_layout(jax.devices()[:1])
    parts = list(evaluation_parts(layout, split.read, count, most))
    assert all(len(labels) <= most for _, labels in parts)
    images, labels = (np.concatenate([np.asarray(p[i]) for p in parts]) for i in (0, 1))
    np.testing.assert_array_equal(images[labels >= 0], split.images)
    np.testing.assert_array_equal(labels[labels >= 0], split.labels)
