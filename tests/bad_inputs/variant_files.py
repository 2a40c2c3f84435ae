"""Bad variant files, as scripts/train.py reads them."""

import json

from tests.bad_inputs.case import DEEP, Case, Content, on_digits
from tests.conftest import TINY_TOML

STAGE = '{"channels": 8, "kernel": 3}'
THIN = '{"channels": 8, "kernel": 1, "mlp": []}'


def _variant(text: str, content: Content, name: str = "bad.json") -> Case:
    return on_digits("train", text, "--variant", name, files={name: content})


def _second(text: str, **fields: object) -> Case:
    """A network of two stages, the second with these fields."""
    plain = {"channels": 8, "kernel": 3, "padding": 1}
    return _variant(text, json.dumps({"stages": [plain, plain | fields]}))


VARIANT_FILES = {
    "variant file torn": _variant("bad.toml: ", "[[stages]\nchannels = ", "bad.toml"),
    "variant file empty": _variant("bad.json: Expecting value", ""),
    "variant file a list": _variant("must be a table of fields", "[1]"),
    "variant file a folder": on_digits(
        "train", "Is a directory", "--variant", "x.toml", files={"x.toml/": ""}
    ),
    "variant file a pipe": on_digits(
        "train", "not a file", "--variant", "x.toml", files={"x.toml|": ""}
    ),
    "variant file binary": _variant("not a UTF-8 text file", b"\xff\xfe\x00", "bad.toml"),
    "variant file of a megabyte": _variant("1,048,576 bytes, more than 262,144", " " * 2**20),
    "variant file too deep": _variant("nested too deeply", DEEP),
    "variant file too deep, TOML": _variant("nested too deeply", f"a = {DEEP}", "bad.toml"),
    "variant file of dots": _variant(
        "line 1 has more than 16 dots", "a." * 100_000 + "a = 1", "bad.toml"
    ),
    "variant file with a key twice": _variant(
        "the key 'stages' appears twice", '{"stages": [], "stages": []}'
    ),
    "variant file with a key twice, TOML": _variant(
        "Cannot overwrite a value", "dropout = 0\ndropout = 0", "bad.toml"
    ),
    "variant file with stages that are no list": _variant("stages must be a list", '{"stages": 3}'),
    "variant file with a stage that is no table": _variant(
        "stage 0 must be a table", '{"stages": [3]}'
    ),
    "variant file without a kernel": _variant(
        "stages.0.kernel is missing", '{"stages": [{"channels": 8}]}'
    ),
    "variant file with a slip": _variant(
        "did you mean channels", '{"stages": [{"chanels": 8, "kernel": 3}]}'
    ),
    "variant file with an unknown field": _variant(
        "unknown variant field 'colour'", '{"stages": [], "colour": "red"}'
    ),
    "kernel of a billion": _variant(
        "stages.0.kernel must be <= 16384, got 1000000000",
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
        "1,003 convolutions are more than 1,000", f'{{"stages": [{",".join([THIN] * 1000)}]}}'
    ),
    "a million stages": _variant(
        "more than 262,144", f'{{"stages": [{",".join([STAGE] * 10**6)}]}}'
    ),
    "mlp a number": _variant("mlp must be", '{"stages": [{"channels": 8, "kernel": 3, "mlp": 1}]}'),
    "dropout NaN": _variant(
        "dropout must be a finite number, got nan", '{"stages":[], "dropout": NaN}'
    ),
    "dropout one": _variant(
        "dropout must be < 1, got 1.0", "stages = []\ndropout = 1.0", "bad.toml"
    ),
    "published rate infinite": _variant("got inf", '{"stages": [], "published_lr": 1e999}'),
    "variant name with slashes": _variant("without slashes", '{"name": "../x", "stages": []}'),
    "variant file whose name no run's folder can have": _variant(
        "--workdir runs/my[1]-001: the checkpoint library cannot use", TINY_TOML, "my[1].toml"
    ),
    "variant name with lines": _variant("printable", '{"name": "a\\nb", "stages": []}'),
    "variant name a number": _variant("got 3", '{"name": 3, "stages": []}'),
    "a pool larger than its map": _second(
        "is too small for bad: the map of block2's pool vanishes; the smallest size that works is "
        "501x501",
        pool={"size": 250},
    ),
    "a pool of an unknown kind": _second(
        "unknown kind of stage 1's pool 'avarage': did you mean average", pool={"kind": "avarage"}
    ),
    "a pool of no kind": _second(
        "stage 1's pool: kind must be 'max' or 'average', got 3", pool={"kind": 3}
    ),
    "a pool that is a text": _second("stages.1.pool must be a Pool, or true or false", pool="max"),
    "a pool with a slip": _second(
        "unknown stage 1's pool field 'sise': did you mean size", pool={"sise": 2}
    ),
    "a pool of no pixels": _second("stage 1's pool: size must be >= 1, got 0", pool={"size": 0}),
    "a pool of a billion": _second("size must be <= 16384, got 1000000000", pool={"size": 10**9}),
    "a pool of padding": _second(
        "stage 1's pool: Pool.padding must be at most half the size of 3, got 2",
        pool={"padding": 2},
    ),
    "a pool that rounds maybe": _second("round_up must be true or false", pool={"round_up": "up"}),
    "a width less than layers": _second(
        "stage 1 has 3 convolutions, so its channels must be one number or 3 of them, got 2",
        channels=[8, 8],
    ),
    "a width of zero": _second("channels must be >= 1, got [8, 0, 8]", channels=[8, 0, 8]),
    "a width of a text": _second("must be a whole number, or one for each", channels=[8, "8", 8]),
    "a width of a billion": _second("channels must be <= 65536", channels=[8, 8, 10**9]),
    "a dropout of one after a pool": _second("dropout must be < 1, got 1", dropout=1),
    "a head with a width for its last layer": _variant(
        "the head has 3 convolutions, so its channels must be one number or 2 of them, got 3",
        '{"stages": [], "head": {"channels": [8, 8, 8], "kernel": 3}}',
    ),
    "a head with dropout after it": _variant(
        "neither pool nor dropout", '{"stages": [], "head": {"kernel": 3, "dropout": 0.5}}'
    ),
    "head with channels": _variant(
        "the head must have channels=None", '{"stages": [], "head": {"channels": 3, "kernel": 3}}'
    ),
}
