"""Bad options of scripts/study.py and scripts/prepare_tfds.py, and bad results files."""

import functools
import json
from typing import Any

from tests.bad_inputs.case import REMOVED, Case, command, on_digits, picture
from tests.support.study_results import row

_study = functools.partial(on_digits, "study")
_prepare = functools.partial(command, "prepare_tfds")


def _results(text: str, **changes: Any) -> Case:
    bad = {key: value for key, value in row(**changes).items() if value is not REMOVED}
    lines = f"{json.dumps(bad)}\n{json.dumps(row())}\n"
    return _study(text, "--page-only", files={"study/results.jsonl": lines})


def _story(text: str, **changes: Any) -> Case:
    story = {"commands": [], "class_names": [], "networks": {}, "gallery": []} | changes
    files = {"study/results.jsonl": json.dumps(row()) + "\n"}
    files |= {"study/study.json": json.dumps(story)}
    return _study(text, "--page-only", files=files)


STUDY = {
    "story of a picture outside": _story(
        "gallery.0.file must be the name of a file",
        gallery=[{"file": "../../x.png", "caption": "mine"}],
    ),
    "story of costs in words": _story(
        "networks.nin d2l.macs must be a number, got 'two'", networks={"nin d2l": {"macs": "two"}}
    ),
    "story of commands that are none": _story("commands.0 must be a list, got 3", commands=[3]),
    "story without classes": _story("class_names must be a list, got None", class_names=None),
    "unknown variant": _study("or nin15", "--variants nin51"),
    "unknown recipe": _study("did you mean modern", "--recipes modem"),
    "no seeds": _study("--seeds must be a whole number >= 1", "--seeds 0"),
    "image too small": _study("too small", "--variants nin --image-size 20"),
    "epochs zero": _study("--epochs must be", "--epochs 0"),
    "limit zero": _study("--limit-train must be", "--limit-train 0"),
    "nothing to show": _study("holds no results", "--page-only"),
    "unknown data set": _study("did you mean fashion_mnist", "--dataset fashionmnist"),
    "ablation of another": _study("--ablation must be one of", "--ablation nin15"),
    "two of one name": _study("has the same name twice", "--variants nin nin"),
    "quick and epochs": _study("--epochs does nothing with --quick", "--quick --epochs 3"),
    "quick and seeds": _study("--seeds does nothing with --quick", "--quick --seeds 2"),
    "holdout zero": _study("--holdout must be", "--holdout 0"),
    "gallery of nothing": _study("none is not a run", "--gallery none"),
    "gallery for the page only": _study(
        "--gallery does nothing with --page-only", "--page-only --gallery run"
    ),
    "gallery of other classes": _study(
        "--gallery run has num_classes 10, and folder:set has 2",
        "--dataset folder:set --variants nin --image-size 67 --gallery run",
        files={f"set/{split}/{c}/p.png": picture for split in ("train", "test") for c in "ab"},
        edits={},
    ),
    "change without a value": _study("is not of the form field=value", "--changes lr"),
    "change of nothing": _study("unknown field of a recipe", "--changes colour=3"),
    "change of an option of the study": _study(
        "unknown field of a recipe 'epochs'", "--changes epochs=3"
    ),
    "change given twice": _study("gives lr twice", "--changes lr=0.1,lr=0.2"),
    "change to nothing": _study("needs a number", "--changes lr=null"),
    "no recipes": _study("--recipes needs the name of one or more", "--recipes"),
    "out too long": _study("File name too long", "--out", "x" * 300),
    "change to an unknown name": _study(
        "optimizer must be one of sgd, adam", "--changes optimizer=lion"
    ),
    "change to a word": _study("needs a number", "--changes lr=fast"),
    "out is a file": _study("is a file", "--out file", files={"file": "mine"}),
    "results torn in the middle": _study(
        "line 1 is not a result", "--page-only", files={"study/results.jsonl": "{\n{}\n"}
    ),
    "results a list": _study(
        "line 1 is not a result", "--page-only", files={"study/results.jsonl": "[]\n[]\n"}
    ),
    "results outside": _results("the cell cannot be '../../x'", cell="../../x"),
    "results of another cell": _results("the cell cannot be", cell="nin-d2l-seed0"),
    "results of an outside recipe": _results(
        "there is no recipe '../..'", recipe="../..", cell="nin-../..-seed0"
    ),
    "results that are better than all": _results(
        "test_accuracy must be <= 1, got 2", test_accuracy=2
    ),
    "results NaN": _results(
        "test_accuracy must be a finite number, got nan", test_accuracy=float("nan")
    ),
    "results without a size": _results("image_size is missing", image_size=REMOVED),
    "results with a short curve": _results("curve", train_loss=[1.0]),
    "results of no sizes": _results(
        "test_accuracy_by_size must have at least 1 item", test_accuracy_by_size={}
    ),
    "results of a size in words": _results(
        "test_accuracy_by_size.../67", test_accuracy_by_size={"../67": 0.5}
    ),
    "results of a size better than all": _results(
        "test_accuracy_by_size.67 must be <= 1", test_accuracy_by_size={"67": 2}
    ),
    "results of images by size in words": _results(
        "test_images_by_size must be a whole number", test_images_by_size="all"
    ),
    "results without dead classes": _results("dead_classes is missing", dead_classes=REMOVED),
    "results of a dead class in words": _results(
        "dead_classes.0 must be a whole number", dead_classes=["bag"]
    ),
    "results of a dead class too many": _results("a dead class is none", dead_classes=[3]),
    "results without a rate": _results("settings.lr must be a number", settings={"lr": "0.1"}),
    "results of two budgets": _results(
        "line 2 differs from others of recipe modern",
        cell="nin-modern-seed1",
        seed=1,
        test_images=9,
    ),
    "results of versions in a list": _results("versions must be an object", versions=["jax"]),
}

PREPARE = {
    "nothing given": _prepare("missing --out"),
    "unknown data set": _prepare("did you mean digits", "--out x --dataset digit"),
    "data folder missing": _prepare("does not exist", "--out x --dataset mnist --data-dir none"),
    "out is a file": _prepare("cannot write", "--out x --dataset digits", files={"x": "mine"}),
    "unknown option": _prepare("unknown option", "--out x --format zip"),
}
