"""The scripts as commands of a shell."""

import os
import subprocess
import sys

import pytest

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
