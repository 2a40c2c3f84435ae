"""One, two and eight devices: the same losses, parameters and scores, and what they exchange."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nin_jax.accounting.collectives import collectives
from parity_tests.tolerances import LAYOUT
from tests.support.virtual_devices import DTYPES, LAYOUTS, SCORED, layouts_of

ROOT = Path(__file__).resolve().parent.parent.parent
STEPS = 21  # three epochs of 7; chunks of 3 begin at another place in each

pytestmark = pytest.mark.slow  # the fixture trains in many processes


@pytest.fixture(scope="session")
def results(made_once) -> Path:
    """The folder of what tests/support/virtual_devices.py finds, in a process of its own."""

    def train(folder: Path) -> None:
        command = [sys.executable, "-m", "tests.support.virtual_devices", str(folder), str(STEPS)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr

    return made_once("devices", train)


@pytest.mark.parametrize(
    ("dtype", "layout"), [(dtype, name) for dtype in DTYPES for name in layouts_of(dtype)]
)
def test_a_layout_changes_no_loss_and_no_parameter(results, dtype, layout):
    without = f"none_{LAYOUTS[layout][2]}"
    one, other = (np.load(results / f"{dtype}_{name}.npz") for name in (without, layout))
    assert len(one["losses"]) == STEPS
    assert one["losses"][-1] < one["losses"][0]  # it trains
    for name in one:
        assert one[name].dtype == other[name].dtype
        assert np.abs(one[name] - other[name]).max() < LAYOUT[dtype], name


def test_two_runs_on_eight_devices_are_the_same_bit_for_bit(results):
    first, second = (np.load(results / f"float32_{name}.npz") for name in ("eight", "eight_again"))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


# Loss, correct predictions and examples; labels and predictions of each of ten classes.
SUMS = 3 + 2 * 10


def exchanged(path: Path) -> list[tuple[str, int]]:
    """Return each exchange in a compiled program.

    An exchange is its kind, and how many float32 numbers a device sends.
    """
    return [(each.kind, each.bytes // 4) for each in collectives(path.read_text())]


def parameters(results: Path) -> int:
    saved = np.load(results / "float32_none_sgd.npz")
    return sum(saved[name].size for name in saved if name != "losses")


@pytest.mark.parametrize("layout", ["two", "eight", "eight_shares"])
def test_a_step_is_one_all_reduce_of_gradients_and_sums(results, layout):
    expected = [("all-reduce", parameters(results) + SUMS)]
    assert exchanged(results / f"float32_{layout}.txt") == expected


def test_divided_parameters_are_gathered_once_and_scattered_once(results):
    found = exchanged(results / "float32_eight_sharded.txt")
    (gathered,) = [size for kind, size in found if kind == "all-gather"]
    (scattered,) = [size for kind, size in found if kind == "reduce-scatter"]
    assert 8 * gathered == scattered
    # Eight devices cannot divide the arrays of the ten classes; these are summed together with the
    # sums. The norm of the gradient needs one number for each divided array, and is computed twice:
    # for the metrics and for clipping.
    reduced = [size for kind, size in found if kind == "all-reduce"]
    norms = sum(reduced) - (parameters(results) - scattered + SUMS)
    arrays = len(np.load(results / "float32_none_sgd.npz").files) - 1
    assert 0 < norms <= 2 * arrays
    assert (len(reduced), len(found)) == (2, 4)
    assert 0.9 * parameters(results) < scattered < parameters(results)


def test_muons_state_is_divided_and_its_iterations_gather(results):
    """XLA divides the products of Newton-Schulz iterations too, and gathers between them."""
    whole, held = np.load(results / "float64_eight_sharded_muon.state.npy")
    # Two kernels of 10 x 10, two moments of three biases of 10, three coefficients, four counters.
    undivided = 2 * 100 + 2 * 3 * 10 + 3 + 4
    assert 8 * held == whole + 7 * undivided
    sgd, muon = (exchanged(results / f"float64_eight_sharded{name}.txt") for name in ("", "_muon"))
    # Gradients are scattered once, as with any optimizer; parameters and Muon's matrices gathered.
    assert [each for each in muon if each[0] == "reduce-scatter"] == [
        each for each in sgd if each[0] == "reduce-scatter"
    ]
    assert {kind for kind, _ in muon} == {"all-gather", "all-reduce", "reduce-scatter"}
    gathered = [sum(size for kind, size in of if kind == "all-gather") for of in (sgd, muon)]
    assert gathered[0] < gathered[1]


def test_an_evaluation_exchanges_its_sums_alone(results):
    assert exchanged(results / "evaluation.step.txt") == []
    assert exchanged(results / "evaluation.total.txt") == [("all-reduce", 1), ("all-reduce", 100)]


@pytest.mark.parametrize(("size", "most"), SCORED)
def test_every_test_image_counts_once_whatever_the_devices(results, size, most):
    one, eight = (np.load(results / f"score_{name}_{size}_{most}.npz") for name in ("one", "eight"))
    assert one["confusion"].sum() == size
    np.testing.assert_array_equal(eight["confusion"], one["confusion"])
    np.testing.assert_allclose(eight["loss"], one["loss"], rtol=1e-6)  # order of sums
