"""Bad options of scripts/report.py and scripts/bench.py."""

import functools

from tests.bad_inputs.case import command

_report = functools.partial(command, "report")
_bench = functools.partial(command, "bench")

REPORT = {
    "unknown option": _report("unknown option", "--layers"),
    "unknown variant": _report("or nin15", "--variant nin51"),
    "variant file missing": _report("cannot read variant file", "--variant none.toml"),
    "variant file broken": _report("a.toml", "--variant a.toml", files={"a.toml": "[[stages]"}),
    "variant name with slashes": _report(
        "without slashes", "--variant v.json", files={"v.json": '{"name": "a/b", "stages": []}'}
    ),
    "image too small": _report("too small for nin", "--image-size 20"),
    "image too small for one": _report("is too small for nin", "--all --image-size 66"),
    "image of a billion": _report("<= 16,384", "--image-size 1000000000"),
    "unknown format": _report("got 'jsno'; did you mean json", "--format jsno"),
    "unknown precision": _report("--precision must be one of", "--precision float16"),
    "unknown recipe": _report("did you mean modern", "--recipe modem"),
    "batch size zero": _report("batch size must be a whole number >= 1, got 0", "--batch-size 0"),
    "batch size a word": _report("--batch-size must be INT", "--batch-size many"),
    "batch size too large": _report(
        "batch size must be at most 2147483647", "--batch-size 100000000000"
    ),
    "no channels": _report("in_channels must be", "--in-channels 0"),
    "no classes": _report("num_classes must be", "--num-classes 0"),
    "a billion classes": _report("parameters, more than", "--num-classes 1000000000"),
    "memory too small": _report("smaller than the parameters alone: 7,968,664", "--memory 5MB"),
    "memory too large": _report("--memory must be less than 2**63", "--memory", "9" * 400),
    "memory a word": _report("--memory must be a size such as 8GiB", "--memory plenty"),
    "memory negative": _report("--memory must be a size", "--memory=-1GB"),
    "memory in parsecs": _report("--memory must be a size", "--memory 5pc"),
    "memory without a prefix": _report("--memory must be a size", "--memory 8ib"),
    "plots into a file": _report("is a file", "--plots file", files={"file": "mine"}),
    "plots below a file": _report("cannot be made", "--plots file/a", files={"file": "mine"}),
    "plots that cannot be made": _report("cannot be made", "--all --plots /proc/none/plots"),
    "derivation as JSON": _report("--explain writes Markdown", "--explain --format json"),
    "derivation of training": _report("leave --train out", "--explain --train"),
    "derivation of memory": _report("leave --memory out", "--explain --memory 8GiB"),
}

BENCH = {
    "unknown benchmark": _bench("must be one of", "speed"),
    "unknown variant": _bench("or nin15", "--variants nin51"),
    "variant file torn": _bench("a.toml", "--variants a.toml", files={"a.toml": "["}),
    "image size zero": _bench("--image-size must be", "--image-size 0"),
    "image too small": _bench("too small", "train --variants nin --image-size 20"),
    "image too small for a default": _bench("too small", "sweep --image-size 20"),
    "a billion channels": _bench("parameters", "--variants nin --in-channels 1000000000"),
    "image size a word": _bench("--image-size must be INT", "--image-size big"),
    "no channels": _bench("--in-channels must be", "--in-channels 0"),
    "no rounds": _bench("--rounds must be", "--rounds 0"),
    "workers negative": _bench("--workers must be a whole number >= 0", "--workers -1"),
    "batch size zero": _bench("--batch-sizes must be", "--batch-sizes 0"),
    "unknown format": _bench("--format must be one of", "--format xml"),
    "unknown precision": _bench("--precision must be one of", "--precision int8"),
    "unknown option": _bench("unknown option", "accuracy --target 0.9"),
    "target in percent": _bench("--targets must be numbers in (0, 1)", "--targets 0.85 90"),
    "target zero": _bench("--targets must be numbers in (0, 1)", "--targets 0"),
    "no target": _bench("--targets must be numbers in (0, 1)", "--targets"),
    "target not a number": _bench("--targets must be numbers in (0, 1)", "--targets nan"),
    "cap below a second": _bench("--cap-seconds must be a finite", "--cap-seconds 0.5"),
    "no cap": _bench("--cap-seconds must be a finite number >= 1", "--cap-seconds inf"),
    "no epochs": _bench("--epochs must be a whole number >= 1", "accuracy --epochs 0"),
    "data set missing": _bench("no Fashion-MNIST files", "accuracy --data-dir ."),
    "unknown data set": _bench("fashion_mnist", "accuracy --dataset fashion"),
    "unknown variant's accuracy": _bench("or nin15", "accuracy --variants nin51"),
    "image too small to train": _bench("too small", "accuracy --dataset digits --image-size 20"),
    "out is a file": _bench("is a file", "--out file", files={"file": "mine"}),
}
