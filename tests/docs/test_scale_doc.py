"""docs/scale.md: options, shell commands, sizes and the cluster model's tables."""

import re
import shlex
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from benchmarks import scale_model
from nin_jax.runs.preparation import CHUNK_BYTES, RESIDENT_BYTES
from nin_jax.training.config import TrainConfig

ROOT = Path(__file__).resolve().parent.parent.parent
DOC = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(?:bash|yaml)\n(.*?)^```", DOC, re.MULTILINE | re.DOTALL)


def test_options_of_train_exist():
    options = {f"--{field.name.replace('_', '-')}" for field in fields(TrainConfig)}
    joined = [re.sub(r"\\\n\s*", "", block) for block in BLOCKS]
    lines = [line for block in joined for line in re.findall(r"scripts/train\.py(.*)", block)]
    assert len(lines) == 9
    for line in lines:
        assert set(re.findall(r"(?<!\S)--[\w-]+", line)) <= options, line


def test_shell_commands_parse():
    commands = re.findall(r"^```bash\n(.*?)^```", DOC, re.MULTILINE | re.DOTALL)
    for command in commands:
        done = subprocess.run(["bash", "-n"], input=command, text=True, capture_output=True)
        assert done.stderr == ""
    (inner,) = [shlex.split(c)[-1] for c in commands if "bash -c" in c]
    assert subprocess.run(["bash", "-n", "-c", inner], capture_output=True).returncode == 0


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
