"""Bad options of scripts/train.py."""

import functools

from tests.bad_inputs.case import (
    WHOLE,
    Case,
    Content,
    card,
    on_digits,
    other_weights,
    picture,
    safetensors,
    tensor,
)
from tests.conftest import TINY_TOML

_train = functools.partial(on_digits, "train")


def _folder(text: str, **changes: Content) -> Case:
    """An image folder with changed files; "__" stands for a slash, "_" for a dot."""
    files: dict[str, Content] = {"set/train/a/1.png": picture, "set/test/a/1.png": picture}
    files |= {name.replace("__", "/").replace("_", "."): c for name, c in changes.items()}
    files = {name: content for name, content in files.items() if content is not None}
    return _train(text, "--dataset folder:set", files=files)


def _from(text: str, source: str, **files: Content) -> Case:
    """Initial weights; "__" stands for a slash, "_" for a dot."""
    named = {name.replace("__", "/").replace("_", "."): c for name, c in files.items()}
    return _train(text, "--image-size 96 --init-from", source, files=named)


TRAIN = {
    "initial weights missing": _from("cannot read weights none: No such file", "none"),
    "initial weights damaged": _from(WHOLE, "w", w=lambda: other_weights()[:10_000]),
    "initial weights a pickle": _from(WHOLE, "w", w=b"\x80\x04N."),
    "initial weights of Caffe": _from(
        "it is a Caffe file: convert it with scripts/convert.py",
        "a.caffemodel",
        a_caffemodel=b"\x12\x00" * 50,
    ),
    "initial weights of another network": _from(
        "the weights do not fit nin (8 keys): missing net.0.4.weight", "w", w=other_weights
    ),
    "initial weights of whole numbers": _from(
        "'net.0.0.bias' holds int64; float16,",
        "w",
        w=safetensors({"net.0.0.bias": tensor("I64", [1], 0, 8)}, b"12345678"),
    ),
    "initial weights of eight bits": _from(
        "'net.0.0.bias' holds F8_E4M3; float16,",
        "w",
        w=safetensors({"net.0.0.bias": tensor("F8_E4M3", [1], 0, 1)}, b"1"),
    ),
    "initial weights of no run": _from("x is not a run", "x", x__y=""),
    "initial weights of no name": _from(
        "unknown pretrained weights ''", "pretrained:", weights__none=""
    ),
    "initial weights of an unknown name": _train(
        "did you mean nin15",
        "--init-from pretrained:nin51",
        files={"weights/nin15-digits.json": card},
    ),
    "initial weights altered": _train(
        "its SHA-256 is not the one in its card",
        "--init-from pretrained:nin15",
        files={"weights/nin15-digits.json": card, "weights/nin15-digits.safetensors": b"others"},
    ),
    "nothing to freeze": _train("--freeze needs --init-from", "--freeze"),
    "unknown variant": _train("or nin15", "--variant nin51"),
    "unknown variant, nothing near": _train("known: nin, nin15", "--variant xyzzy"),
    "variant name empty": _train("unknown variant ''", "--variant", ""),
    "variant file missing": _train(
        "cannot read variant file none.toml: No such file", "--variant none.toml"
    ),
    "unknown recipe": _train("did you mean modern", "--recipe modem"),
    "unknown data set": _train("did you mean fashion_mnist", "--dataset fashionmnist"),
    "data set outside": _train("unknown dataset '../x'", "--dataset ../x"),
    "prepared set outside": _train("is not a tensorflow-datasets name", "--dataset tfds:../x"),
    "image too small": _train("smallest size that works is 67x67", "--image-size 66"),
    "image too low": _train("image size 66x224 is too small", "--image-size 66 224"),
    "image size zero": _train("image size", "--image-size 0"),
    "image size of a billion": _train("<= 16,384, got 1000000000", "--image-size 1000000000"),
    "image size a word": _train("--image-size must be", "--image-size big"),
    "three sides": _train("--image-size must be", "--image-size 96 96 96"),
    "no devices": _train("--devices must be >= 1, got 0", "--devices 0"),
    "more devices than there are": _train("exceeds the number of devices: 1", "--devices 9"),
    "devices in words": _train("--devices must be INT", "--devices many"),
    "unknown feed": _train("--feed must be one of auto, resident, stream", "--feed fast"),
    "a coordinator and no others": _train(
        "--coordinator needs --distributed", "--coordinator localhost:1234 --processes 2"
    ),
    "coordinator that is no name": _train(
        "is not the name of a host",
        "--distributed --coordinator a..b:1234 --processes 2 --process-index 1",
    ),
    "coordinator without a port": _train(
        "must be HOST:PORT, as 10.0.0.1:1234, got 'localhost'",
        "--distributed --coordinator localhost",
    ),
    "coordinator with a port too high": _train(
        "must be HOST:PORT", "--distributed --coordinator localhost:65536"
    ),
    "process index beyond": _train(
        "--process-index must be below --processes, which is 2, got 2",
        "--distributed --processes 2 --process-index 2",
    ),
    "process index negative": _train("--process-index must be >= 0", "--process-index -1"),
    "rate's batch size zero": _train("--lr-batch-size must be >= 1", "--lr-batch-size 0"),
    "batch size zero": _train("--batch-size must be >= 1, got 0", "--batch-size 0"),
    "batch size a word": _train("--batch-size must be INT", "--batch-size many"),
    "micro-batch size zero": _train("--micro-batch-size must be", "--micro-batch-size 0"),
    "steps a dispatch zero": _train("--steps-per-dispatch must be", "--steps-per-dispatch 0"),
    "epochs zero": _train("--epochs must be >= 1, got 0", "--epochs 0"),
    "steps zero": _train("--steps must be >= 1, got 0", "--steps 0"),
    "steps and epochs": _train("give --steps or --epochs, not both", "--steps 9 --epochs 1"),
    "rate zero": _train("--lr must be > 0, got", "--lr 0"),
    "rate NaN": _train("--lr must be a finite number, got nan", "--lr nan"),
    "rate infinite": _train("--lr must be a finite number, got inf", "--lr inf"),
    "rate a word": _train("--lr must be FLOAT", "--lr fast"),
    "momentum one": _train("--momentum must be < 1, got 1.0", "--momentum 1"),
    "nesterov alone": _train("--nesterov needs --momentum", "--nesterov True"),
    "momentum of adam": _train(
        "--momentum needs --optimizer sgd or muon", "--momentum 0.9 --optimizer adam"
    ),
    "nesterov of adam": _train("--nesterov needs --optimizer", "--nesterov True --optimizer adam"),
    "steps of the rate for no schedule": _train(
        "--lr-steps needs --schedule steps", "--lr-steps 0.5"
    ),
    "factor of the rate for no schedule": _train(
        "--lr-factor needs --schedule steps", "--recipe modern --lr-factor 0.5"
    ),
    "no steps of the rate": _train("--schedule steps needs --lr-steps", "--schedule steps"),
    "steps of the rate that fall": _train(
        "--lr-steps must rise, from above 0 to below 1, got (0.8, 0.5)",
        "--recipe paper --lr-steps 0.8 0.5",
    ),
    "step of the rate at the end": _train("--lr-steps must be < 1", "--recipe paper --lr-steps 1"),
    "factor of the rate one": _train("--lr-factor must be < 1", "--recipe paper --lr-factor 1"),
    "biases that do not learn": _train("--bias-lr-mult must be > 0", "--bias-lr-mult 0"),
    "last layer of a negative rate": _train("--last-lr-mult must be > 0", "--last-lr-mult -1"),
    "warm-up past the first step of the rate": _train(
        "--warmup 0.8 must end before the first of --lr-steps, 0.769231",
        "--recipe paper --warmup 0.8",
    ),
    "process index alone": _train("--process-index needs --distributed", "--process-index 0"),
    "initialization of no layer": _train(
        "--init has no effect",
        "--variant tiny.toml --image-size 16 --init-from run --init he",
        files={"tiny.toml": TINY_TOML},
        edits={},
    ),
    "initial weights of a run of another version": _train(
        "is of another version of nin_jax: 'flavour'",
        "--init-from run",
        edits={"recipe.flavour": "sweet"},
    ),
    "warm-up of no step": _train(
        "--warmup 0.01 has no effect: it is less than one of 12 steps", "--epochs 1 --warmup 0.01"
    ),
    "dropout one": _train("--dropout must be", "--dropout 1"),
    "dropout of a network without dropout": _train(
        "--dropout has no effect: tiny has no dropout",
        "--variant tiny.toml --image-size 16 --dropout 0.3",
        files={"tiny.toml": TINY_TOML.replace("dropout = 0.5", "dropout = 0")},
    ),
    "smoothing one": _train("--label-smoothing must be", "--label-smoothing 1"),
    "decay negative": _train("--weight-decay must be", "--weight-decay -1"),
    "clip NaN": _train("--clip-norm must be", "--clip-norm nan"),
    "warm-up negative": _train("--warmup must be >= 0, got -1.0", "--warmup -1"),
    "warm-up of the whole run": _train("--warmup must be < 1, got 1.0", "--warmup 1"),
    "limit zero": _train("--limit-train must be >= 1", "--limit-train 0"),
    "limit negative": _train("--limit-test must be >= 1", "--limit-test -3"),
    "limit a word": _train("--limit-test must be INT", "--limit-test all"),
    "holdout zero": _train("--holdout must be >= 1", "--holdout 0"),
    "patience zero": _train("--patience must be >= 1", "--patience 0"),
    "patience without held-out images": _train("--patience needs --holdout", "--patience 2"),
    "holdout of everything": _train("leaves nothing to train on", "--holdout 1442"),
    "seed negative": _train("--seed must be >= 0, got -1", "--seed -1"),
    "seed too large": _train("--seed must be < 4294967296", "--seed 4294967296"),
    "too few classes": _train("digits has labels 0 to 9", "--num-classes 5"),
    "a billion classes": _train("parameters, more than", "--num-classes 1000000000"),
    "unknown precision": _train("--precision must be one of", "--precision float16"),
    "unknown optimiser": _train("--optimizer must be one of", "--optimizer lion"),
    "unknown initialization": _train("did you mean identity?", "--init idendity"),
    "unknown schedule": _train("--schedule must be one of", "--schedule linear"),
    "unknown class weights": _train("--class-weights must be one of", "--class-weights auto"),
    "unknown augmentation": _train("--augment must be one of", "--augment mixup"),
    "unknown device": _train("--device must be one of", "--device tpu"),
    "unknown option": _train("unknown option", "--bathc-size 3"),
    "option without value": _train("--lr must be", "--lr"),
    "a word too many": _train("unknown option nin", "nin"),
    "CIFAR-10 pickled": _train(
        "'set/cifar-10-python.tar.gz' is CIFAR-10's Python version, which is pickled: reading it "
        "could run any code, so only the binary version is read; to get CIFAR-10, either leave out "
        "--data-dir and NIN_DATA_DIR to download it, or put cifar-10-binary.tar.gz from "
        "https://www.cs.toronto.edu/~kriz/ there",
        "--dataset cifar10 --data-dir set",
        files={"set/cifar-10-python.tar.gz": b"\x80\x04N."},
    ),
    "CIFAR-100 half loaded": _train(
        "cifar-100-binary.tar.gz' is damaged or not CIFAR-100's: it has 4 bytes, and its MD5",
        "--dataset cifar100 --data-dir set",
        files={"set/cifar-100-binary.tar.gz": b"\x1f\x8b\x08\x00"},
    ),
    "SVHN's other format": _train(
        "'set/train.tar.gz' is SVHN's format 1, whole pictures",
        "--dataset svhn --data-dir set",
        files={"set/train.tar.gz": b""},
    ),
    "EMNIST missing": _train(
        "'set' has no EMNIST files; to get EMNIST",
        "--dataset emnist:letters --data-dir set",
        files={"set/": ""},
    ),
    "EMNIST's split unknown": _train(
        "did you mean emnist:letters", "--dataset emnist:letter", files={}
    ),
    "data folder missing": _train("none", "--dataset mnist --data-dir none"),
    "data folder empty": _train(
        "has no MNIST files", "--dataset mnist --data-dir empty", files={"empty/": ""}
    ),
    "data folder a file": _train(
        "is not a folder", "--dataset mnist --data-dir file", files={"file": ""}
    ),
    "half a data folder": _train(
        "lacks train-labels-idx1-ubyte.gz",
        "--dataset mnist --data-dir data",
        files={"data/train-images-idx3-ubyte.gz": b""},
    ),
    "image folder without a name": _train("names an image folder, got ''", "--dataset folder:"),
    "image folder missing": _train("image folder 'none' does not exist", "--dataset folder:none"),
    "image folder a file": _train(
        "'file' is not a folder", "--dataset folder:file", files={"file": "mine"}
    ),
    "image folder without train": _folder("has no folder 'train'", set__train__a__1_png=None),
    "image folder without test": _folder("or give --holdout N", set__test__a__1_png=None),
    "image folder with an empty class": _folder("no images in", set__train__b__a_txt="text"),
    "image folder with another class in test": _folder(
        "has the class 'b' in test, but not in train", set__test__b__1_png=picture
    ),
    "image folder with a torn picture": _folder(
        "cannot read 'set/train/a/2.png'", set__train__a__2_png=picture()[:40]
    ),
    "image folder with a text as a picture": _folder(
        "not an image format that Pillow can read", set__test__a__2_png="text"
    ),
    "crop without an image folder": _train("--crop needs --dataset folder:PATH", "--crop"),
    "links followed without an image folder": _train(
        "--follow-links needs --dataset folder:PATH", "--follow-links"
    ),
    "resume without a folder": _train("--resume needs --workdir", "--resume"),
    "resume of nothing": _train("none is not a run", "--resume --workdir none"),
    "workdir a file": _train("is a file, not a folder", "--workdir file", files={"file": "mine"}),
    "workdir a URL": _train("gs://b/run is a URL: give a folder", "--workdir gs://b/run"),
    "workdir in a folder with a colon": _train("a path with :", "--workdir x/gs:/run"),
    **{
        f"workdir with {sign}": _train(f"a path with {sign}:", "--workdir", f"exp{sign}1")
        for sign in "[]*?\\"
    },
    "workdir that is not UTF-8": _train("is not UTF-8 text", "--workdir", "a\udcff"),
    "workdir below a file": _train("is a file", "--workdir file/x", files={"file": "mine"}),
    "workdir that holds a run": _train(
        "already holds a run: give --resume to continue it, or a new folder",
        "--workdir run",
        edits={},
    ),
    "resume of an empty configuration": _train(
        "config.json is damaged", "--resume --workdir run", files={"run/config.json": "{}"}
    ),
    "resume of a rate that is a word": _train(
        "config.json is damaged: lr must be a number, got 'fast'",
        "--resume --workdir run",
        edits={"config.lr": "fast"},
    ),
}
