"""Networks of other projects: their weights give the same logits here as in their own code."""

from typing import Any

import jax
import numpy as np
import pytest
import torch
from pytorchcv.models import nin_cifar

import nin_torch_ref
from nin_jax import UserError, create_model
from nin_jax.models import convert
from parity_tests.frameworks import TORCH_DEVICE, as_array, as_nchw, as_tensor, assert_close
from parity_tests.tolerances import FORWARD
from tests.support.caffemodel import caffemodel


@pytest.mark.parametrize(
    ("name", "classes", "precision"),
    [
        ("nin_cifar10", 10, "float64"),
        pytest.param("nin_cifar100", 100, "float32", marks=pytest.mark.slow),
        pytest.param("nin_svhn", 10, "float32", marks=pytest.mark.slow),
    ],
)
def test_pytorchcv(name, classes, precision, rng):
    make, dtype = getattr(nin_cifar, name), getattr(torch, precision)
    theirs = make().eval().to(TORCH_DEVICE, dtype)
    for parameter in theirs.parameters():
        if parameter.ndim == 1:  # new biases are zero, which would hide a lost one
            torch.nn.init.uniform_(parameter, 0.01, 0.1)
    images = rng.random((2, 32, 32, 3)).astype(precision)
    model = convert.from_torch(
        theirs.state_dict(),
        name,
        in_channels=3,
        num_classes=classes,
        image_size=32,
        dtype=precision,
        param_dtype=precision,
    )
    expected = as_array(theirs(as_nchw(images)))
    logits = jax.jit(lambda x: model(x))(images)
    assert_close(logits, expected, FORWARD[precision], name)

    back = make().eval().to(TORCH_DEVICE, dtype)
    state = convert.to_torch(model, naming="pytorchcv")
    back.load_state_dict({key: as_tensor(array) for key, array in state.items()}, strict=True)
    np.testing.assert_array_equal(as_array(back(as_nchw(images))), expected)


def test_pytorchcv_has_no_name_for_a_linear_layer():
    with pytest.raises(UserError, match="no name for the linear layer of nin_fc"):
        convert.to_torch(create_model("nin_fc", image_size=67), naming="pytorchcv")


def test_caffe(tmp_path, rng):
    """The model zoo's network, in the older form of its file: BGR, 0..255, less the mean."""
    sizes: dict[str, Any] = {"in_channels": 3, "num_classes": 20, "image_size": 67}
    theirs = nin_torch_ref.create_model("nin_imagenet", **sizes).eval().to(TORCH_DEVICE)
    arrays = [as_array(value) for value in theirs.state_dict().values()]
    path = tmp_path / "nin_imagenet.caffemodel"
    path.write_bytes(caffemodel(arrays))
    model = convert.from_caffe(path, **sizes)

    images = rng.random((2, 67, 67, 3)).astype("float32")
    pixels = 255 * as_nchw(images).flip(1) - as_tensor([104, 117, 123])[:, None, None]
    logits = jax.jit(lambda x: model(x))(images)
    assert_close(logits, as_array(theirs(pixels)), FORWARD["float32"], "logits")
