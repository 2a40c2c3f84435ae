"""With the weights that ship, both frameworks make the same predictions."""

from functools import partial
from typing import Any
from unittest import mock

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
from parity_tests.passes import AS_USERS_COMPILE


@pytest.mark.slow
@pytest.mark.parametrize("name", nin_jax.list_pretrained())
def test_the_predictions_are_those_of_the_reference(name):
    """1,000 test images, or digits if NIN_DATA_DIR has no Fashion-MNIST."""
    card = pretrained.find(name)
    model = nin_jax.create_model(card.variant, pretrained=card.dataset)
    # Compiled quickly, as in the other tests, it would take half as long again.
    as_users = partial(jax.jit, compiler_options=AS_USERS_COMPILE)
    with mock.patch.object(jax, "jit", as_users):
        predictor = nin_jax.Predictor(model, 100)
    images = real_images(1000)
    found = predictor(images).argmax(1)

    options: dict[str, Any] = card.sizes | {"logit_relu": card.logit_relu}
    reference = nin_torch_ref.create_model(card.variant, **options).eval().to(TORCH_DEVICE)
    weights = pretrained.read_weights(card)
    reference.load_state_dict({n: torch.from_numpy(a).float() for n, a in weights.items()})
    prepare = jax.jit(lambda part: transforms.prepare(part, model.image_size))
    expected = []
    for part in np.split(images, 10):
        with torch.no_grad():
            expected.append(as_array(reference(as_nchw(np.asarray(prepare(part))))))
    np.testing.assert_array_equal(found, np.concatenate(expected).argmax(1))
    assert len(np.unique(found)) > 1
