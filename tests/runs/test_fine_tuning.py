"""Training from given weights: layers that are kept, drawn at random, frozen; resuming."""

import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import nnx

import nin_jax
from nin_jax.models import convert
from nin_jax.runs import fit, manifest, resuming
from nin_jax.runs.preparation import Initial, load_spec, prepare_run
from nin_jax.runs.saving import Saver
from nin_jax.runs.trained import read_weights
from nin_jax.training.config import TrainConfig, recipe_of
from nin_jax.training.optimizer import for_head_only, make_optimizer
from tests.support.disturbed import assert_same
from tests.support.shipped import LINEAR, SMALL, build_in, make_run, ship


@pytest.fixture(autouse=True)
def _networks(monkeypatch):
    build_in(monkeypatch, SMALL, LINEAR)


@pytest.fixture
def config(tmp_path) -> TrainConfig:
    """A run on the digits with two more classes than its initial weights."""
    return TrainConfig(
        "small",
        "modern",
        "digits",
        optimizer="sgd",  # a step of Muon takes longer to compile; its state is tested below
        init_from=str(make_run(tmp_path / "source")),
        freeze=True,
        num_classes=12,
        image_size=16,
        batch_size=50,
        epochs=2,
        limit_train=120,
        limit_test=30,
        workdir=tmp_path / "run",
    )


def test_only_the_head_learns_and_a_resumed_run_is_the_same(config, tmp_path, capsys, monkeypatch):
    fit.fit(config)
    out = capsys.readouterr().out
    assert f"weights from {config.init_from}; drawn at random: head.conv1, head.conv2" in out
    assert "only the head is trained" in out
    source = convert.load_safetensors(tmp_path / "source" / "model.safetensors")
    tuned = convert.load_safetensors(tmp_path / "run" / "model.safetensors")
    drawn = convert.to_torch(_prepare(config).model)
    for name, array in tuned.items():
        if name.startswith("net.0."):
            assert array.tobytes() == source[name].tobytes(), name
        else:
            assert array.shape != source[name].shape, name
            assert not np.array_equal(array, drawn[name]), name

    stopped = replace(config, workdir=tmp_path / "stopped")
    save = Saver.checkpoint

    def stop_after_the_first_epoch(saver):
        assert save(saver)
        if saver.recorder.progress.epochs == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Saver, "checkpoint", stop_after_the_first_epoch)
        with pytest.raises(KeyboardInterrupt):
            fit.fit(stopped)
    shutil.rmtree(tmp_path / "source")  # a checkpoint has all weights
    fit.fit(replace(stopped, resume=True))
    assert_same(tmp_path / "stopped", tmp_path / "run")
    assert manifest.read_run(tmp_path / "stopped").config.init_from == config.init_from
    with pytest.raises(nin_jax.UserError, match="freeze was True, is False"):
        fit.fit(replace(stopped, resume=True, epochs=3, freeze=False))


def _prepare(config, initial=None):
    return prepare_run(load_spec(config), initial)


def test_a_run_killed_before_its_first_checkpoint_reads_the_weights_again(config):
    config.workdir.mkdir()
    again = fit._initial_weights(replace(config, resume=True))
    assert again is not None
    (config.workdir / "checkpoints" / "00000003").mkdir(parents=True)
    assert fit._initial_weights(replace(config, resume=True)) is None


@pytest.mark.parametrize("options", [{}, {"optimizer": "adam"}, {"optimizer": "muon"}])
def test_frozen_parameters_have_no_state_no_update_and_no_decay(config, options):
    recipe = recipe_of(replace(config, weight_decay=0.5, **options))
    params = nnx.state(nin_jax.create_model("linear", image_size=16), nnx.Param)
    optimizer = for_head_only(make_optimizer(recipe, 10))
    state = optimizer.init(params)
    head = nnx.State({name: params[name] for name in ("head", "linear")})
    alone = make_optimizer(recipe, 10).init(head)
    assert _sizes(state) == _sizes(alone)
    ones = jax.tree.map(jax.numpy.ones_like, params)
    updates, _ = jax.jit(optimizer.update)(ones, state, params)
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        assert np.any(update) == (path[0].key in ("head", "linear")), path


def _sizes(state):
    return sorted(leaf.shape for leaf in jax.tree.leaves(state))


def test_a_frozen_model_gives_its_blocks_no_gradient():
    model = nin_jax.create_model("small", image_size=16, init="identity")
    x = jax.random.uniform(jax.random.key(0), (2, 16, 16, 1))
    for frozen in (False, True):
        model.frozen = frozen
        graphdef, params = nnx.split(model, nnx.Param)
        first = jax.jit(lambda params, g=graphdef: nnx.merge(g, params)(x)[:, 0].sum())
        grads = jax.grad(first)(params)
        reached = {
            str(path[0].key)
            for path, grad in jax.tree_util.tree_leaves_with_path(grads)
            if np.any(grad)
        }
        assert reached == ({"head"} if frozen else {"blocks", "head"})


DRAWN = {
    "nothing": ("small", {}, []),
    "channels": ("small", {"in_channels": 3}, ["block1.conv1"]),
    "classes": ("small", {"num_classes": 4}, ["head.conv1", "head.conv2", "head.conv3"]),
    "linear": (
        "linear",
        {"num_classes": 4},
        ["head.conv1", "head.conv2", "head.conv3", "linear"],
    ),
}


@pytest.mark.parametrize("case", DRAWN)
def test_layers_that_do_not_fit_are_drawn_at_random_and_the_others_kept(tmp_path, case):
    variant, sizes, drawn = DRAWN[case]
    weights, _ = read_weights(str(make_run(tmp_path / "run", variant)))
    model = nin_jax.create_model(variant, image_size=16, seed=5, **sizes)
    before = convert.to_torch(model)
    assert convert.transfer(model, weights) == drawn
    after = convert.to_torch(model)
    own = {name for name in after if np.array_equal(after[name], before[name])}
    layers = {name.rpartition(".")[0] for name in own}
    assert len(layers) == len(drawn)
    for name in after.keys() - own:
        np.testing.assert_array_equal(after[name], weights[name])


def test_weights_under_other_names_are_kept_too(tmp_path, capsys):
    weights, _ = read_weights(str(make_run(tmp_path / "run")))
    half = {f"module.{name}": array.astype(np.float16) for name, array in weights.items()}
    model = nin_jax.create_model("small", image_size=16, num_classes=4)
    drawn = convert.transfer(model, {"epoch": 3, "model": half})
    assert capsys.readouterr().err == (
        "note: weights: taken from model; module.net.0.0.weight is net.0.0.weight, and so on; "
        "not used: epoch; float16 cast to float32\n"
    )
    assert drawn == DRAWN["classes"][2]
    kept = convert.to_torch(model)["net.0.0.weight"]
    np.testing.assert_array_equal(kept, half["module.net.0.0.weight"].astype(np.float32))


def test_weights_of_another_network_change_nothing(tmp_path):
    weights, _ = read_weights(str(make_run(tmp_path / "run", "linear")))
    model = nin_jax.create_model("small", image_size=16)
    before = convert.to_torch(model)
    with pytest.raises(nin_jax.UserError, match=r"do not fit small \(2 keys\): unexpected"):
        convert.transfer(model, weights)
    after = convert.to_torch(model)
    assert all(np.array_equal(after[name], before[name]) for name in before)


def test_other_input_channels_cannot_be_frozen(config):
    weights = nin_jax.convert.to_torch(nin_jax.create_model("small", in_channels=3, image_size=16))
    with pytest.raises(nin_jax.UserError, match=r"would leave block1\.conv1 with random weights"):
        _prepare(config, Initial(weights))


def test_weights_come_from_a_run_a_file_or_those_that_ship(tmp_path, monkeypatch):
    ship(monkeypatch, tmp_path)
    run = tmp_path / "run-small"
    from_run, file, shipped = (
        read_weights(str(source)).arrays
        for source in (run, run / "model.safetensors", "pretrained:small-digits")
    )
    for name, array in from_run.items():
        np.testing.assert_array_equal(array, file[name])
        np.testing.assert_array_equal(array.astype(np.float16), shipped[name])


def test_other_initial_weights_have_another_digest():
    """Processes compare these, because each may have another file under one path."""
    found = [Initial({"a": np.full(3, value, np.float32)}) for value in (1, 2)]
    assert len({resuming.digest(each) for each in (None, *found)}) == 3
    assert resuming.digest(found[0]) == resuming.digest(Initial({"a": np.ones(3, np.float32)}))
