"""The model on paper, where it can be worked out by hand; and its table in the documentation."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

import nin_jax
from benchmarks.speed import paper, scale_model
from benchmarks.speed.scale_model import ModelConfig, Prediction, all_reduce_seconds, ring_seconds
from benchmarks.speed.work import Work
from nin_jax import cli

ROOT = Path(__file__).resolve().parent.parent.parent
NIN, NIN15 = Work("train", "nin", 128), Work("train", "nin15", 128)


def test_one_device_sends_nothing():
    assert ring_seconds(1, 8e6, 1e9, 1e-6) == all_reduce_seconds(1, 8e6) == 0
    alone = Prediction(1, NIN)
    assert alone.step == alone.compute
    assert alone.efficiency == 1


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_a_ring_moves_twice_the_size_but_for_a_devices_own_part(devices):
    volume = 2 * (devices - 1) / devices * 8e6
    assert ring_seconds(devices, 8e6, 1e9, 0) == pytest.approx(volume / 1e9)
    assert ring_seconds(devices, 0, 1e9, 3e-6) == pytest.approx(2 * (devices - 1) * 3e-6)


def test_a_node_is_one_ring():
    # 14 turns of 1 MB at 450 GB/s, 2 microseconds each.
    assert all_reduce_seconds(8, 8e6) == pytest.approx(14 * (1e6 / 450e9 + 2e-6))


def test_across_nodes_each_gpu_sends_its_eighth():
    # Within as before; across, between two nodes, 2 turns of half of 1 MB at 50 GB/s.
    across = 2 * (0.5e6 / 50e9 + 5e-6)
    assert all_reduce_seconds(16, 8e6) == pytest.approx(all_reduce_seconds(8, 8e6) + across)


def test_nodes_are_full():
    with pytest.raises(ValueError, match="12"):
        all_reduce_seconds(12, 8e6)


@pytest.mark.parametrize("work", [NIN, NIN15])
def test_the_networks_are_those_of_the_account(work):
    counted = nin_jax.account(work.variant, batch_size=128, xla=False)
    assert 128 * paper.image_cost(work)[0] == counted.flops_per_training_step
    assert paper.parameters(work) == counted.params


def test_a_step_computes_at_the_lower_roof():
    flops, moved = paper.image_cost(NIN)
    limits = 128 * flops / 494e12, 128 * moved / 4.8e12
    assert scale_model.compute_seconds(NIN, 1.0) == pytest.approx(max(limits))
    assert scale_model.compute_seconds(NIN, 0.25) == pytest.approx(4 * max(limits))


def test_more_devices_are_less_efficient_and_slower_ones_more():
    found = [Prediction(n, NIN15).efficiency for n in scale_model.DEVICES]
    assert found == sorted(found, reverse=True)
    assert Prediction(8, NIN15, 0.25).efficiency > Prediction(8, NIN15, 1.0).efficiency


def test_the_documentation_has_what_the_command_prints(capsys):
    scale_model.run(ModelConfig())
    printed = capsys.readouterr().out.strip()
    assert printed in (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_the_picture_has_a_line_for_each_network_and_fraction(fraction, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: drawn.append(figure))
    scale_model.run(ModelConfig(fraction=fraction, plot=tmp_path / "model.png"))
    ((efficiency, speed_up),) = [figure.axes for figure in drawn]
    assert len(efficiency.lines) == (4 if fraction == 0.5 else 2)
    first = efficiency.lines[0].get_ydata()
    assert list(first) == [Prediction(n, NIN, fraction).efficiency for n in scale_model.DEVICES]
    assert len(speed_up.lines) == 3
    assert speed_up.lines[0].get_ydata()[0] == 1


def test_the_documentation_shows_the_picture():
    doc = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    assert "--plot docs/scale_model.png" in doc
    assert "](scale_model.png)" in doc
    assert (ROOT / "docs" / "scale_model.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "option",
    [{"fraction": 0.0}, {"batch_size": 0}, {"image_size": 0}, {"plot": Path("no/folder/a.png")}],
)
def test_bad_input_is_one_line(option, capsys):
    with pytest.raises(SystemExit):
        cli.guard(lambda: scale_model.run(ModelConfig(**option)))
    told = capsys.readouterr()
    assert told.err.count("\n") == 1
    assert told.out == ""
