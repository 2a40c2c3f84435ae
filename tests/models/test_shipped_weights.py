"""The weights in the package are complete and small. `parity_tests` compute their accuracy."""

import nin_jax
from nin_jax.models import pretrained

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
