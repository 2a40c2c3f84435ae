"""The weights that ship give the same predictions in the reference."""

from typing import Any

import jax
import numpy as np
import pytest
import torch

import nin_jax
import nin_torch_ref
from nin_jax.data import transforms
from nin_jax.models import pretrained
from parity_tests.frameworks import TORCH_DEVICE, as_array, as_nchw
from parity_tests.pairs import real_images


def test_the_package_ships_weights():
    assert nin_jax.list_pretrained()


@pytest.mark.slow
def test_the_reference_makes_the_same_predictions():
    images = real_images(1000)
    assert len(images) == 1000
    for name in nin_jax.list_pretrained():
        card = pretrained.find(name)
        model = nin_jax.create_model(card.variant, pretrained=card.dataset)
        options: dict[str, Any] = card.sizes | {"logit_relu": card.logit_relu}
        reference = nin_torch_ref.create_model(card.variant, **options).eval().to(TORCH_DEVICE)
        weights = pretrained.read_weights(card)
        reference.load_state_dict({n: torch.from_numpy(a).float() for n, a in weights.items()})
        prepare = jax.jit(lambda part, size=model.image_size: transforms.prepare(part, size))
        expected = []
        for part in np.split(images, 10):
            with torch.no_grad():
                expected.append(as_array(reference(as_nchw(np.asarray(prepare(part))))))
        found = nin_jax.Predictor(model, 100)(images).argmax(1)
        np.testing.assert_array_equal(found, np.concatenate(expected).argmax(1), name)
        assert len(np.unique(found)) > 1
