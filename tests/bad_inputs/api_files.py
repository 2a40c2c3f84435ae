"""Bad calls that read weights, data sets, runs or pictures, and bad trainings."""

from pathlib import Path
from typing import Any

import numpy as np

from nin_jax.data import pictures
from nin_jax.data.datasets import load_dataset
from nin_jax.data.streaming import open_dataset
from nin_jax.models import convert
from nin_jax.runs import manifest, writers
from nin_jax.runs.fit import fit
from nin_jax.runs.trained import load_run
from nin_jax.study import grid
from nin_jax.training.config import TrainConfig
from tests.bad_inputs.case import DEEP, WHOLE, Case, Content, fails, picture, safetensors, wrong

WEIGHT = "net.0.0.weight"


def _fit(text: str, **fields: Any) -> Case:
    options: dict[str, Any] = {"dataset": "digits"}
    return fails(text, lambda: fit(TrainConfig(**(options | fields))))


def _metrics(text: str, content: Content) -> Case:
    return fails(text, lambda: writers.read_metrics(Path("m.jsonl")), m_jsonl=content)


def _picture(text: str, content: Content) -> Case:
    return fails(text, lambda: pictures.read(Path("a.png"), 1, (4, 4)), a_png=content)


PREPROCESSING = {
    "no JSON": ("a.b: its preprocessing is damaged: Expecting value", "bgr"),
    "a number": ("a.b: its preprocessing is damaged: not an object", "3"),
    "too deep": ("a.b: its preprocessing is damaged: nested too deeply", DEEP),
    "a key twice": ("the key 'mean' appears twice", '{"mean": [], "mean": [1]}'),
    "a slip": ("a.b, preprocessing, is of another version of nin_jax: 'men'", '{"men": [1]}'),
    "a text": ("a.b, preprocessing, is damaged: mean must be a list, got '1'", '{"mean": "1"}'),
    "not finite": ("scale must be a finite number, got nan", '{"scale": NaN}'),
    "an unknown order": (
        "channel_order must be 'rgb' or 'bgr', got 'grb'",
        '{"channel_order": "grb"}',
    ),
}

FILES = {
    "from_torch: a list": fails(
        "a state dict maps names", lambda: convert.from_torch(wrong([1]), "nin")
    ),
    "from_torch: empty": fails("a known kind: none", lambda: convert.from_torch({}, "nin")),
    "from_torch: texts": fails("holds <U1", lambda: convert.from_torch({WEIGHT: "x"}, "nin")),
    "from_torch: nothing": fails("holds object", lambda: convert.from_torch({WEIGHT: None}, "nin")),
    "from_torch: ragged lists": fails(
        "is not a plain array", lambda: convert.from_torch({WEIGHT: [[1.0], [1.0, 2.0]]}, "nin")
    ),
    "from_torch: keys that are numbers": fails(
        "the first are 3; known are 0.0.weight",
        lambda: convert.from_torch({wrong(3): np.ones(1)}, "nin"),
    ),
    "load_safetensors: missing": fails("No such file", lambda: convert.load_safetensors("none")),
    "load_safetensors: no path": fails(
        "cannot read weights None", lambda: convert.load_safetensors(wrong(None))
    ),
    "load_safetensors: text": fails(WHOLE, lambda: convert.load_safetensors("a.b"), a_b="text"),
    **{
        f"read_preprocessing: {name}": fails(
            text,
            lambda: convert.read_preprocessing("a.b"),
            a_b=safetensors({"__metadata__": {"preprocessing": content}}),
        )
        for name, (text, content) in PREPROCESSING.items()
    },
    "load_dataset: unknown": fails("did you mean mnist", lambda: load_dataset("minst")),
    "load_dataset: a number": fails("got 3", lambda: load_dataset(wrong(3))),
    "load_dataset: folder a number": fails(
        "is a path, got 3", lambda: load_dataset("mnist", wrong(3))
    ),
    "load_dataset: folder with a NUL": fails("is a path", lambda: load_dataset("mnist", "a\0b")),
    "load_dataset: folder missing": fails("does not exist", lambda: load_dataset("mnist", "none")),
    "load_dataset: prepared set with arguments": fails(
        "is not a tensorflow-datasets name", lambda: load_dataset("tfds:mnist(x=1)")
    ),
    "open_dataset: prepared set with arguments": fails(
        "is not a tensorflow-datasets name", lambda: open_dataset("tfds:mnist(x=1)")
    ),
    "open_dataset: image folder missing": fails(
        "image folder 'none' does not exist", lambda: open_dataset("folder:none")
    ),
    "fit: epochs a text": _fit("--epochs must be", epochs="3"),
    "fit: rate a text": _fit("--lr must be", lr="0.1"),
    "fit: batch size true": _fit("--batch-size must be", batch_size=True),
    "fit: image size a text": _fit(
        "--image-size must be a whole number, or a height and a width, got '16'", image_size="16"
    ),
    "fit: seed a fraction": _fit("--seed must be", seed=0.5),
    "fit: data set a number": _fit("--dataset must be a string, got 3", dataset=3),
    "fit: initial weights a number": _fit("--init-from must be", init_from=3),
    "fit: a rate of 1e300": _fit("--lr must be <= 1e+30, got 1e+300", lr=1e300),
    "fit: unknown optimizer": _fit(
        "--optimizer must be 'sgd', 'adam' or 'muon', got 'lion'", optimizer="lion"
    ),
    "fit: unknown precision": _fit(
        "--precision must be 'float32' or 'bfloat16'", precision="float16"
    ),
    "fit: a list of recipes": _fit("--recipe must be a string", recipe=["d2l"]),
    "fit: epochs without end": _fit("steps, more than the 10,000,000", epochs=10**12),
    "fit: steps without end": _fit("--steps 1000000000000 gives 1,000,000,000,", steps=10**12),
    "fit: a workdir's name too long": _fit("cannot make", workdir=Path("x" * 300)),
    "read_metrics: missing": fails("No such", lambda: writers.read_metrics(Path("none"))),
    "read_metrics: not JSON": _metrics("m.jsonl, line 1", "x\n"),
    "read_metrics: a list": _metrics("m.jsonl, line 1", "[1]\n"),
    "read_metrics: no step": _metrics("with a kind and a step", '{"kind": "step"}\n'),
    "read_metrics: a step of text": _metrics(
        "with a kind and a step", '{"kind": "step", "step": "1"}\n'
    ),
    "read_metrics: a step of 80 bits": _metrics(
        "with a kind and a step", f'{{"kind": "step", "step": {2**80}}}\n'
    ),
    "read_metrics: a time of text": _metrics(
        "or its time is not a number", '{"kind": "step", "step": 1, "time": "now"}\n'
    ),
    "read_metrics: binary": _metrics("not a UTF-8 text file", b"\xff"),
    "read_results: a folder": fails("a directory", lambda: grid.read_results(Path("."))),
    "read_json: a list": fails(
        "not an object", lambda: manifest.read_json(Path("a.json")), a_json="[]"
    ),
    "load_run: no run": fails("is not a run", lambda: load_run("none")),
    "read_run: no run": fails("is not a run", lambda: manifest.read_run(Path("none"))),
    "pictures.read: missing": fails("No such", lambda: pictures.read(Path("none"), 1, (4, 4))),
    "pictures.read: a folder": fails("Is a directory", lambda: pictures.read(Path("."), 1, (4, 4))),
    "pictures.read: text": _picture("not an image format", "text"),
    "pictures.read: truncated": _picture("cannot read 'a.png'", picture()[:40]),
    "pictures.read: PostScript, which another program would run": _picture(
        "not an image format", "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    ),
}
