"""What a bad input is, and helpers that state one and make its files."""

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import nin_jax
from nin_jax.models import convert

Content = bytes | str | Callable[[], bytes | str] | None
REMOVED = object()  # in `Case.edits`: the key is taken out
RUN = "--workdir run"  # the folder of `Case.edits`
WHOLE = "is not a complete safetensors file"
DEEP = "[" * 100_000


@dataclass(frozen=True)
class Case:
    """A command line of a script, or a call, that has to be refused.

    Attributes:
        run: a script's name, or a call of the Python API.
        arguments: of the script.
        text: that its one line has to hold.
        files: that lie in the current folder, by name; a name that ends in "/" is a folder, one
            that ends in "|" a pipe, and one that holds None is taken away. If there are some in
            ``weights/``, the package ships those and no others.
        edits: what is changed in ``config.json`` of the finished run in the folder ``run``, by the
            keys' path; there is such a folder only if this is not None.
    """

    run: str | Callable[[], object]
    text: str
    arguments: tuple[str, ...] = ()
    files: Mapping[str, Content] = field(default_factory=dict)
    edits: Mapping[str, object] | None = None


# Ways to state one


def command(run: str, text: str, *arguments: str, **more: Any) -> Case:
    """A command line of a script, in one or more parts, with a space between two words."""
    return Case(run, text, tuple(word for part in arguments for word in part.split(" ")), **more)


def on_run(run: str, text: str, *arguments: str, **more: Any) -> Case:
    """A command line of a script on the finished run."""
    return command(run, text, RUN, *arguments, **({"edits": {}} | more))


def on_digits(run: str, text: str, *arguments: str, **more: Any) -> Case:
    """A command line of a script, on the digits unless it names another data set."""
    case = command(run, text, *arguments, **more)
    digits = () if "--dataset" in case.arguments else ("--dataset", "digits")
    return replace(case, arguments=(*digits, *case.arguments))


def fails(text: str, call: Callable[[], object], **files: Content) -> Case:
    """A call; in the name of a file, "_" stands for a dot."""
    named = {name.replace("_", "."): content for name, content in files.items()}
    return Case(call, text, files=named)


def wrong(value: object) -> Any:
    """A value that a type checker would refuse."""
    return value


# What makes files


def safetensors(header: object, data: bytes = b"") -> bytes:
    """A safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(dtype: str, shape: list[int], start: int, end: int) -> dict[str, object]:
    """A tensor in a safetensors header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def saved(make: Callable[[Any], object], **options: Any) -> Callable[[], bytes]:
    """What torch.save makes of an object; torch is imported only then."""

    def content() -> bytes:
        import torch

        buffer = io.BytesIO()
        torch.save(make(torch), buffer, **options)
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


def legacy_pt(claimed: int) -> bytes:
    """A PyTorch file of the old format, whose storage claims any number of elements."""
    old = {"_use_new_zipfile_serialization": False}
    content = saved(lambda torch: {"a": torch.ones(77)}, **old)()
    small, large = b"K\x4d", b"\x8a\x08" + struct.pack("<q", claimed)
    assert small in content
    return content.replace(small, large)


def other_weights() -> bytes:
    """The weights of nin_one_1x1, complete: a header alone would be refused for another reason."""
    from safetensors.numpy import save

    shapes = convert.expected_shapes(nin_jax.get_variant("nin_one_1x1"), 1, 10, 96)
    return save({name: np.zeros(shape, np.float16) for name, shape in shapes.items()})


def fitting_weights(metadata: dict[str, str]) -> bytes:
    """Weights of the network of the finished run, with other metadata."""
    from safetensors.numpy import save

    stages = tuple(nin_jax.Stage(channels, 3, padding=1) for channels in (8, 16))
    shapes = convert.expected_shapes(nin_jax.Variant("tiny", stages), 1, 10, 16)
    return save({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, metadata)


def card(**changes: object) -> str:
    """A card of weights of nin15 for the digits. The file of the weights does not exist."""
    plain = {
        "variant": "nin15",
        "in_channels": 1,
        "num_classes": 10,
        "image_size": [64, 64],
        "logit_relu": False,
        "dataset": "digits",
        "data_checksum": "0" * 64,
        "class_names": list("0123456789"),
        "command": "python scripts/train.py --variant nin15",
        "test_accuracy": 0.5,
        "test_images": 355,
        "batch_size": 8,
        "versions": {"python": "3.11.0"},
        "sha256": "0" * 64,
    }
    return json.dumps(plain | changes)


def picture(side: int = 16) -> bytes:
    """A black square."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.zeros((side, side), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def png(width: int, height: int, deep: tuple[int, ...] = ()) -> bytes:
    """A picture whose header claims any size, over a few bytes; or with one 16-bit color."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    bits, kind = (16, 2) if deep else (8, 6)  # RGB or RGBA
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    rows = zlib.compress(struct.pack(">B3H", 0, *deep) if deep else bytes(100))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )
