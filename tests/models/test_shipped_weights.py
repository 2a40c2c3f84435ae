"""The weights in the package are complete and small, and have the accuracy on their card."""

import os
import re
import subprocess
import sys

import pytest

import nin_jax
from nin_jax.models import pretrained
from parity_tests.pairs import fashion_mnist
from parity_tests.tolerances import SHIPPED_ACCURACY
from tests.conftest import SCRIPTS

MOST_BYTES = 15_000_000  # of all weights files together


def test_they_are_complete_and_small():
    names = nin_jax.list_pretrained()
    assert names
    sizes = [(pretrained.FOLDER / f"{name}.safetensors").stat().st_size for name in names]
    assert max(sizes) <= pretrained.MAX_BYTES
    assert sum(sizes) <= MOST_BYTES
    assert len(list(pretrained.FOLDER.iterdir())) == 2 * len(names)
    for name in names:
        card = pretrained.find(name)
        model = nin_jax.create_model(card.variant, pretrained=card.dataset)
        assert model.image_size == card.image_size
        assert f"--variant {card.variant} " in card.command


@pytest.mark.slow
@pytest.mark.parametrize("name", nin_jax.list_pretrained())
def test_they_have_the_accuracy_of_their_cards(name, tmp_path):
    """Compute the accuracy if NIN_DATA_DIR has Fashion-MNIST; else check only the card.

    The programs of the other tests are compiled quickly and would take minutes for 10,000 images.
    """
    card = pretrained.find(name)
    assert card.test_accuracy > 0.92
    if fashion_mnist() is None:
        return
    command = [sys.executable, SCRIPTS / "evaluate.py", "--pretrained", name]
    command += ["--out", tmp_path / "confusion.png"]
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    (accuracy,) = re.findall(r"^test accuracy (0\.\d+)$", done.stdout, re.MULTILINE)
    assert abs(float(accuracy) - card.test_accuracy) <= SHIPPED_ACCURACY
