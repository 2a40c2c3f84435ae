"""docs/scale.md: a shell command, sizes and the cluster model's tables."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from benchmarks import scale_model
from nin_jax.runs.examples import RESIDENT_BYTES
from nin_jax.runs.preparation import CHUNK_BYTES

ROOT = Path(__file__).resolve().parent.parent.parent
DOC = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")


def test_the_command_for_open_mpi_parses():
    (inner,) = re.findall(r"bash -c ('exec .*?')\n", DOC, re.DOTALL)
    done = subprocess.run(["bash", "-n", "-c", *shlex.split(inner)], capture_output=True)
    assert done.returncode == 0


def test_the_sizes_of_the_feed_are_those_of_the_code():
    assert f"at most {RESIDENT_BYTES / 2**30:g} GiB" in DOC
    assert f"up to {CHUNK_BYTES / 2**20:g} MiB" in DOC


def test_the_tables_of_the_cluster_model_are_what_its_script_prints(capsys):
    scale_model.run(scale_model.ScaleModelConfig())
    assert capsys.readouterr().out.strip() in DOC


def test_an_all_reduce_within_a_node_and_across_two():
    within = 14 * (1e6 / 450e9 + 2e-6)  # 8 GPUs: 14 turns of 1 MB
    across = 2 * (0.5e6 / 50e9 + 5e-6)  # 2 nodes: 2 turns of half of each GPU's 1 MB
    assert scale_model.all_reduce_seconds(1, 8e6) == 0
    assert scale_model.all_reduce_seconds(8, 8e6) == pytest.approx(within)
    assert scale_model.all_reduce_seconds(16, 8e6) == pytest.approx(within + across)
