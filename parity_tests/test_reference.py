"""The reference: errors, layers, weights files."""

import pickle
from bisect import bisect_left

import numpy as np
import pytest
import torch
from torch import nn

from nin_torch_ref import ARCHITECTURES, create_model, load_state_dict_file


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_too_small_images_raise_at_creation(architecture):
    least = 1 + bisect_left(range(1, 224), True, key=lambda side: _fits(architecture, side))
    with torch.device("meta"):
        model = create_model(architecture, image_size=least)
        assert model(torch.zeros(1, 1, least, least)).shape == (1, 10)
    if least == 1:
        return  # padding leaves a pixel of any image
    with pytest.raises(ValueError, match=f"image size {least - 1}x{least} does not fit"):
        create_model(architecture, image_size=(least - 1, least))


def _fits(architecture: str, side: int) -> bool:
    try:
        with torch.device("meta"):
            create_model(architecture, image_size=side)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("wrong", [{"in_channels": 0}, {"num_classes": 0}, {"image_size": 0}])
def test_counts_below_one_raise(wrong):
    with pytest.raises(ValueError, match="at least 1"):
        create_model("nin", **wrong)


def test_an_unknown_name_raises():
    with pytest.raises(ValueError, match="unknown architecture 'nin51'; known: nin, "):
        create_model("nin51")
    with pytest.raises(
        ValueError, match="unknown initialization 'lecun'; known: xavier, he, gaussian, id"
    ):
        create_model("nin", init="lecun")  # pyright: ignore[reportArgumentType]


def test_the_layers_follow_the_publication():
    kinds = [type(layer) for layer in create_model("nin").net]
    block = nn.Sequential
    assert kinds == [
        *(block, nn.MaxPool2d, block, nn.MaxPool2d, block, nn.MaxPool2d),
        *(nn.Dropout, block, nn.AdaptiveAvgPool2d, nn.Flatten),
    ]
    without_relu = create_model("nin", logit_relu=False)
    assert isinstance(list(without_relu.net[7].children())[-1], nn.Conv2d)
    assert list(without_relu.state_dict()) == list(create_model("nin").state_dict())


class Harmful:
    """Unpickling it would execute a command."""

    def __reduce__(self):
        return (print, ("this must never be printed",))


MORE = "is truncated or holds more than plain tensors"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps(Harmful()), MORE),
        (pickle.dumps(Harmful(), 2), r"holds a \S*print, which is not unpickled: save the"),
        (pickle.dumps({"net.0.0.weight": np.ones(3)}), MORE),
        (b"not a pickle", MORE),
        (b"", MORE),
    ],
    ids=["code", "code as PyTorch pickles it", "numpy", "text", "empty"],
)
def test_a_file_without_tensors_only_raises(content, reason, tmp_path, capsys):
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"weights\.pt {reason}"):
        load_state_dict_file(path)
    assert not capsys.readouterr().out


@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_file_raises_at_every_length(zipped, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=zipped)
    assert load_state_dict_file(path).keys() == {"a"}
    content = path.read_bytes()
    for length in range(0, len(content) - 1, 7):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="truncated"):
            load_state_dict_file(path)


@pytest.mark.parametrize("content", [torch.ones(3), [torch.ones(3)], 3])
def test_other_contents_than_a_state_dict_raise(content, tmp_path):
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="something other than a state dict"):
        load_state_dict_file(tmp_path / "weights.pt")


def test_a_missing_file_raises(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_state_dict_file(tmp_path / "none.pt")
