"""docs/scale.md: its commands have options that there are, and its sizes are those of the code."""

import re
import shlex
import subprocess
from dataclasses import fields
from pathlib import Path

from nin_jax.runs.preparation import CHUNK_BYTES, RESIDENT_BYTES
from nin_jax.training.config import TrainConfig

ROOT = Path(__file__).resolve().parent.parent.parent
DOC = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(?:bash|yaml)\n(.*?)^```", DOC, re.MULTILINE | re.DOTALL)


def test_every_option_of_train_is_one():
    options = {f"--{field.name.replace('_', '-')}" for field in fields(TrainConfig)}
    joined = [re.sub(r"\\\n\s*", "", block) for block in BLOCKS]
    lines = [line for block in joined for line in re.findall(r"scripts/train\.py(.*)", block)]
    assert len(lines) == 9
    for line in lines:
        assert set(re.findall(r"(?<!\S)--[\w-]+", line)) <= options, line


def test_every_shell_command_can_be_read():
    commands = re.findall(r"^```bash\n(.*?)^```", DOC, re.MULTILINE | re.DOTALL)
    for command in commands:
        done = subprocess.run(["bash", "-n"], input=command, text=True, capture_output=True)
        assert done.stderr == ""
    (inner,) = [shlex.split(c)[-1] for c in commands if "bash -c" in c]
    assert subprocess.run(["bash", "-n", "-c", inner], capture_output=True).returncode == 0


def test_the_sizes_of_the_feed_are_the_codes():
    assert f"at most {RESIDENT_BYTES / 2**30:g} GiB" in DOC
    assert f"up to {CHUNK_BYTES / 2**20:g} MiB" in DOC
