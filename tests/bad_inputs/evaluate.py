"""Bad runs and weights, as scripts/evaluate.py reads them."""

import functools
import pickle

from tests.bad_inputs.case import (
    DEEP,
    REMOVED,
    RUN,
    WHOLE,
    Case,
    Content,
    card,
    command,
    fitting_weights,
    on_run,
    other_weights,
    safetensors,
    saved,
    tensor,
)

_evaluate = functools.partial(command, "evaluate")
_run = functools.partial(on_run, "evaluate")


def _weights(text: str, content: Content) -> Case:
    return _run(text, "--weights bad", files={"bad": content})


def _config(text: str, **edits: object) -> Case:
    """A run's config.json with other values; in a name here, "__" stands for a dot."""
    dotted = {name.replace("__", "."): value for name, value in edits.items()}
    return _run(text, edits=dotted)


def _config_file(text: str, content: Content) -> Case:
    return _run(text, files={"run/config.json": content})


def _shipped(text: str, *arguments: str, **files: Content) -> Case:
    """With nin15's weights on the digits in place of those that ship."""
    contents = {"json": card(), "safetensors": b"others"} | files
    named = {f"weights/nin15-digits.{kind}": content for kind, content in contents.items()}
    return _evaluate(text, *arguments or ("--pretrained nin15",), files=named)


EVALUATE = {
    "neither a run nor weights": Case("evaluate", "give one of --workdir, the folder of a run"),
    "a run and weights": _shipped("give one of --workdir", RUN, "--pretrained nin15"),
    "unknown weights": _shipped("'nin51': did you mean nin15", "--pretrained nin51"),
    "weights of another data set": _shipped(
        "did you mean nin15-digits", "--pretrained nin15-digit"
    ),
    "weights outside": _shipped("unknown pretrained weights", "--pretrained ../nin15-digits"),
    "shipped weights altered": _shipped("damaged: its SHA-256 is not the one in its card"),
    "a card and others' weights": _shipped(
        "--weights goes with --workdir", "--pretrained nin15 --weights w"
    ),
    "a card that is no JSON": _shipped("nin15-digits.json is damaged", json="{"),
    "a card of a text": _shipped(
        "test_accuracy must be a number, got 'good'", json=card(test_accuracy="good")
    ),
    "a card with a field more": _shipped("of another version of nin_jax", json=card(more=1)),
    "a card of another name": _shipped("its name or its class names", json=card(variant="nin")),
    "a card with a class name less": _shipped("its class names", json=card(class_names=["a"])),
    "export of a network of one's own": _run("tiny is not a built-in variant", "--export x"),
    "out is a file": _run("--out x is a file", "--out x", files={"x": ""}),
    "out a URL": _run("gs://b/c is a URL", "--out gs://b/c"),
    "best and a checkpoint": _run("give one of --checkpoint and --best", "--best --checkpoint 1"),
    "best of shipped weights": _evaluate("--best goes with --workdir", "--pretrained nin15 --best"),
    "test without holdout": _run("--test needs a run with --holdout", "--test"),
    "a checkpoint of none": _run("has no checkpoint of step 3: it has none", "--checkpoint 3"),
    "folder missing": _evaluate("none is not a run", "--workdir none"),
    "folder empty": _evaluate("is not a run", "--workdir x", files={"x/": ""}),
    "folder a file": _evaluate("is not a run", "--workdir x", files={"x": ""}),
    "folder's name too long": _evaluate("is not a run", "--workdir", "x" * 300),
    "unknown device": _evaluate("--device must be one of", RUN, "--device tpu"),
    "no weights": _run("the run has not finished an epoch", files={"run/model.safetensors": None}),
    "weights missing": _run("cannot read weights none: No such", "--weights none"),
    "weights a folder": _run("Is a directory", "--weights x", files={"x/": ""}),
    "weights a pipe": _run("not a file", "--weights x", files={"x|": ""}),
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
        WHOLE, safetensors({"a": tensor("F32", [1], 0, 4), "b": tensor("F32", [1], 0, 4)}, b"1234")
    ),
    "weights with a hole": _weights(
        WHOLE, safetensors({"a": tensor("F32", [1], 4, 8)}, b"12345678")
    ),
    "weights nested too deep": _weights(WHOLE, safetensors(b'{"a":' * 5000)),
    "weights of nothing, but long": _weights(
        "the weights do not fit tiny",
        safetensors({"net.0.0.bias": tensor("F32", [0, 2**62], 0, 0)}),
    ),
    "weights without any": _weights("a known kind: none; known are", safetensors({})),
    "weights with nothing but a counter of batches": _weights(
        "the first are net.1.num_batches_tracked; known are",
        safetensors({"net.1.num_batches_tracked": tensor("I64", [1], 0, 8)}, b"12345678"),
    ),
    "weights of PyTorch": _weights(
        "it is a PyTorch file: convert it with scripts/convert.py",
        saved(lambda torch: {"a": torch.ones(1)}),
    ),
    "weights with a name of lines": _weights(
        "the first are 'a\\nb'", safetensors({"a\nb": tensor("F32", [1], 0, 4)}, b"1234")
    ),
    "weights of another variant": _weights(
        "net.0.0.weight has shape [96, 1, 11, 11], not [8, 1, 3, 3]", other_weights
    ),
    "weights of another preprocessing": _run(
        "run/model.safetensors is for another preprocessing than run: mean 0.5; none",
        files={
            "run/model.safetensors": lambda: fitting_weights({"preprocessing": '{"mean": [0.5]}'})
        },
    ),
    "config not JSON": _config_file("config.json", "{"),
    "config a list": _config_file("damaged: not an object", "[]"),
    "config too deep": _config_file("damaged: nested too deeply", DEEP),
    "config binary": _config_file("not a UTF-8 text file", b"\xff"),
    "config with a key less": _config("variant is missing", variant=REMOVED),
    "config with a field more": _config("another version", recipe__flavour="sweet"),
    "config with a field less": _config("of another version of nin_jax: 'lr'", recipe__lr=REMOVED),
    "config a text": _config("config must be an object, got 'x'", config="x"),
    "config variant a number": _config("variant must be an object, got 3", variant=3),
    "config variant with slashes": _config("without slashes", variant__name="../x"),
    "config variant of a huge kernel": _config(
        "kernel must be", variant__stages=[{"channels": 8, "kernel": 10**9}]
    ),
    "config image size of a billion": _config("<= 16,384", recipe__image_size=10**9),
    "config image size a text": _config("image_size", recipe__image_size="16"),
    "config rate NaN": _config("lr must be a finite number", recipe__lr=float("nan")),
    "config rate a word": _config("lr must be a number, got 'fast'", recipe__lr="fast"),
    "config batch size zero": _config("batch_size must be >= 1", recipe__batch_size=0),
    "config precision unknown": _config(
        "precision must be 'float32' or 'bfloat16'", config__precision="int8"
    ),
    "config seed a list": _config("seed must be a whole number, got [0]", config__seed=[0]),
    "config workdir with a NUL": _config("workdir must be a path", config__workdir="a\0b"),
    "config data set outside": _config("unknown dataset '../x'", config__dataset="../x"),
    "config of other data": _config("the data differ", dataset__checksum="0" * 64),
    "config preprocessing a text": _config("preprocessing must be", preprocessing="bgr"),
    "config preprocessing of a slip": _config(
        "of another version of nin_jax: 'means'", preprocessing={"means": [0.5]}
    ),
    "config preprocessing by zero": _config(
        "std.0 must be >= 0.000001, got 0", preprocessing={"std": [0]}
    ),
    "config preprocessing of other channels": _config(
        "is damaged: preprocessing: mean has 3 values for 1 channel",
        preprocessing={"mean": [0.4, 0.5, 0.6]},
    ),
    "config preprocessing in BGR": _config(
        "BGR needs 3 channels, the images have 1", preprocessing={"channel_order": "bgr"}
    ),
    "config without a checksum": _config("dataset.checksum is missing", dataset__checksum=REMOVED),
    "config classes no list": _config("class_names must be", dataset__class_names="abc"),
    "config classes of lines": _config(
        "class_names.0 must be printable", dataset__class_names=["a\nb"]
    ),
    "config more names than classes": _config("num_classes cannot be 3", num_classes=3),
    "config a billion classes": _config("parameters, more than", num_classes=10**9),
    "config classes a fraction": _config(
        "num_classes must be a whole number, got 10.5", num_classes=10.5
    ),
    "config image shape short": _config("image_shape.1 is missing", dataset__image_shape=[8]),
    "config image shape negative": _config(
        "image_shape.2 must be >= 1", dataset__image_shape=[8, 8, -1]
    ),
    "config channels of a billion": _config(
        "parameters, more than", dataset__image_shape=[8, 8, 10**9]
    ),
}

_export = functools.partial(on_run, "export")
EXPORT = {
    "neither a run nor weights": Case("export", "give one of --workdir"),
    "out exists": _export("a exists already", "--out a", files={"a": ""}),
    "out in no folder": _export("there is no folder b", "--out b/a"),
    "images of another type": _export("--images must be", "--out a --images int8"),
}

_compare = functools.partial(command, "compare", edits={})
COMPARE = {
    "no run": Case("compare", "give one or more folders of runs"),
    "folder without a run": Case("compare", "is not a run", (".",)),
    "a figure of an unknown kind": _compare(
        "--out must end in .png, .pdf or .svg", "run --out a.txt"
    ),
    "a figure in no folder": _compare("there is no folder b", "run --out b/a.png"),
    "a run without an epoch": _compare("cannot read", "run"),
}
