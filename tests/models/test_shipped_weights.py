"""The weights in the package are complete, small, and as accurate as their cards say."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

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
        assert card.test_accuracy > 0.92


@pytest.mark.slow
@pytest.mark.parametrize("name", nin_jax.list_pretrained())
def test_evaluate_prints_the_accuracy_of_the_card(name, tmp_path):
    """Compile as users do: quickly compiled, 10,000 images would take minutes."""
    if fashion_mnist() is None:
        pytest.skip("NIN_DATA_DIR has no Fashion-MNIST")
    command = [sys.executable, SCRIPTS / "evaluate.py", "--pretrained", name]
    command += ["--out", tmp_path / "confusion"]
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    (accuracy,) = re.findall(r"^test accuracy (0\.\d+)$", done.stdout, re.MULTILINE)
    assert abs(float(accuracy) - pretrained.find(name).test_accuracy) <= SHIPPED_ACCURACY


def test_a_picture_is_classified_without_training(script, tmp_path):
    """Two light legs on a dark ground are trousers."""
    picture = np.zeros((28, 28), np.uint8)
    picture[2:26, 9:13] = picture[2:26, 15:19] = picture[2:9, 9:19] = 200
    Image.fromarray(picture).save(tmp_path / "trousers.png")
    outcome = script("predict", tmp_path / "trousers.png", "--pretrained", "nin15", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    (answer,) = json.loads(outcome.out)
    assert answer["classes"][0] == "Trouser"
