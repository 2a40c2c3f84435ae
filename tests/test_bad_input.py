"""What a user can get wrong: one line, ``error: ...``, exit code 2, nothing written."""

import fcntl
import json
import os
import pickle

import pytest

TRAIN = {
    "unknown variant": (["--variant", "nin51"], "or nin15"),
    "unknown variant, nothing near": (["--variant", "xyzzy"], "known: nin, nin15"),
    "variant file missing": (["--variant", "none.toml"], "cannot read variant file none.toml"),
    "unknown recipe": (["--recipe", "modem"], "did you mean modern"),
    "unknown data set": (["--dataset", "fashionmnist"], "did you mean fashion_mnist"),
    "image too small": (["--image-size", "66"], "smallest size that works is 67x67"),
    "image too low": (["--image-size", "66", "224"], "image size 66x224 is too small"),
    "image size zero": (["--image-size", "0"], "image size"),
    "image size negative": (["--image-size", "-5"], "image size"),
    "image size a word": (["--image-size", "big"], "--image-size must be"),
    "three sides": (["--image-size", "96", "96", "96"], "--image-size must be"),
    "batch size zero": (["--batch-size", "0"], "--batch-size must be a whole number >= 1, got 0"),
    "batch size negative": (["--batch-size", "-1"], "--batch-size must be"),
    "batch size a word": (["--batch-size", "many"], "--batch-size must be INT"),
    "batch size a fraction": (["--batch-size", "1.5"], "--batch-size must be INT"),
    "micro-batch size zero": (["--micro-batch-size", "0"], "--micro-batch-size must be"),
    "epochs zero": (["--epochs", "0"], "--epochs must be a whole number >= 1, got 0"),
    "epochs a word": (["--epochs", "ten"], "--epochs must be INT"),
    "rate zero": (["--lr", "0"], "--lr must be a finite number > 0"),
    "rate negative": (["--lr", "-0.1"], "--lr must be a finite number > 0"),
    "rate NaN": (["--lr", "nan"], "--lr must be a finite number > 0, got nan"),
    "rate infinite": (["--lr", "inf"], "--lr must be a finite number > 0, got inf"),
    "rate a word": (["--lr", "fast"], "--lr must be FLOAT"),
    "momentum one": (["--momentum", "1"], "--momentum must be a number in [0, 1)"),
    "nesterov alone": (["--nesterov", "True"], "--nesterov needs --momentum"),
    "smoothing one": (["--label-smoothing", "1"], "--label-smoothing must be"),
    "decay negative": (["--weight-decay", "-1"], "--weight-decay must be"),
    "clip NaN": (["--clip-norm", "nan"], "--clip-norm must be"),
    "warm-up negative": (["--warmup-steps", "-1"], "--warmup-steps must be"),
    "limit zero": (["--limit-train", "0"], "--limit-train must be a whole number >= 1"),
    "limit negative": (["--limit-test", "-3"], "--limit-test must be a whole number >= 1"),
    "limit a word": (["--limit-test", "all"], "--limit-test must be INT"),
    "seed negative": (["--seed", "-1"], "--seed must be a whole number in [0, 2**32)"),
    "seed too large": (["--seed", "4294967296"], "--seed must be"),
    "too few classes": (["--num-classes", "5"], "digits has labels 0 to 9"),
    "unknown precision": (["--precision", "float16"], "--precision must be one of"),
    "unknown optimiser": (["--optimizer", "lion"], "--optimizer must be one of"),
    "unknown option": (["--bathc-size", "3"], "unknown option"),
    "option without value": (["--lr"], "--lr must be"),
    "data folder missing": (["--dataset", "mnist", "--data-dir", "none"], "none"),
    "resume without a folder": (["--resume"], "--resume needs --workdir"),
    "resume of nothing": (["--resume", "--workdir", "none"], "none holds no run"),
    "GPU absent": (["--device", "gpu"], "--device gpu: JAX finds none here"),
}


def is_one_line(outcome, text):
    assert outcome.code == 2, outcome
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert text in outcome.err
    return True


@pytest.mark.parametrize("case", TRAIN)
def test_train_refuses(script, tmp_path, case, monkeypatch):
    if case == "GPU absent":
        monkeypatch.setenv("JAX_PLATFORMS", "cpu")
        import jax

        if jax.default_backend() != "cpu":
            arguments, text = ["--device", "cpu", "--epochs", "0"], "--epochs"
        else:
            arguments, text = TRAIN[case]
    else:
        arguments, text = TRAIN[case]
    before = sorted(tmp_path.rglob("*"))
    defaults = [] if "--dataset" in arguments else ["--dataset", "digits"]
    assert is_one_line(script("train", *defaults, *arguments), text)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_workdir_that_is_a_file(script, tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    outcome = script("train", "--dataset", "digits", "--workdir", path)
    assert is_one_line(outcome, "is a file, not a folder")
    outcome = script("train", "--dataset", "digits", "--workdir", path / "below")
    assert is_one_line(outcome, "is a file")
    assert path.read_text() == "mine"


def test_a_workdir_that_is_not_writable(script, tmp_path, monkeypatch):
    folder = tmp_path / "locked"
    folder.mkdir()
    access = os.access
    # The superuser may write anywhere, so the answer is given for it.
    monkeypatch.setattr(os, "access", lambda p, mode: p != folder and access(p, mode))
    outcome = script("train", "--dataset", "digits", "--workdir", folder)
    assert is_one_line(outcome, "is not writable")
    assert not list(folder.iterdir())


def test_a_workdir_in_use(script, tmp_path, tiny):
    folder = tmp_path / "busy"
    folder.mkdir()
    with open(folder / ".lock", "w") as lock:
        lock.write("process 123 on host")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        options = ("--dataset", "digits", "--variant", tiny, "--image-size", "16")
        outcome = script("train", *options, "--workdir", folder)
    assert is_one_line(outcome, "is in use by process 123 on host")
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_a_workdir_that_holds_a_run(script, tmp_path):
    folder = tmp_path / "done"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    outcome = script("train", "--dataset", "digits", "--workdir", folder)
    assert is_one_line(
        outcome, "already holds a run: give --resume to continue it, or a new folder"
    )
    outcome = script("train", "--resume", "--workdir", folder)
    assert is_one_line(outcome, "config.json is damaged")


@pytest.fixture
def finished(script, tiny, tmp_path):
    """A run of one epoch, for the scripts that read one."""
    folder = tmp_path / "finished"
    options = ("--dataset", "digits", "--variant", tiny, "--image-size", "16", "--epochs", "1")
    outcome = script("train", *options, "--limit-train", "50", "--workdir", folder)
    assert outcome.code == 0, outcome.err
    return folder


def test_evaluate_refuses(script, finished, tmp_path):
    whole = (finished / "model.safetensors").read_bytes()
    weights = tmp_path / "weights"
    contents = {
        "truncated": (whole[: len(whole) // 2], "is not a whole safetensors file"),
        "empty": (b"", "is not a whole safetensors file"),
        "a pickle": (pickle.dumps({"net.0.0.weight": [1.0]}), "is not a whole safetensors file"),
        "a huge header": (b"\xff" * 100, "is not a whole safetensors file"),
    }
    before = sorted(finished.iterdir())
    for content, text in contents.values():
        weights.write_bytes(content)
        outcome = script("evaluate", "--workdir", finished, "--weights", weights)
        assert is_one_line(outcome, text)
    outcome = script("evaluate", "--workdir", finished, "--weights", tmp_path / "none")
    assert is_one_line(outcome, "cannot read weights")
    assert is_one_line(script("evaluate", "--workdir", tmp_path / "none"), "holds no run")
    assert is_one_line(script("evaluate"), "missing --workdir")
    assert sorted(finished.iterdir()) == before


def test_evaluate_refuses_the_weights_of_another_variant(script, finished, tmp_path):
    import nin_jax

    other = nin_jax.create_model("nin_one_1x1", image_size=96)
    nin_jax.convert.save_safetensors(other, tmp_path / "other.safetensors")
    outcome = script("evaluate", "--workdir", finished, "--weights", tmp_path / "other.safetensors")
    assert is_one_line(outcome, "the weights do not fit tiny")
    assert "net.0.0.weight has shape [96, 1, 11, 11], not [8, 1, 3, 3]" in outcome.err
    assert "missing net.0.4.weight" in outcome.err


@pytest.mark.parametrize("damage", ["not JSON", "a list", "a key less", "a field more"])
def test_a_damaged_config_is_named(script, finished, damage):
    path = finished / "config.json"
    saved = json.loads(path.read_text())
    if damage == "a key less":
        del saved["variant"]
    elif damage == "a field more":
        saved["recipe"]["flavour"] = "sweet"
    text = {"not JSON": "{", "a list": "[]"}.get(damage, json.dumps(saved))
    path.write_text(text)
    assert is_one_line(script("evaluate", "--workdir", finished), "config.json")


@pytest.mark.parametrize(
    ("content", "name", "text"),
    [
        (b"", "a.pt", "is truncated or holds more than plain tensors"),
        (pickle.dumps(print), "a.pt", "is truncated or holds more than plain tensors"),
        (None, "a.pt", "cannot read weights"),
        (None, "a.safetensors", "cannot read weights"),
        (b"PK\x03\x04", "a.safetensors", "is not a whole safetensors file"),
    ],
)
def test_convert_refuses(script, tmp_path, content, name, text):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    outcome = script("convert", tmp_path / name, tmp_path / "out.safetensors")
    assert is_one_line(outcome, text)
    assert not (tmp_path / "out.safetensors").exists()


def test_convert_never_overwrites_and_writes_one_format(script, tmp_path):
    (tmp_path / "out.safetensors").write_bytes(b"mine")
    outcome = script("convert", tmp_path / "a.pt", tmp_path / "out.safetensors")
    assert is_one_line(outcome, "is there already")
    assert is_one_line(script("convert", "a.pt", "b.npz"), "must end in .safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == b"mine"


def test_convert_writes_what_pytorch_saved(script, tmp_path):
    import torch

    import nin_torch_ref
    from nin_jax import convert

    state = nin_torch_ref.create_model("nin", image_size=96).state_dict()
    torch.save(state, tmp_path / "nin.pt")
    outcome = script("convert", tmp_path / "nin.pt", tmp_path / "nin.safetensors")
    assert outcome.code == 0, outcome.err
    assert "1,992,166 parameters" in outcome.out
    written = convert.load_safetensors(tmp_path / "nin.safetensors")
    assert written.keys() == state.keys()
    assert all((written[name] == value.numpy()).all() for name, value in state.items())
