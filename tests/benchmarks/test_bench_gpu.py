"""The benchmark for a GPU, as far as a CPU shows it. No measured value is asserted."""

import os
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest
import torch

from benchmarks.speed import gpu, pytorch
from benchmarks.speed.config import GPU_RESULTS, BenchConfig
from benchmarks.speed.work import OURS
from nin_jax.errors import UserError


@pytest.mark.slow
def test_settings_of_a_gpu(plan, monkeypatch):
    """On a CPU, to see that all of it runs; the times decide nothing here."""
    monkeypatch.setattr(gpu, "EPOCH_IMAGES", 5)
    tried = {OURS, "1 step per dispatch", "40 steps per dispatch", gpu.STREAMED}
    monkeypatch.setattr(pytorch, "rivals", lambda work: {})
    rows = list(gpu.measure(plan))
    assert not any("error" in row for row in rows)
    epochs = [row for row in rows if row["benchmark"] == "gpu"]
    assert len(epochs) == 2 * len(tried) + 1  # TF32 matters only in float32
    assert {row["contender"] for row in epochs} == {*tried, gpu.EXACT}
    assert all(row["over_ours"] > 0 for row in epochs)


def test_the_gpu_check_writes_its_results():
    assert BenchConfig(("train",)).folder is None
    assert BenchConfig(("gpu",)).folder == GPU_RESULTS
    assert BenchConfig(("gpu",), out=Path("mine")).folder == Path("mine")


def test_a_gpu_is_needed(monkeypatch):
    device = SimpleNamespace(platform="cpu")
    monkeypatch.setattr(gpu, "default_device", lambda: device)
    with pytest.raises(UserError, match="needs a GPU, and JAX computes on the cpu"):
        gpu.check()
    device.platform = "gpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="build of PyTorch for the GPU"):
        gpu.check()


def test_processes_of_a_gpus_contenders_do_not_use_the_cpu(monkeypatch):
    for name in ("JAX_PLATFORMS", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.setenv(name, "")  # restored after the test
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setattr(gpu, "default_device", lambda: SimpleNamespace(platform="gpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    gpu.check()
    assert os.environ["JAX_PLATFORMS"] == "cuda,cpu"
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == jax.config.values["jax_compilation_cache_dir"]


def test_on_a_gpu_parts_for_which_no_time_is_left_are_errors(plan, monkeypatch):
    monkeypatch.setattr(gpu, "LAST_START_SECONDS", 0)
    rows = list(gpu.measure(plan))
    assert [row["benchmark"] for row in rows] == ["train", "predict"] * 2 + ["gpu"] * 2
    assert len(list(gpu.defeats(rows))) == len(rows)


def test_defeats_on_a_gpu():
    common = {"benchmark": "train", "variant": "nin", "batch_size": 128, "precision": "bfloat16"}
    rows = [
        common | {"contender": OURS, "best_rival": "torch eager NCHW", "best_rival_over_ours": 1.4},
        common | {"contender": OURS, "best_rival": "torch.compile", "best_rival_over_ours": 0.9},
        common | {"contender": OURS, "error": "no memory"},
        common | {"contender": "torch eager NCHW", "error": "no memory"},
        common | {"contender": "streamed images", "over_ours": 0.98, "largest_ratio": 0.99},
        common | {"contender": "40 steps per dispatch", "over_ours": 0.9, "largest_ratio": 1.01},
        common | {"contender": "1 step per dispatch", "over_ours": 0.9, "largest_ratio": 0.92},
    ]
    assert list(gpu.defeats(rows)) == [
        "train nin 128 bfloat16: torch.compile takes 0.9 of our time",
        "train nin 128 bfloat16, nin_jax: no memory",
        "train nin 128 bfloat16, torch eager NCHW: no memory",
        "train nin 128 bfloat16: 1 step per dispatch takes 0.9 of the default's time",
    ]
