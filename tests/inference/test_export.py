"""Exported programs: they run without nin_jax, for any number of images, on two platforms.

An export of a program or of weights to ship that failed can be repeated.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nin_jax
from nin_jax import UserError
from nin_jax.inference import export, shipping
from nin_jax.inference.export import ExportConfig, export_program, export_source
from nin_jax.runs import manifest, workdir
from nin_jax.runs.trained import Source
from nin_jax.training.evaluate import Score
from parity_tests.tolerances import FORWARD
from tests.support.one_process import full_disk
from tests.support.shipped import SMALL, build_in, make_run

RUN = """
import sys
import jax.export
import numpy as np

folder = sys.argv[1]
images = np.load(f"{folder}/images.npy")
for kind, x in {"uint8": images, "float32": np.float32(images) / np.float32(255)}.items():
    exported = jax.export.deserialize(bytearray(open(f"{folder}/{kind}", "rb").read()))
    assert exported.platforms == ("cpu", "cuda")
    parts = [exported.call(x[:1]), exported.call(x[1:])]
    np.save(f"{folder}/{kind}.npy", np.concatenate(parts))
assert not [name for name in sys.modules if name.startswith("nin_jax")]
"""


def test_a_program_runs_without_nin_jax(tiny, tmp_path):
    model = nin_jax.create_model(tiny, in_channels=3, num_classes=7, image_size=(20, 24))
    images = np.random.default_rng(0).integers(0, 256, (5, 20, 24, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    for kind in ("uint8", "float32"):
        (tmp_path / kind).write_bytes(export_program(model, kind))
    subprocess.run([sys.executable, "-c", RUN, str(tmp_path)], check=True, timeout=300)
    expected = nin_jax.Predictor(model, batch_size=5)(images)
    for kind in ("uint8", "float32"):
        found = np.load(tmp_path / f"{kind}.npy")
        assert (found.shape, found.dtype) == ((5, 7), np.float32)
        assert np.abs(found - expected).max() <= FORWARD["float32"] * np.abs(expected).max()


def test_the_script_writes_the_weights_of_a_run(script, undisturbed):
    done = script("export", "--workdir", undisturbed, "--out", "tiny.jax_export")
    assert done.code == 0, done.err
    said = "float32 [B, 16, 16, 1] -> logits [B, 10], for cpu and cuda"
    assert f"tiny of {undisturbed}, {said}" in done.out
    weights = undisturbed / workdir.WEIGHTS
    assert Path("tiny.jax_export").stat().st_size > weights.stat().st_size


@pytest.fixture
def quick(monkeypatch):
    """Export a few bytes, which takes no time."""
    monkeypatch.setattr(export, "export_program", lambda *_: b"program")


def test_a_failed_export_can_be_repeated(quick, undisturbed, tmp_path, monkeypatch):
    out = tmp_path / "nin.jax_export"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk)
        with pytest.raises(UserError, match=r"cannot write .*: No space left"):
            export_source(ExportConfig(undisturbed, out=out))
    assert not list(tmp_path.iterdir())
    export_source(ExportConfig(undisturbed, out=out))
    assert out.read_bytes() == b"program"


def test_weights_without_a_card_are_removed(tmp_path, monkeypatch):
    build_in(monkeypatch, SMALL)
    trained = Source(make_run(tmp_path / "run")).load()
    score, folder = Score(0.5, np.eye(10, dtype=np.int64)), tmp_path / "weights"
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "write_json", full_disk)
        with pytest.raises(UserError, match=r"--export .* cannot be written: No space left"):
            shipping.write(trained, score, folder)
    shipping.check(trained, folder)
    written = shipping.write(trained, score, folder)
    assert sorted(folder.iterdir()) == sorted(written)


def test_the_compilation_cache_can_be_turned_off(quick, script, undisturbed, monkeypatch):
    wanted = []
    monkeypatch.setattr("nin_jax.runs.trained.use_compilation_cache", wanted.append)
    outcome = script("export", "--workdir", undisturbed, "--no-compilation-cache")
    assert outcome.code == 0, outcome.err
    assert wanted == [False]
