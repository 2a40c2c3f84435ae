"""The table of bad inputs: what is run, on which files, and what its one line has to say.

``tests/test_bad_input.py`` runs them all, and looks that nothing was written.
"""

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import nin_jax
from nin_jax import Stage, Variant, convert, metrics, pictures, record
from nin_jax.config import TrainConfig
from nin_jax.datasets import load_dataset
from nin_jax.geometry import trace
from nin_jax.loop import fit
from nin_jax.variants import variant_from_dict
from nin_study import grid
from tests.test_study import row

Content = bytes | str | Callable[[], bytes] | None
REMOVED = object()  # in `Case.edits`: the key is taken out


@dataclass(frozen=True)
class Case:
    """A command line of a script, or a call, that has to be refused.

    Attributes:
        run: a script's name, or a call of the Python API.
        arguments: of the script.
        text: that its one line has to hold.
        files: that lie in the current folder, by name; a name that ends in "/" is a folder, one
            that ends in "|" a pipe, and one that holds None is taken away.
        edits: what is changed in ``config.json`` of the finished run in the folder ``run``, by the
            keys' path; there is such a folder only if this is not None.
    """

    run: str | Callable[[], object]
    text: str
    arguments: tuple[str, ...] = ()
    files: Mapping[str, Content] = field(default_factory=dict)
    edits: Mapping[str, object] | None = None


def safetensors(header: object, data: bytes = b"") -> bytes:
    """A safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(dtype: str, shape: list[int], start: int, end: int) -> dict[str, object]:
    """A tensor in a safetensors header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def saved(make: Callable[[Any], object]) -> Callable[[], bytes]:
    """What torch.save makes of an object; torch is imported only then."""

    def content() -> bytes:
        import torch

        buffer = io.BytesIO()
        torch.save(make(torch), buffer)
        return buffer.getvalue()

    return content


def packed() -> bytes:
    """A PyTorch file that would load: 100 MB of zeros, packed into 100 kB."""
    whole = saved(lambda torch: {"a": torch.zeros(25_000_000)})()
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(whole)) as plain,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for entry in plain.infolist():
            archive.writestr(entry.filename, plain.read(entry))
    return buffer.getvalue()


def other_weights() -> bytes:
    """Those of nin_one_1x1, as names and shapes in a header alone would not do."""
    from safetensors.numpy import save

    shapes = convert.expected_shapes(nin_jax.get_variant("nin_one_1x1"), 1, 10, 96)
    return save({name: np.zeros(shape, np.float16) for name, shape in shapes.items()})


def picture(side: int = 16) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.zeros((side, side), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


STAGE = '{"channels": 8, "kernel": 3}'
THIN = '{"channels": 8, "kernel": 1, "mlp": []}'
DEEP = "[" * 100_000


def _train(text: str, *arguments: str, **more: Any) -> Case:
    defaults = () if "--dataset" in arguments else ("--dataset", "digits")
    return Case("train", text, (*defaults, *arguments), **more)


def _variant(text: str, content: Content, name: str = "bad.json") -> Case:
    return _train(text, "--variant", name, files={name: content})


TRAIN = {
    "unknown variant": _train("or nin15", "--variant", "nin51"),
    "unknown variant, nothing near": _train("known: nin, nin15", "--variant", "xyzzy"),
    "variant name empty": _train("unknown variant ''", "--variant", ""),
    "variant file missing": _train(
        "cannot read variant file none.toml: No such file", "--variant", "none.toml"
    ),
    "unknown recipe": _train("did you mean modern", "--recipe", "modem"),
    "unknown data set": _train("did you mean fashion_mnist", "--dataset", "fashionmnist"),
    "data set outside": _train("unknown dataset '../x'", "--dataset", "../x"),
    "prepared set outside": _train("is not a tensorflow-datasets name", "--dataset", "tfds:../x"),
    "image too small": _train("smallest size that works is 67x67", "--image-size", "66"),
    "image too low": _train("image size 66x224 is too small", "--image-size", "66", "224"),
    "image size zero": _train("image size", "--image-size", "0"),
    "image size negative": _train("image size", "--image-size", "-5"),
    "image size of a billion": _train("<= 16,384, got 1000000000", "--image-size", "1000000000"),
    "image size a word": _train("--image-size must be", "--image-size", "big"),
    "three sides": _train("--image-size must be", "--image-size", "96", "96", "96"),
    "batch size zero": _train(
        "--batch-size must be a whole number >= 1, got 0", "--batch-size", "0"
    ),
    "batch size negative": _train("--batch-size must be", "--batch-size", "-1"),
    "batch size a word": _train("--batch-size must be INT", "--batch-size", "many"),
    "batch size a fraction": _train("--batch-size must be INT", "--batch-size", "1.5"),
    "micro-batch size zero": _train("--micro-batch-size must be", "--micro-batch-size", "0"),
    "steps a dispatch zero": _train("--steps-per-dispatch must be", "--steps-per-dispatch", "0"),
    "epochs zero": _train("--epochs must be a whole number >= 1, got 0", "--epochs", "0"),
    "epochs a word": _train("--epochs must be INT", "--epochs", "ten"),
    "rate zero": _train("--lr must be a finite number > 0", "--lr", "0"),
    "rate negative": _train("--lr must be a finite number > 0", "--lr", "-0.1"),
    "rate NaN": _train("--lr must be a finite number > 0, got nan", "--lr", "nan"),
    "rate infinite": _train("--lr must be a finite number > 0, got inf", "--lr", "inf"),
    "rate a word": _train("--lr must be FLOAT", "--lr", "fast"),
    "momentum one": _train("--momentum must be a number in [0, 1)", "--momentum", "1"),
    "nesterov alone": _train("--nesterov needs --momentum", "--nesterov", "True"),
    "smoothing one": _train("--label-smoothing must be", "--label-smoothing", "1"),
    "decay negative": _train("--weight-decay must be", "--weight-decay", "-1"),
    "clip NaN": _train("--clip-norm must be", "--clip-norm", "nan"),
    "warm-up negative": _train("--warmup-steps must be", "--warmup-steps", "-1"),
    "limit zero": _train("--limit-train must be a whole number >= 1", "--limit-train", "0"),
    "limit negative": _train("--limit-test must be a whole number >= 1", "--limit-test", "-3"),
    "limit a word": _train("--limit-test must be INT", "--limit-test", "all"),
    "holdout zero": _train("--holdout must be a whole number >= 1", "--holdout", "0"),
    "holdout of everything": _train("leaves nothing to train on", "--holdout", "1442"),
    "seed negative": _train("--seed must be a whole number in [0, 2**32)", "--seed", "-1"),
    "seed too large": _train("--seed must be", "--seed", "4294967296"),
    "too few classes": _train("digits has labels 0 to 9", "--num-classes", "5"),
    "a billion classes": _train("parameters, more than", "--num-classes", "1000000000"),
    "unknown precision": _train("--precision must be one of", "--precision", "float16"),
    "unknown optimiser": _train("--optimizer must be one of", "--optimizer", "lion"),
    "unknown schedule": _train("--schedule must be one of", "--schedule", "linear"),
    "unknown augmentation": _train("--augment must be one of", "--augment", "mixup"),
    "unknown device": _train("--device must be one of", "--device", "tpu"),
    "unknown option": _train("unknown option", "--bathc-size", "3"),
    "option without value": _train("--lr must be", "--lr"),
    "a word too many": _train("unknown option nin", "nin"),
    "data folder missing": _train("none", "--dataset", "mnist", "--data-dir", "none"),
    "data folder empty": _train(
        "has no MNIST files", "--dataset", "mnist", "--data-dir", "empty", files={"empty/": ""}
    ),
    "data folder a file": _train(
        "is not a folder", "--dataset", "mnist", "--data-dir", "file", files={"file": ""}
    ),
    "half a data folder": _train(
        "lacks train-labels-idx1-ubyte.gz",
        *("--dataset", "mnist", "--data-dir", "data"),
        files={"data/train-images-idx3-ubyte.gz": b""},
    ),
    "resume without a folder": _train("--resume needs --workdir", "--resume"),
    "resume of nothing": _train("none holds no run", "--resume", "--workdir", "none"),
    "workdir a file": _train(
        "is a file, not a folder", "--workdir", "file", files={"file": "mine"}
    ),
    "workdir below a file": _train("is a file", "--workdir", "file/x", files={"file": "mine"}),
    "workdir that holds a run": _train(
        "already holds a run: give --resume to continue it, or a new folder",
        *("--workdir", "run"),
        edits={},
    ),
    "resume of an empty configuration": _train(
        "config.json is damaged", "--resume", "--workdir", "run", files={"run/config.json": "{}"}
    ),
    "resume of a rate that is a word": _train(
        "config.json is damaged: lr cannot be 'fast'",
        *("--resume", "--workdir", "run"),
        edits={"config.lr": "fast"},
    ),
    # Variant files.
    "variant file torn": _variant("bad.toml: ", "[[stages]\nchannels = ", "bad.toml"),
    "variant file empty": _variant("bad.json: Expecting value", ""),
    "variant file a list": _variant("must be a table of fields", "[1]"),
    "variant file a folder": _train("Is a directory", "--variant", "x.toml", files={"x.toml/": ""}),
    "variant file a pipe": _train("not a file", "--variant", "x.toml", files={"x.toml|": ""}),
    "variant file binary": _variant("not a UTF-8 text file", b"\xff\xfe\x00", "bad.toml"),
    "variant file of a megabyte": _variant("1,048,576 bytes, more than 262,144", " " * 2**20),
    "variant file too deep": _variant("nested too deeply", DEEP),
    "variant file too deep, TOML": _variant("nested too deeply", f"a = {DEEP}", "bad.toml"),
    "variant file of dots": _variant(
        "line 1 has more than 16 dots", "a." * 100_000 + "a = 1", "bad.toml"
    ),
    "variant file with a key twice": _variant(
        "the key 'stages' stands twice", '{"stages": [], "stages": []}'
    ),
    "variant file with a key twice, TOML": _variant(
        "Cannot overwrite a value", "dropout = 0\ndropout = 0", "bad.toml"
    ),
    "variant file with stages that are no list": _variant("stages must be a list", '{"stages": 3}'),
    "variant file with a stage that is no table": _variant(
        "stage 0 must be a table", '{"stages": [3]}'
    ),
    "variant file without a kernel": _variant("missing 'kernel'", '{"stages": [{"channels": 8}]}'),
    "variant file with a slip": _variant(
        "did you mean channels", '{"stages": [{"chanels": 8, "kernel": 3}]}'
    ),
    "variant file with an unknown field": _variant(
        "unknown variant field 'colour'", '{"stages": [], "colour": "red"}'
    ),
    "kernel of a billion": _variant(
        "kernel must be a whole number >= 1 and <= 16,384",
        '{"stages": [{"channels": 8, "kernel": 1000000000}]}',
    ),
    "kernel of ten thousand": _variant(
        "parameters, more than 1,073,741,824",
        '{"stages": [{"channels": 8, "kernel": 16000, "padding": 8000}]}',
    ),
    "padding of ten thousand": _variant(
        "numbers for one image, more than",
        '{"stages": [{"channels": 8, "kernel": 1, "padding": 16000}]}',
    ),
    "kernel zero": _variant("kernel must be", '{"stages": [{"channels": 8, "kernel": 0}]}'),
    "kernel true": _variant("kernel must be", '{"stages": [{"channels": 8, "kernel": true}]}'),
    "kernel a text": _variant("kernel must be", '{"stages": [{"channels": 8, "kernel": "3"}]}'),
    "channels a fraction": _variant("got 8.5", '{"stages": [{"channels": 8.5, "kernel": 3}]}'),
    "channels of 4,000 digits": _variant(
        "<a number of", f'{{"stages": [{{"channels": {"9" * 4000}, "kernel": 3}}]}}'
    ),
    "a thousand stages": _variant(
        "1,003 convolutions are more than 1,000",
        f'{{"stages": [{",".join([THIN] * 1000)}]}}',
    ),
    "a million stages": _variant(
        "more than 262,144", f'{{"stages": [{",".join([STAGE] * 10**6)}]}}'
    ),
    "mlp a number": _variant("mlp must be", '{"stages": [{"channels": 8, "kernel": 3, "mlp": 1}]}'),
    "dropout NaN": _variant("dropout must be in [0, 1), got nan", '{"stages":[], "dropout": NaN}'),
    "dropout one": _variant("dropout must be in [0, 1)", "stages = []\ndropout = 1.0", "bad.toml"),
    "published rate infinite": _variant("got inf", '{"stages": [], "published_lr": 1e999}'),
    "variant name with slashes": _variant("without slashes", '{"name": "../x", "stages": []}'),
    "variant name with lines": _variant("printable", '{"name": "a\\nb", "stages": []}'),
    "variant name a number": _variant("got 3", '{"name": 3, "stages": []}'),
    "head with channels": _variant(
        "the head must be", '{"stages": [], "head": {"channels": 3, "kernel": 3}}'
    ),
}

_RUN = ("--workdir", "run")


def _weights(text: str, content: Content) -> Case:
    return Case("evaluate", text, (*_RUN, "--weights", "bad"), files={"bad": content}, edits={})


def _config(text: str, **edits: object) -> Case:
    """A run's config.json with other values; in a name here, "__" stands for a dot."""
    dotted = {name.replace("__", "."): value for name, value in edits.items()}
    return Case("evaluate", text, _RUN, edits=dotted)


WHOLE = "is not a whole safetensors file"
EVALUATE = {
    "no folder given": Case("evaluate", "missing --workdir"),
    "folder missing": Case("evaluate", "none holds no run", ("--workdir", "none")),
    "folder empty": Case("evaluate", "holds no run", ("--workdir", "x"), {"x/": ""}),
    "folder a file": Case("evaluate", "holds no run", ("--workdir", "x"), {"x": ""}),
    "folder's name too long": Case("evaluate", "holds no run", ("--workdir", "x" * 300)),
    "unknown device": Case("evaluate", "--device must be one of", (*_RUN, "--device", "tpu")),
    "no weights": Case(
        "evaluate", "the run has not finished an epoch", _RUN, {"run/model.safetensors": None}, {}
    ),
    "weights missing": Case(
        "evaluate", "cannot read weights none: No such", (*_RUN, "--weights", "none"), edits={}
    ),
    "weights a folder": Case(
        "evaluate", "Is a directory", (*_RUN, "--weights", "x"), {"x/": ""}, {}
    ),
    "weights a pipe": Case("evaluate", "not a file", (*_RUN, "--weights", "x"), {"x|": ""}, {}),
    "weights truncated": _weights(WHOLE, lambda: other_weights()[:10_000]),
    "weights empty": _weights(WHOLE, b""),
    "weights a pickle": _weights(WHOLE, pickle.dumps({"net.0.0.weight": [1.0]})),
    "weights with a huge header": _weights(WHOLE, b"\xff" * 100),
    "weights of exabytes": _weights(
        WHOLE, safetensors({"a": tensor("F32", [2**31, 2**31], 0, 2**64 - 4)})
    ),
    "weights whose size overflows": _weights(
        WHOLE, safetensors({"a": tensor("F32", [2**62, 4], 0, 0)})
    ),
    "weights of a negative shape": _weights(
        WHOLE, safetensors({"a": tensor("F32", [-1], 0, 4)}, b"1234")
    ),
    "weights that overlap": _weights(
        WHOLE,
        safetensors({"a": tensor("F32", [1], 0, 4), "b": tensor("F32", [1], 0, 4)}, b"1234"),
    ),
    "weights with a hole": _weights(
        WHOLE, safetensors({"a": tensor("F32", [1], 4, 8)}, b"12345678")
    ),
    "weights nested too deep": _weights(WHOLE, safetensors(b'{"a":' * 5000)),
    "weights of nothing, but long": _weights(
        "the weights do not fit tiny", safetensors({"a": tensor("F32", [0, 2**62], 0, 0)})
    ),
    "weights without any": _weights("missing net.0.0.weight", safetensors({})),
    "weights of bfloat16": _weights(
        "'a' holds BF16; F16, F32 or F64 can be read",
        safetensors({"a": tensor("BF16", [1], 0, 2)}, b"12"),
    ),
    "weights of whole numbers": _weights(
        "'a' holds I64", safetensors({"a": tensor("I64", [1], 0, 8)}, b"12345678")
    ),
    "weights with a name of lines": _weights(
        "unexpected 'a\\nb'", safetensors({"a\nb": tensor("F32", [1], 0, 4)}, b"1234")
    ),
    "weights of another variant": _weights(
        "net.0.0.weight has shape [96, 1, 11, 11], not [8, 1, 3, 3]", other_weights
    ),
    "config not JSON": Case("evaluate", "config.json", _RUN, {"run/config.json": "{"}, {}),
    "config a list": Case(
        "evaluate", "damaged: not an object", _RUN, {"run/config.json": "[]"}, {}
    ),
    "config too deep": Case(
        "evaluate", "damaged: nested too deeply", _RUN, {"run/config.json": DEEP}, {}
    ),
    "config binary": Case(
        "evaluate", "not a UTF-8 text file", _RUN, {"run/config.json": b"\xff"}, {}
    ),
    "config with a key less": _config("no variant in it", variant=REMOVED),
    "config with a field more": _config("another version", recipe__flavour="sweet"),
    "config with a field less": _config("of another version of nin_jax: 'lr'", recipe__lr=REMOVED),
    "config a text": _config("config must be a table, got 'x'", config="x"),
    "config variant a number": _config("variant must be a table, got 3", variant=3),
    "config variant with slashes": _config("without slashes", variant__name="../x"),
    "config variant of a huge kernel": _config(
        "kernel must be", variant__stages=[{"channels": 8, "kernel": 10**9}]
    ),
    "config image size of a billion": _config("<= 16,384", recipe__image_size=10**9),
    "config image size a text": _config("image_size cannot be", recipe__image_size="16"),
    "config rate NaN": _config("--lr must be", recipe__lr=float("nan")),
    "config rate a word": _config("lr cannot be 'fast'", recipe__lr="fast"),
    "config batch size zero": _config("--batch-size must be", recipe__batch_size=0),
    "config precision unknown": _config("precision cannot be", config__precision="int8"),
    "config seed a list": _config("seed cannot be", config__seed=[0]),
    "config workdir with a NUL": _config("workdir cannot be", config__workdir="a\0b"),
    "config data set outside": _config("unknown dataset '../x'", config__dataset="../x"),
    "config of other data": _config("the data differ", dataset__checksum="0" * 64),
    "config without a checksum": _config("dataset.checksum must be", dataset__checksum=REMOVED),
    "config classes no list": _config("class_names must be", dataset__class_names="abc"),
    "config classes of lines": _config("class_names must be", dataset__class_names=["a\nb"]),
    "config more names than classes": _config("num_classes cannot be 3", num_classes=3),
    "config a billion classes": _config("parameters, more than", num_classes=10**9),
    "config classes a fraction": _config("num_classes cannot be 10.5", num_classes=10.5),
    "config image shape short": _config("image_shape must be", dataset__image_shape=[8]),
    "config image shape negative": _config("image_shape must be", dataset__image_shape=[8, 8, -1]),
    "config channels of a billion": _config(
        "parameters, more than", dataset__image_shape=[8, 8, 10**9]
    ),
}


def _picture(script: str, text: str, *arguments: str, **more: Any) -> Case:
    files = {"p.png": picture} | more.pop("files", {})
    return Case(script, text, arguments, files, **more)


PREDICT = {
    "no picture": _picture("predict", "give one or more pictures", *_RUN),
    "no folder given": _picture("predict", "missing --workdir", "p.png"),
    "folder without a run": _picture("predict", "holds no run", "p.png", "--workdir", "."),
    "picture missing": _picture("predict", "there is no nowhere.png", "nowhere.png", *_RUN),
    "picture's name too long": _picture("predict", "there is no xxx", "x" * 300, *_RUN),
    "no pictures in a folder": _picture(
        "predict", "no pictures in empty", "empty", *_RUN, files={"empty/": ""}
    ),
    "top zero": _picture("predict", "--top must be", "p.png", *_RUN, "--top", "0", edits={}),
    "batch size zero": _picture(
        "predict", "batch_size must be", "p.png", *_RUN, "--batch-size", "0", edits={}
    ),
    "unknown precision": _picture(
        "predict", "--precision must be", "p.png", *_RUN, "--precision", "int8"
    ),
    "weights missing": _picture(
        "predict", "cannot read weights", "p.png", *_RUN, "--weights", "none", edits={}
    ),
    "config of lists": _picture(
        "predict", "dataset must be a table", "p.png", *_RUN, edits={"dataset": []}
    ),
}

EXPLAIN = {
    "no picture": _picture("explain", "give one or more pictures", *_RUN),
    "folder without a run": _picture("explain", "holds no run", "p.png", "--workdir", "."),
    "folder's name too long": _picture("explain", "holds no run", "p.png", "--workdir", "x" * 300),
    "picture missing": _picture("explain", "there is no none.png", "none.png", *_RUN, edits={}),
    "out is a file": _picture(
        "explain", "is a file, not a folder", "p.png", *_RUN, "--out", "p.png", edits={}
    ),
    "out below a file": _picture(
        "explain", "cannot be made", "p.png", *_RUN, "--out", "p.png/x", edits={}
    ),
    "weights of another variant": _picture(
        *("explain", "do not fit", "p.png", *_RUN, "--weights", "w"),
        files={"w": other_weights},
        edits={},
    ),
    "unknown option": _picture("explain", "unknown option", "p.png", *_RUN, "--maps", "3"),
}


def _convert(text: str, content: Content | None, *more: str, name: str = "a.pt") -> Case:
    files = {} if content is None else {name: content}
    return Case("convert", text, (name, "out.safetensors", *more), files)


NO_TENSORS = "is truncated or holds more than plain tensors"
CONVERT = {
    "nothing given": Case("convert", "missing"),
    "source missing": _convert("cannot read weights a.pt", None),
    "source missing, safetensors": _convert("cannot read weights", None, name="a.safetensors"),
    "source empty": _convert(NO_TENSORS, b""),
    "source a folder": Case("convert", "a.pt", ("a.pt", "out.safetensors"), {"a.pt/": ""}),
    "source a pipe": Case(
        "convert", "a.pt is not a file", ("a.pt", "out.safetensors"), {"a.pt|": ""}
    ),
    "source with code": _convert(NO_TENSORS, pickle.dumps(print)),
    "source a bomb": _convert(NO_TENSORS, packed),
    "source a zip": _convert(WHOLE, b"PK\x03\x04", name="a.safetensors"),
    "source a list": _convert("other than a state dict", saved(lambda torch: [torch.ones(1)])),
    "source with numbers": _convert("other than a state dict", saved(lambda torch: {"epoch": 3})),
    "source of bfloat16": _convert(
        "'a' is no plain array", saved(lambda torch: {"a": torch.ones(1, dtype=torch.bfloat16)})
    ),
    "source of whole numbers": _convert(
        "'a' holds int64", saved(lambda torch: {"a": torch.ones(1, dtype=torch.int64)})
    ),
    "source sparse": _convert(
        "'a' is no plain array", saved(lambda t: {"a": t.eye(3).to_sparse()})
    ),
    "source of exabytes in a number": _convert(
        "unexpected a",
        saved(lambda torch: {"a": torch.zeros(1).expand(2**40)}),
    ),
    "source of another network": _convert(
        "the weights do not fit nin", saved(lambda torch: {"a": torch.nn.Parameter(torch.ones(1))})
    ),
    "target there already": Case(
        "convert", "is there already", ("a.pt", "b.safetensors"), {"b.safetensors": "mine"}
    ),
    "source's name too long": _convert("cannot read weights", None, name="x" * 300),
    "target of another format": Case("convert", "must end in .safetensors", ("a.pt", "b.npz")),
    "target in no folder": Case("convert", "there is no folder", ("a.pt", "none/b.safetensors")),
    "unknown variant": _convert("or nin15", b"", "--variant", "nin51"),
    "no channels": _convert("in_channels must be", safetensors({}), "--in-channels", "0", name="a"),
    "image too small": _convert("too small", safetensors({}), "--image-size", "9", name="a"),
}


def _report(text: str, *arguments: str, **more: Any) -> Case:
    return Case("report", text, arguments, **more)


REPORT = {
    "unknown variant": _report("or nin15", "--variant", "nin51"),
    "variant file missing": _report("cannot read variant file", "--variant", "none.toml"),
    "variant name with slashes": _report(
        "without slashes", "--variant", "v.json", files={"v.json": '{"name": "a/b", "stages": []}'}
    ),
    "image too small": _report("too small for nin", "--image-size", "20"),
    "image of a billion": _report("<= 16,384", "--image-size", "1000000000"),
    "unknown format": _report("did you mean json", "--format", "jsno"),
    "batch size zero": _report("batch size must be a whole number >= 1", "--batch-size", "0"),
    "no channels": _report("in_channels must be", "--in-channels", "0"),
    "no classes": _report("num_classes must be", "--num-classes", "0"),
    "a billion classes": _report("parameters, more than", "--num-classes", "1000000000"),
    "unknown recipe": _report("did you mean modern", "--recipe", "modem"),
    "memory too small": _report("smaller than the parameters alone", "--memory", "5MB"),
    "memory of galaxies": _report("is more than", "--memory", "9" * 400),
    "memory a word": _report("--memory must be a size such as 8GiB", "--memory", "plenty"),
    "plots into a file": _report("is a file", "--plots", "file", files={"file": "mine"}),
    "derivation as JSON": _report("--explain writes Markdown", "--explain", "--format", "json"),
}


def _bench(text: str, *arguments: str, **more: Any) -> Case:
    return Case("bench", text, arguments, **more)


BENCH = {
    "unknown benchmark": _bench("must be one of", "speed"),
    "unknown variant": _bench("or nin15", "--variants", "nin51"),
    "variant file torn": _bench("a.toml", "--variants", "a.toml", files={"a.toml": "["}),
    "image size zero": _bench("--image-size must be", "--image-size", "0"),
    "image too small": _bench("too small", "train", "--variants", "nin", "--image-size", "20"),
    "a billion channels": _bench("parameters", "--variants", "nin", "--in-channels", "1000000000"),
    "image size a word": _bench("--image-size must be INT", "--image-size", "big"),
    "no channels": _bench("--in-channels must be", "--in-channels", "0"),
    "no rounds": _bench("--rounds must be", "--rounds", "0"),
    "workers negative": _bench("--workers must be a whole number >= 0", "--workers", "-1"),
    "batch size zero": _bench("--batch-sizes must be", "--batch-sizes", "0"),
    "unknown format": _bench("--format must be one of", "--format", "xml"),
    "unknown precision": _bench("--precision must be one of", "--precision", "int8"),
    "out is a file": _bench("is a file", "--out", "file", files={"file": "mine"}),
}


def _study(text: str, *arguments: str, **more: Any) -> Case:
    defaults = () if "--dataset" in arguments else ("--dataset", "digits")
    return Case("study", text, (*defaults, *arguments), **more)


def _results(text: str, **changes: Any) -> Case:
    bad = {key: value for key, value in row(**changes).items() if value is not REMOVED}
    lines = f"{json.dumps(bad)}\n{json.dumps(row())}\n"
    return _study(text, "--page-only", files={"study/results.jsonl": lines})


STUDY = {
    "unknown variant": _study("or nin15", "--variants", "nin51"),
    "unknown recipe": _study("did you mean modern", "--recipes", "modem"),
    "no seeds": _study("--seeds must be a whole number >= 1", "--seeds", "0"),
    "image too small": _study("too small", "--variants", "nin", "--image-size", "20"),
    "epochs zero": _study("--epochs must be", "--epochs", "0"),
    "limit zero": _study("--limit-train must be", "--limit-train", "0"),
    "nothing to show": _study("holds no results", "--page-only"),
    "unknown data set": _study("did you mean fashion_mnist", "--dataset", "fashionmnist"),
    "ablation of another": _study("--ablation must be one of", "--ablation", "nin15"),
    "change without a value": _study("is not of the form field=value", "--changes", "lr"),
    "change of nothing": _study("unknown field of a recipe", "--changes", "colour=3"),
    "change to a word": _study("holds no number", "--changes", "lr=fast"),
    "out is a file": _study("is a file", "--out", "file", files={"file": "mine"}),
    "results torn in the middle": _study(
        "line 1 is no result", "--page-only", files={"study/results.jsonl": "{\n{}\n"}
    ),
    "results a list": _study(
        "line 1 is no result", "--page-only", files={"study/results.jsonl": "[]\n[]\n"}
    ),
    "results outside": _results("the cell cannot be '../../x'", cell="../../x"),
    "results of another cell": _results("the cell cannot be", cell="nin-d2l-seed0"),
    "results of an outside recipe": _results(
        "there is no recipe '../..'", recipe="../..", cell="nin-../..-seed0"
    ),
    "results that are better than all": _results("test_accuracy cannot be 2", test_accuracy=2),
    "results NaN": _results("test_accuracy cannot be nan", test_accuracy=float("nan")),
    "results without a size": _results("image_size cannot be None", image_size=REMOVED),
    "results with a short curve": _results("curve", train_loss=[1.0]),
    "results of versions in a list": _results("versions cannot be", versions=["jax"]),
}

PREPARE = {
    "nothing given": Case("prepare_tfds", "missing --out"),
    "unknown data set": Case(
        "prepare_tfds", "did you mean digits", ("--out", "x", "--dataset", "digit")
    ),
    "data folder missing": Case(
        "prepare_tfds",
        "does not exist",
        ("--out", "x", "--dataset", "mnist", "--data-dir", "none"),
    ),
    "out is a file": Case(
        "prepare_tfds", "cannot write", ("--out", "x", "--dataset", "digits"), {"x": "mine"}
    ),
    "unknown option": Case("prepare_tfds", "unknown option", ("--out", "x", "--format", "zip")),
}


def _tiny(**fields: Any) -> Variant:
    return Variant(**({"name": "tiny", "stages": (Stage(8, 3, padding=1),)} | fields))


def _model(**options: Any) -> Any:
    return nin_jax.create_model(_tiny(), image_size=16, **options)


def _fit(**fields: Any) -> dict[str, Any]:
    options: dict[str, Any] = {"dataset": "digits"}
    return fit(TrainConfig(**(options | fields)))


def _fails(text: str, call: Callable[[], object], **files: Content) -> Case:
    """A call; in the name of a file, "_" stands for a dot."""
    named = {name.replace("_", "."): content for name, content in files.items()}
    return Case(call, text, files=named)


def wrong(value: object) -> Any:
    """A value that a type checker would refuse."""
    return value


API = {
    "create_model: unknown variant": _fails("or nin15", lambda: nin_jax.create_model("nin51")),
    "create_model: a number": _fails(
        "variant must be a name, a file or a Variant, got 3",
        lambda: nin_jax.create_model(wrong(3)),
    ),
    "create_model: no channels": _fails(
        "in_channels must be a whole number >= 1", lambda: nin_jax.create_model(in_channels=0)
    ),
    "create_model: half a channel": _fails(
        "got 1.5", lambda: nin_jax.create_model(in_channels=wrong(1.5))
    ),
    "create_model: no classes": _fails(
        "num_classes must be", lambda: nin_jax.create_model(num_classes=0)
    ),
    "create_model: image size zero": _fails(
        "image size must be", lambda: nin_jax.create_model(image_size=0)
    ),
    "create_model: three sides": _fails(
        "image size must be", lambda: nin_jax.create_model(image_size=wrong((96, 96, 3)))
    ),
    "create_model: image size a text": _fails(
        "got '224'", lambda: nin_jax.create_model(image_size=wrong("224"))
    ),
    "create_model: too small": _fails(
        "smallest size that works is 67x67", lambda: nin_jax.create_model(image_size=66)
    ),
    "create_model: seed negative": _fails("seed must be", lambda: nin_jax.create_model(seed=-1)),
    "create_model: seed true": _fails("seed must be", lambda: nin_jax.create_model(seed=True)),
    "create_model: unknown initialisation": _fails(
        "unknown initialisation 'zeros'", lambda: nin_jax.create_model(init=wrong("zeros"))
    ),
    "create_model: dtype of whole numbers": _fails(
        "dtype must be a floating type", lambda: nin_jax.create_model(dtype="int8")
    ),
    "create_model: unknown dtype": _fails(
        "dtype must be a floating type", lambda: nin_jax.create_model(param_dtype="float33")
    ),
    "create_model: larger than any machine": _fails(
        "parameters, more than",
        lambda: nin_jax.create_model(_tiny(stages=(Stage(60_000, 300),)), image_size=500),
    ),
    "model: no batch": _fails("images must be [B, H, W, 1]", lambda: _model()(jnp.zeros((16, 16)))),
    "model: other channels": _fails(
        "images must be [B, H, W, 1]", lambda: _model()(jnp.zeros((1, 16, 16, 3)))
    ),
    "model: image too small": _fails(
        "too small for tiny", lambda: _model()(jnp.zeros((1, 2, 2, 1)))
    ),
    "get_variant: nothing": _fails("got None", lambda: nin_jax.get_variant(wrong(None))),
    "get_variant: a NUL": _fails("null", lambda: nin_jax.get_variant("a\0.toml")),
    "Stage: channels zero": _fails("channels must be", lambda: Stage(0, 3)),
    "Stage: kernel a text": _fails("kernel must be", lambda: Stage(8, wrong("3"))),
    "Stage: kernel huge": _fails("kernel must be", lambda: Stage(8, 1 << 99_999)),
    "Stage: stride zero": _fails("stride must be", lambda: Stage(8, 3, stride=0)),
    "Stage: padding negative": _fails("padding must be", lambda: Stage(8, 3, padding=-1)),
    "Stage: mlp of lists": _fails("mlp must be", lambda: Stage(8, 3, mlp=wrong([[1, 0]]))),
    "Stage: pool a number": _fails("pool must be", lambda: Stage(8, 3, pool=wrong(1))),
    "Variant: no name": _fails("name must be", lambda: _tiny(name="")),
    "Variant: a long name": _fails("name must be", lambda: _tiny(name="x" * 101)),
    "Variant: stages a list": _fails("stages must be a tuple", lambda: _tiny(stages=[])),
    "Variant: a stage without channels": _fails(
        "needs channels", lambda: _tiny(stages=(Stage(None, 3),))
    ),
    "Variant: a head with a pool": _fails("the head must be", lambda: _tiny(head=Stage(None, 3))),
    "Variant: unknown classifier": _fails("classifier must be", lambda: _tiny(classifier="max")),
    "Variant: dropout one": _fails("dropout must be", lambda: _tiny(dropout=1)),
    "Variant: dropout false": _fails("dropout must be", lambda: _tiny(dropout=False)),
    "Variant: rate zero": _fails("published_lr must be", lambda: _tiny(published_lr=0)),
    "Variant: too many stages": _fails(
        "convolutions are more than", lambda: _tiny(stages=(Stage(1, 1),) * 10**6)
    ),
    "variant_from_dict: a list": _fails(
        "must be a table of fields", lambda: variant_from_dict(wrong([1]))
    ),
    "variant_from_dict: no stages": _fails(
        "name must be", lambda: variant_from_dict({"name": None, "stages": []})
    ),
    "trace: no classes": _fails("num_classes must be", lambda: trace(_tiny(), 1, 0, 16)),
    "summary: too small": _fails("too small", lambda: nin_jax.summary("nin", image_size=5)),
    "describe: unknown variant": _fails("unknown variant", lambda: nin_jax.describe("x")),
    "account: batch size zero": _fails(
        "batch size must be", lambda: nin_jax.account("nin", batch_size=0, xla=False)
    ),
    "account: unknown precision": _fails(
        "unknown precision 'int8'", lambda: nin_jax.account("nin", precision=wrong("int8"))
    ),
    "account: unknown recipe": _fails("did you mean", lambda: nin_jax.account(recipe="modem")),
    "account: no channels": _fails(
        "in_channels must be", lambda: nin_jax.account(in_channels=0, xla=False)
    ),
    "from_torch: a list": _fails(
        "a state dict maps names", lambda: convert.from_torch(wrong([1]), "nin")
    ),
    "from_torch: empty": _fails("missing net.0.0.weight", lambda: convert.from_torch({}, "nin")),
    "from_torch: texts": _fails("holds <U1", lambda: convert.from_torch({"a": "x"}, "nin")),
    "from_torch: nothing": _fails("holds object", lambda: convert.from_torch({"a": None}, "nin")),
    "from_torch: ragged lists": _fails(
        "is no plain array", lambda: convert.from_torch({"a": [[1.0], [1.0, 2.0]]}, "nin")
    ),
    "from_torch: keys that are numbers": _fails(
        "unexpected 3", lambda: convert.from_torch({wrong(3): np.ones(1)}, "nin")
    ),
    "load_state_dict: misshaped": _fails(
        "net.0.0.bias has shape [1], not [8]",
        lambda: convert.load_state_dict(_model(), {"net.0.0.bias": np.ones(1)}),
    ),
    "load_safetensors: missing": _fails("No such file", lambda: convert.load_safetensors("none")),
    "load_safetensors: no path": _fails(
        "cannot read weights None", lambda: convert.load_safetensors(wrong(None))
    ),
    "load_safetensors: text": _fails(WHOLE, lambda: convert.load_safetensors("a.b"), a_b="text"),
    "Predictor: no model": _fails("must be a NiN", lambda: nin_jax.Predictor(wrong("nin"))),
    "Predictor: batch size zero": _fails(
        "batch_size must be", lambda: nin_jax.Predictor(_model(), batch_size=0)
    ),
    "Predictor: batch size true": _fails(
        "batch_size must be", lambda: nin_jax.Predictor(_model(), batch_size=True)
    ),
    "Predictor: unknown precision": _fails(
        "precision must be", lambda: nin_jax.Predictor(_model(), precision=wrong("float16"))
    ),
    "Predictor: a list": _fails(
        "images must be an array", lambda: nin_jax.Predictor(_model())(wrong([[0]]))
    ),
    "Predictor: one image": _fails(
        "images must be [N, H, W, 1]", lambda: nin_jax.Predictor(_model())(np.zeros((16, 16, 1)))
    ),
    "Predictor: whole numbers": _fails(
        "must be uint8 or floating",
        lambda: nin_jax.Predictor(_model())(np.zeros((1, 16, 16, 1), np.int32)),
    ),
    "Predictor: another size": _fails(
        "float images must be 16x16",
        lambda: nin_jax.Predictor(_model())(np.zeros((1, 8, 8, 1), np.float32)),
    ),
    "class_maps: no model": _fails(
        "must be a NiN", lambda: nin_jax.class_maps(wrong(None), jnp.zeros((1, 16, 16, 1)))
    ),
    "class_maps: linear": _fails(
        "has no class maps",
        lambda: nin_jax.class_maps(
            nin_jax.create_model(_tiny(classifier="linear"), image_size=16),
            jnp.zeros((1, 16, 16, 1)),
        ),
    ),
    "class_maps: one image": _fails(
        "images must be", lambda: nin_jax.class_maps(_model(), jnp.zeros((16, 16, 1)))
    ),
    "load_dataset: unknown": _fails("did you mean mnist", lambda: load_dataset("minst")),
    "load_dataset: a number": _fails("is a text, got 3", lambda: load_dataset(wrong(3))),
    "load_dataset: folder a number": _fails(
        "is a path, got 3", lambda: load_dataset("mnist", wrong(3))
    ),
    "load_dataset: folder with a NUL": _fails("is a path", lambda: load_dataset("mnist", "a\0b")),
    "load_dataset: folder missing": _fails("does not exist", lambda: load_dataset("mnist", "none")),
    "load_dataset: prepared set with arguments": _fails(
        "is not a tensorflow-datasets name", lambda: load_dataset("tfds:mnist(x=1)")
    ),
    "fit: unknown variant": _fails("or nin15", lambda: _fit(variant="nin51")),
    "fit: unknown recipe": _fails("did you mean", lambda: _fit(recipe="modem")),
    "fit: epochs zero": _fails("--epochs must be", lambda: _fit(epochs=0)),
    "fit: epochs a text": _fails("--epochs must be", lambda: _fit(epochs="3")),
    "fit: rate a text": _fails("--lr must be", lambda: _fit(lr="0.1")),
    "fit: batch size true": _fails("--batch-size must be", lambda: _fit(batch_size=True)),
    "fit: image size a text": _fails("image size must be", lambda: _fit(image_size="16")),
    "fit: seed a fraction": _fails("--seed must be", lambda: _fit(seed=0.5)),
    "fit: data set a number": _fails("is a text, got 3", lambda: _fit(dataset=3)),
    "fit: resume of nothing": _fails("needs --workdir", lambda: _fit(resume=True)),
    "read_metrics: missing": _fails("No such", lambda: metrics.read_metrics(Path("none"))),
    "read_metrics: not JSON": _fails(
        "m.jsonl, line 1", lambda: metrics.read_metrics(Path("m.jsonl")), m_jsonl="x\n"
    ),
    "read_metrics: a list": _fails(
        "m.jsonl, line 1", lambda: metrics.read_metrics(Path("m.jsonl")), m_jsonl="[1]\n"
    ),
    "read_metrics: no step": _fails(
        "with a kind and a step",
        lambda: metrics.read_metrics(Path("m.jsonl")),
        m_jsonl='{"kind": "step"}\n',
    ),
    "read_metrics: a step of text": _fails(
        "with a kind and a step",
        lambda: metrics.read_metrics(Path("m.jsonl")),
        m_jsonl='{"kind": "step", "step": "1"}\n',
    ),
    "read_metrics: binary": _fails(
        "not a UTF-8 text file", lambda: metrics.read_metrics(Path("m.jsonl")), m_jsonl=b"\xff"
    ),
    "read_results: a folder": _fails("a directory", lambda: grid.read_results(Path("."))),
    "read_json: a list": _fails(
        "not an object", lambda: record.read_json(Path("a.json")), a_json="[]"
    ),
    "load_model: no run": _fails("holds no run", lambda: record.load_model("none")),
    "class_names: no run": _fails("holds no run", lambda: record.class_names(Path("none"))),
    "pictures.read: missing": _fails("No such", lambda: pictures.read(Path("none"), 1, (4, 4))),
    "pictures.read: a folder": _fails(
        "Is a directory", lambda: pictures.read(Path("."), 1, (4, 4))
    ),
    "pictures.read: text": _fails(
        "no picture format", lambda: pictures.read(Path("a.png"), 1, (4, 4)), a_png="text"
    ),
    "pictures.read: truncated": _fails(
        "cannot read a.png", lambda: pictures.read(Path("a.png"), 1, (4, 4)), a_png=picture()[:40]
    ),
    "pictures.read: PostScript, which another program would run": _fails(
        "no picture format",
        lambda: pictures.read(Path("a.png"), 1, (4, 4)),
        a_png="%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
    ),
}

SCRIPTS = {
    "train": TRAIN,
    "evaluate": EVALUATE,
    "predict": PREDICT,
    "explain": EXPLAIN,
    "convert": CONVERT,
    "report": REPORT,
    "bench": BENCH,
    "study": STUDY,
    "prepare_tfds": PREPARE,
}
CASES: dict[str, Case] = {
    f"{group}: {name}": case
    for group, cases in (*SCRIPTS.items(), ("API", API))
    for name, case in cases.items()
}
