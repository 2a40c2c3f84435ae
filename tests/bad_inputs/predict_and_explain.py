"""Bad pictures and options of scripts/predict.py and scripts/explain.py."""

import functools
from typing import Any

from tests.bad_inputs.case import RUN, Case, card, command, other_weights, picture


def _picture(script: str, text: str, *arguments: str, **more: Any) -> Case:
    files = {"p.png": picture} | more.pop("files", {})
    return command(script, text, *arguments, files=files, **more)


_predict = functools.partial(_picture, "predict")
_explain = functools.partial(_picture, "explain")

PREDICT = {
    "no picture": _predict("give one or more pictures", RUN),
    "neither a run nor weights": _predict("give one of --workdir", "p.png"),
    "unknown weights": _predict(
        "did you mean nin15", "p.png --pretrained nin51", files={"weights/nin15-digits.json": card}
    ),
    "folder without a run": _predict("is not a run", "p.png --workdir ."),
    "picture missing": _predict("there is no nowhere.png", "nowhere.png", RUN),
    "picture's name too long": _predict("there is no xxx", "x" * 300, RUN),
    "no images in a folder": _predict("no images in 'empty'", "empty", RUN, files={"empty/": ""}),
    "top zero": _predict("--top must be", "p.png", RUN, "--top 0", edits={}),
    "batch size zero": _predict("batch_size must be", "p.png", RUN, "--batch-size 0", edits={}),
    "unknown precision": _predict("--precision must be", "p.png", RUN, "--precision int8"),
    "weights missing": _predict("cannot read weights", "p.png", RUN, "--weights none", edits={}),
    "config of lists": _predict("dataset must be an object", "p.png", RUN, edits={"dataset": []}),
}

EXPLAIN = {
    "pictures and test images": _explain(
        "give pictures or --test-images", "p.png", RUN, "--test-images 3"
    ),
    "no test image": _explain("--test-images must be >= 1", RUN, "--test-images 0"),
    "data of no test images": _explain(
        "--data-dir needs --test-images", "p.png", RUN, "--data-dir ."
    ),
    "no picture": _explain("give one or more pictures", RUN),
    "a run and weights": _explain("give one of --workdir", "p.png", RUN, "--pretrained nin"),
    "folder without a run": _explain("is not a run", "p.png --workdir ."),
    "folder's name too long": _explain("is not a run", "p.png --workdir", "x" * 300),
    "picture missing": _explain("there is no none.png", "none.png", RUN, edits={}),
    "out is a file": _explain("is a file, not a folder", "p.png", RUN, "--out p.png", edits={}),
    "out below a file": _explain("cannot be made", "p.png", RUN, "--out p.png/x", edits={}),
    "weights of another variant": _explain(
        "do not fit", "p.png", RUN, "--weights w", files={"w": other_weights}, edits={}
    ),
    "unknown option": _explain("unknown option", "p.png", RUN, "--maps 3"),
}
