"""Bad PyTorch files and options of scripts/convert.py."""

import pickle
import tomllib
from collections.abc import Mapping

import numpy as np

from nin_jax.models import convert
from nin_jax.models.variants import variant_from_dict
from tests.bad_inputs.case import WHOLE, Case, Content, command, packed, safetensors, saved
from tests.support.caffemodel import blob, caffemodel, varint


def _endless(torch: object) -> dict[str, object]:
    found: dict[str, object] = {}
    found["model"] = found
    return found


LINEAR = """image_size = 4
classifier = "linear"
stages = [{channels = 1, kernel = 3, padding = 1, pool = false}]
"""


def _linear() -> bytes:
    """Weights of that network."""
    from safetensors.numpy import save

    variant = variant_from_dict({"name": "linear", **tomllib.loads(LINEAR)})
    shapes = convert.expected_shapes(variant, 1, 10, 4)
    return save({name: np.zeros(shape, np.float32) for name, shape in shapes.items()})


def _convert(text: str, content: Content | None, *more: str, name: str = "a.pt") -> Case:
    files = {} if content is None else {name: content}
    return command("convert", text, name, "out.safetensors", *more, files=files)


def _named(text: str, arguments: str, files: Mapping[str, Content] | None = None) -> Case:
    return command("convert", text, arguments, files=files or {})


def _run(text: str, options: str) -> Case:
    return command("convert", text, "run o.safetensors", options, edits={})


def _caffe(text: str, content: Content, *more: str) -> Case:
    """A .caffemodel for a network of two layers and two classes."""
    small = "stages = [{channels = 1, kernel = 1, mlp = []}]\nhead = {kernel = 1, mlp = []}"
    given = "a.caffemodel b.safetensors --variant small.toml --num-classes 2"
    files = {"a.caffemodel": content, "small.toml": small}
    return command("convert", text, given, *more, files=files)


def _weights(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    return [np.ones(shape, np.float32) for shape in shapes]


CONVOLUTIONS = _weights((1, 3, 1, 1), (1,), (2, 1, 1, 1), (2,))
GOOD = caffemodel(CONVOLUTIONS)
NO_TENSORS = "is truncated or holds more than plain tensors"
CONVERT = {
    "nothing given": Case("convert", "missing"),
    "source missing": _convert("cannot read weights a.pt", None),
    "source missing, safetensors": _convert("cannot read weights", None, name="a.safetensors"),
    "source empty": _convert(NO_TENSORS, b""),
    "source a folder": _named("a.pt", "a.pt out.safetensors", {"a.pt/": ""}),
    "source a pipe": _named("a.pt is not a file", "a.pt out.safetensors", {"a.pt|": ""}),
    "source with code": _convert(NO_TENSORS, pickle.dumps(print)),
    "source a whole module": _convert(
        "torch.nn.modules.linear.Linear, which is not unpickled: save the network's state_dict()",
        saved(lambda torch: torch.nn.Linear(1, 1)),
    ),
    "source a bomb": _convert(NO_TENSORS, packed),
    "source a zip": _convert(NO_TENSORS, b"PK\x03\x04", name="a.safetensors"),
    "source of random bytes": _convert(WHOLE, b"\xff" * 100, name="a.bin"),
    "source with nothing but a counter of batches": _convert(
        "the first are net.1.num_batches_tracked; known are 0.0.weight (nn.Sequential)",
        saved(lambda torch: {"net.1.num_batches_tracked": torch.tensor(5)}),
    ),
    "source with one tensor twice": _convert(
        "both 0.0.bias and net.0.0.bias stand for net.0.0.bias",
        saved(lambda torch: {"0.0.bias": torch.ones(96), "net.0.0.bias": torch.ones(96)}),
    ),
    "source a checkpoint of another network": _convert(
        "the first are layer.weight; known",
        saved(lambda torch: {"epoch": 1, "state_dict": {"layer.weight": torch.ones(1)}}),
    ),
    "source a checkpoint in itself": _convert("the first are model; known", saved(_endless)),
    "best of a file": _convert("need the folder of a run, not a.pt", b"", "--best"),
    "a run of another variant": _run("leave out --variant", "--variant nin"),
    "a checkpoint that is not there": _run(
        "no checkpoint of step 7: it has none", "--checkpoint 7"
    ),
    "best of a run without checkpoints": _run("no intact checkpoint", "--best"),
    "source a list": _convert("other than a state dict", saved(lambda torch: [torch.ones(1)])),
    "source with numbers": _convert("the first are epoch", saved(lambda torch: {"epoch": 3})),
    "source of whole numbers": _convert(
        "'net.0.0.bias' holds int64",
        saved(lambda torch: {"net.0.0.bias": torch.ones(1, dtype=torch.int64)}),
    ),
    "source sparse": _convert(
        "'net.0.0.bias' is not a plain array",
        saved(lambda t: {"net.0.0.bias": t.eye(3).to_sparse()}),
    ),
    "source of exabytes in a number": _convert(
        "net.0.0.bias has shape [1099511627776], not [96]",
        saved(lambda torch: {"net.0.0.bias": torch.zeros(1).expand(2**40)}),
    ),
    "source of another network": _convert(
        "the first are a; known", saved(lambda torch: {"a": torch.nn.Parameter(torch.ones(1))})
    ),
    "target there already": _named(
        "exists already", "a.pt b.safetensors", {"b.safetensors": "mine"}
    ),
    "source's name too long": _convert("cannot read weights", None, name="x" * 300),
    "target of another format": _named("must end in .safetensors", "a.pt b.npz"),
    "target in no folder": _named("there is no folder", "a.pt none/b.safetensors"),
    "caffe: truncated": _caffe("a.caffemodel is not a complete file of Caffe", GOOD[:-20]),
    "caffe: text": _caffe("is not a complete file of Caffe", 'name: "CaffeNet"'),
    "caffe: nothing": _caffe("a.caffemodel has 0 layers with weights; small has 2", b""),
    "caffe: a layer of gigabytes": _caffe(
        "is not a complete file of Caffe", b"\x12" + varint(2**34) + GOOD
    ),
    "caffe: a shape of gigabytes": _caffe(
        "a.caffemodel: conv1 holds 3 numbers, but claims the shape [1048576, 1048576]",
        caffemodel([blob(CONVOLUTIONS[0], claimed=(2**20, 2**20)), *CONVOLUTIONS[1:]]),
    ),
    "caffe: another network": _caffe(
        "a.caffemodel has 1 layers with weights, conv1 to conv1; small has 2",
        caffemodel(CONVOLUTIONS[:2]),
    ),
    "caffe: another shape": _caffe(
        "the weights do not fit small (2 keys): net.3.0.weight has shape [3, 1, 1, 1], not [2, ",
        caffemodel([*CONVOLUTIONS[:2], *_weights((3, 1, 1, 1), (3,))]),
    ),
    "caffe: no bias": _caffe(
        "(1 keys): missing net.3.0.bias", caffemodel([*CONVOLUTIONS[:3], None])
    ),
    "caffe: a dense layer": _caffe(
        "conv1 has weights, but is no convolution: its type is 'InnerProduct'",
        caffemodel(CONVOLUTIONS, v1=False, kind=b"InnerProduct"),
    ),
    "caffe: a dense layer of the older kind": _caffe(
        "conv1 has weights, but is no convolution: its type is 14",
        caffemodel(CONVOLUTIONS, kind=14),
    ),
    "caffe: weights without sides": _caffe(
        "conv1 has arrays of the shapes [1] and [1]", caffemodel(_weights((1,)) * 4, old=False)
    ),
    "caffe: a linear layer here": _caffe(
        "nin_fc has a linear layer, which no network in Caffe's form has", GOOD, "--variant nin_fc"
    ),
    "caffe: a mean twice": _caffe(
        "give one of --mean and --mean-file", GOOD, "--mean 1 --mean-file m"
    ),
    "caffe: a mean of two channels": _caffe(
        "preprocessing: mean has 2 values for 3 channels", GOOD, "--mean 1 2"
    ),
    "caffe: no mean": _caffe("cannot read m: No such file", GOOD, "--mean-file m"),
    "caffe: a mean that is no image": _caffe(
        "a.caffemodel: the mean holds 0 numbers, but claims the shape [0, 0, 0, 0]",
        GOOD,
        "--mean-file a.caffemodel",
    ),
    "a mean of a run": _run("leave out --mean", "--mean 1"),
    "names that a linear layer does not have": _named(
        "pytorchcv has no name for the linear layer of linear",
        "a b.safetensors --variant linear.toml --naming pytorchcv",
        {"a": _linear, "linear.toml": LINEAR},
    ),
    "unknown naming": _convert(
        "--naming must be one of sequential, pytorchcv", b"", "--naming keras"
    ),
    "unknown variant": _convert("or nin15", b"", "--variant nin51"),
    "no channels": _convert("in_channels must be", safetensors({}), "--in-channels 0", name="a"),
    "image too small": _convert("too small", safetensors({}), "--image-size 9", name="a"),
}
