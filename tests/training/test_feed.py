"""How images reach the devices: each way gives the same run, also after a resume."""

import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from nin_jax.errors import Interrupted
from nin_jax.runs import preparation
from nin_jax.runs.fit import fit
from nin_jax.training.config import TrainConfig
from nin_jax.training.feed import Resident, Shares, evaluation_parts
from nin_jax.training.sharding import Layout, make_layout
from parity_tests.passes import AS_USERS_COMPILE
from tests.runs.test_resume import signal_at
from tests.support.disturbed import assert_same, config_in
from tests.support.picture_folders import make_folder, pictures
from tests.support.virtual_devices import examples

IMAGE, BATCH = 64, 50  # bytes; of tests/support/disturbed.py


SGD: dict[str, Any] = {"optimizer": "sgd", "lr": 0.01}  # Muon takes long to compile as users do


@pytest.fixture
def config(config) -> TrainConfig:
    return replace(config, **SGD)


@pytest.fixture(scope="module")
def resident(tmp_path_factory) -> Iterator[Path]:
    """The folder of the resident run, compiled as users compile it; so are the other tests' runs.

    As the suite compiles, programs for chunks of different sizes round differently.
    """
    folder = tmp_path_factory.mktemp("resident")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("make_train_steps", "make_eval_step"):
            patch.setattr(preparation, name, _as_users_compile_it(getattr(preparation, name)))
        fit(replace(config_in(folder), feed="resident", **SGD))
        yield folder / "run"


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
@pytest.mark.parametrize("rows", [1, 2, 100])
def test_a_streamed_run_is_the_resident_one(config, resident, monkeypatch, rows):
    monkeypatch.setattr(preparation, "CHUNK_BYTES", rows * BATCH * IMAGE)
    fit(replace(config, feed="stream"))
    assert_same(config.workdir, resident)


@pytest.mark.slow
@pytest.mark.parametrize("feeds", [("stream", "stream"), ("resident", "stream")])
def test_a_run_goes_on_in_the_middle_of_a_chunk_and_with_the_other_feed(
    config, resident, monkeypatch, feeds
):
    monkeypatch.setattr(preparation, "CHUNK_BYTES", 2 * BATCH * IMAGE)
    first, second = (replace(config, feed=feed) for feed in feeds)
    with monkeypatch.context() as patch:
        signal_at(patch, signal.SIGTERM, 4)
        with pytest.raises(Interrupted):
            fit(first)
    fit(replace(second, resume=True))
    assert_same(config.workdir, resident)


@pytest.mark.slow
def test_an_image_folder_trains_the_same_from_memory_and_from_disk(tmp_path, config):
    labels = np.sort(np.random.default_rng(0).integers(0, 3, 30))
    make_folder(tmp_path / "set", pictures(30, 8, 8), labels)
    on_folder = replace(config, dataset=f"folder:{tmp_path / 'set'}", limit_train=None)
    folders = {feed: tmp_path / feed for feed in ("resident", "stream")}
    for feed, folder in folders.items():
        fit(replace(on_folder, feed=feed, workdir=folder))
    assert_same(folders["stream"], folders["resident"])


@pytest.mark.parametrize("start", [0, 3, 7, 9])
def test_shares_hold_the_batches_of_the_order(start):
    """Row s % rows of a chunk's order are the examples of step s, wherever it begins."""
    split, rows, steps = examples(50), 4, 11
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
