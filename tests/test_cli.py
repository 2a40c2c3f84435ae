"""The scripts as commands of a shell."""

import os
import subprocess
import sys

import jax
import pytest

from nin_jax import cli
from tests.conftest import SCRIPTS


@pytest.mark.parametrize("option", ["--list-variants", "--help"])
def test_a_closed_pipe_ends_a_script_in_silence(tmp_path, option):
    """The reader of the pipe has ended, as in ``train.py --help | true``."""
    reader, writer = os.pipe()
    os.close(reader)
    environ = os.environ | {"PYTHONPATH": str(SCRIPTS.parent)}
    command = [sys.executable, SCRIPTS / "train.py", option]
    with open(writer, "wb") as closed:
        done = subprocess.run(
            command, stdout=closed, stderr=subprocess.PIPE, env=environ, cwd=tmp_path, text=True
        )
    assert (done.returncode, done.stderr) == (0, "")


LINES = """
import sys
from nin_jax.runs.writers import Screen
screen = Screen(3)
for number in range(5):
    screen.line(str(number))
print("trained", file=sys.stderr)
sys.exit(7)
"""


@pytest.mark.parametrize("errors", [subprocess.PIPE, subprocess.STDOUT])
def test_a_closed_pipe_does_not_end_a_run(errors):
    """Training may take hours, and ``| tee`` may end before it."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as closed:
        command = [sys.executable, "-c", LINES]
        done = subprocess.run(command, stdout=closed, stderr=errors, text=True)
    assert done.returncode == 7
    if errors == subprocess.PIPE:
        warning = "WARNING: the reader of the output has ended; the run continues"
        assert done.stderr == f"{warning}\ntrained\n"


def test_too_little_memory_is_one_line(capsys):
    def use_too_much():
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

    with pytest.raises(SystemExit) as ended:
        cli.guard(use_too_much)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: the device is out of memory: give ")
