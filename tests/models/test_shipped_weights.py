"""The weights in the package are complete and small, and have the accuracy on their card."""

import pytest

import nin_jax
from nin_jax.inference.scoring import score_trained
from nin_jax.models import pretrained
from nin_jax.runs.trained import Source
from parity_tests.pairs import fashion_mnist
from parity_tests.tolerances import SHIPPED_ACCURACY

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
def test_they_have_the_accuracy_of_their_cards():
    """Compute the accuracy if NIN_DATA_DIR has Fashion-MNIST; else check only the card."""
    for name in nin_jax.list_pretrained():
        card = pretrained.find(name)
        assert card.test_accuracy > 0.92
        if fashion_mnist() is not None:
            score, _ = score_trained(Source(pretrained=name).load())
            assert score.confusion.sum() == card.test_images
            assert abs(score.accuracy - card.test_accuracy) <= SHIPPED_ACCURACY
