"""What a user can get wrong: one line, ``error: ...``, exit code 2, nothing written.

The inputs are data, in ``tests/bad_inputs/``; here are those that need more than files.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import pytest

import nin_jax
from nin_jax.data.datasets import load_dataset
from nin_jax.models import convert, pretrained
from nin_jax.runs import manifest
from nin_jax.runs.preparation import RunSpec
from nin_jax.training.config import TrainConfig, recipe_of
from tests import bad_inputs
from tests.bad_inputs import CASES
from tests.bad_inputs.case import REMOVED, Case, Content
from tests.conftest import SCRIPTS, TINY_TOML, Outcome, in_use


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """What a finished run has for those that read one, made without training."""
    folder = tmp_path_factory.mktemp("finished")
    variant = folder.parent / "tiny.toml"
    variant.write_text(TINY_TOML)
    config = TrainConfig(str(variant), dataset="digits", image_size=16, workdir=folder)
    dataset = load_dataset("digits")
    manifest.write_config(folder, RunSpec(config, recipe_of(config), dataset))
    model = nin_jax.create_model(str(variant), image_size=16)
    convert.save_safetensors(model, folder / "model.safetensors")
    return folder


@pytest.fixture
def place(finished, script, tmp_path, monkeypatch):
    """Make the files of a case in the empty current folder; gives all that is there."""
    del script  # which has made the folder

    def make(case: Case) -> dict[Path, bytes | None]:
        here = tmp_path / "cwd"
        if case.edits is not None:
            shutil.copytree(finished, here / "run")
            path = here / "run" / "config.json"
            path.write_text(json.dumps(edited(json.loads(path.read_text()), case.edits)))
        if any(name.startswith("weights/") for name in case.files):
            monkeypatch.setattr(pretrained, "FOLDER", here / "weights")
        for name, content in case.files.items():
            put(here / name.rstrip("/|"), name[-1], content)
        return tree(tmp_path)

    return make


def edited(saved: Any, edits: Mapping[str, object]) -> Any:
    for place, value in edits.items():
        *parents, last = place.split(".")
        table = saved
        for parent in parents:
            table = table[parent]
        if value is REMOVED:
            del table[last]
        else:
            table[last] = value
    return saved


def put(path: Path, kind: str, content: Content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "/":
        path.mkdir()
    elif kind == "|":
        os.mkfifo(path)
    elif content is None:
        path.unlink()
    else:
        content = content() if callable(content) else content
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def tree(folder: Path) -> dict[Path, bytes | None]:
    """Every path below a folder, with the bytes of the files."""
    paths = sorted(folder.rglob("*"))
    return {path: path.read_bytes() if path.is_file() else None for path in paths}


def is_one_line(outcome, text):
    assert outcome.code == 2, outcome
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert len(outcome.err) < 3000
    assert text in outcome.err
    return True


@pytest.mark.parametrize("name", CASES)
def test_is_refused_in_one_line_and_writes_nothing(script, place, tmp_path, name):
    case = CASES[name]
    before = place(case)
    if callable(case.run):
        with pytest.raises(nin_jax.UserError) as caught:
            case.run()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 3000
        assert case.text in str(caught.value)
    else:
        outcome = script(case.run, *case.arguments)
        assert is_one_line(outcome, case.text)
        assert outcome.out == ""
    assert tree(tmp_path) == before


def test_every_script_has_its_cases():
    assert bad_inputs.SCRIPTS.keys() == {path.stem for path in SCRIPTS.glob("*.py")}
    assert all(
        case.run == name for name, cases in bad_inputs.SCRIPTS.items() for case in cases.values()
    )


def test_a_gpu_that_is_not_there(script, tmp_path, monkeypatch):
    if jax.default_backend() != "cpu":
        pytest.skip("there is one")
    before = tree(tmp_path)
    outcome = script("train", "--dataset", "digits", "--device", "gpu")
    assert is_one_line(outcome, "--device gpu: JAX finds none here")
    assert tree(tmp_path) == before


def test_a_platform_that_is_not_there(tmp_path):
    """It is read when JAX starts, so this needs a process of its own."""
    wanted = "tpu" if "tpu" not in {d.platform for d in jax.devices()} else "rocm"
    environ = os.environ | {"JAX_PLATFORMS": wanted, "PYTHONPATH": str(SCRIPTS.parent)}
    command = [sys.executable, SCRIPTS / "train.py", "--dataset", "digits"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, cwd=tmp_path)
    assert is_one_line(Outcome(done.returncode, done.stdout, done.stderr), f"PLATFORMS={wanted}: ")
    assert not list(tmp_path.iterdir())
    code = "from nin_jax.training.device import *; select_device('cpu'); print(jax.devices())"
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)
    assert "CpuDevice" in done.stdout, done.stderr


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
    with in_use(folder):
        options = ("--dataset", "digits", "--variant", tiny, "--image-size", "16")
        outcome = script("train", *options, "--workdir", folder)
    assert is_one_line(outcome, "is in use by process 123 on host")


def test_a_folder_of_runs_on_a_disk_that_is_not_mounted(script, tmp_path, tiny):
    (tmp_path / "cwd" / "runs").symlink_to(tmp_path / "disk")
    options = ("--dataset", "digits", "--variant", tiny, "--image-size", "16")
    assert is_one_line(script("train", *options), "cannot make runs: File exists")
    assert not (tmp_path / "disk").exists()


@pytest.mark.parametrize(
    ("name", "new_format"), [("nin.pt", True), ("nin.pth.tar", True), ("nin.bin", False)]
)
def test_convert_writes_what_pytorch_saved(script, tmp_path, name, new_format):
    import torch

    import nin_torch_ref

    state = nin_torch_ref.create_model("nin", image_size=96).state_dict()
    torch.save(state, tmp_path / name, _use_new_zipfile_serialization=new_format)
    outcome = script("convert", tmp_path / name, tmp_path / "nin.safetensors")
    assert outcome.code == 0, outcome.err
    assert "1,992,166 parameters" in outcome.out
    written = convert.load_safetensors(tmp_path / "nin.safetensors")
    assert written.keys() == state.keys()
    assert all((written[name] == value.numpy()).all() for name, value in state.items())


def test_the_run_that_the_cases_damage_is_a_good_one(script, place):
    place(Case("evaluate", "", edits={}))
    outcome = script("evaluate", "--workdir", "run")
    assert outcome.code == 0, outcome.err
    assert "test accuracy" in outcome.out
