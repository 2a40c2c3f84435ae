"""Random and mutated files: every reader returns a result or raises a one-line `UserError`.

A reader must not raise another exception, hang, or allocate much memory. By default a few hundred
cases are tried, the same ones each time; NIN_FUZZ_CASES sets their number, and more than 1,000 are
new ones each time: ``NIN_FUZZ_CASES=10000 pytest tests/test_fuzz.py``.
"""

import contextlib
import functools
import gzip
import io
import json
import zlib
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from safetensors.numpy import save

import nin_jax
import nin_torch_ref
from nin_jax import UserError
from nin_jax.data import cifar, emnist, idx, pictures, svhn
from nin_jax.models import caffe, convert, variants
from nin_jax.models.recognition import recognize
from nin_jax.models.variants import variant_to_dict
from nin_jax.runs import manifest, writers
from nin_jax.study import grid
from tests.bad_inputs.case import picture, safetensors, saved
from tests.conftest import TINY_TOML
from tests.support.caffemodel import blob, caffemodel
from tests.support.fuzzing import fuzz, report, survives
from tests.support.mutations import as_toml, damaged, damaged_json, damaged_tree, mutate
from tests.support.small_archives import mat_file, tar_gz, zipped
from tests.support.study_results import row
from tests.support.synthetic_idx import idx_bytes
from tests.test_bad_input import finished

__all__ = ["finished", "report"]  # fixtures: pytest finds them by their names in the module

TINY = nin_jax.Variant("tiny", (nin_jax.Stage(2, 3, padding=1),))
SIZES: dict[str, Any] = {"in_channels": 1, "num_classes": 3, "image_size": 8}

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


@fuzz(0.1)
@given(damaged(idx_bytes(IMAGES)), st.sampled_from((1, 3)))
def test_gzipped_idx(data, ndim):
    with survives("IDX"):
        idx.read_idx(io.BytesIO(data), "x", ndim, 2**26)


@fuzz(0.1)
@given(damaged(gzip.decompress(idx_bytes(IMAGES)), gzip.decompress(idx_bytes(IMAGES[0, 0]))))
def test_idx_in_an_intact_gzip_file(data):
    for ndim in (1, 3):
        with survives("IDX"):
            packed = io.BytesIO(gzip.compress(data, mtime=0))
            found = idx.read_idx(packed, "x", ndim, 2**26)
            assert found.nbytes == len(data) - 4 * (1 + ndim)


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "file"


CIFAR10 = tar_gz({"data_batch_1.bin": bytes(3073 * 2), "test_batch.bin": bytes(3073)})
SVHN = mat_file(np.zeros((2, 32, 32, 3), np.uint8), np.ones(2))
PARTS = {"images-idx3": IMAGES[:, :, :3], "labels-idx1": IMAGES[0, 0, :2]}
EMNIST = zipped({f"emnist-mnist-train-{n}-ubyte.gz": idx_bytes(a) for n, a in PARTS.items()})


@fuzz(0.08)
@given(damaged(CIFAR10))
def test_cifar_archives(file, data):
    inside = gzip.decompress(CIFAR10)
    for content in (data, gzip.compress(mutate(inside, zlib.crc32(data)), 1, mtime=0)):
        file.write_bytes(content)
        with survives("CIFAR archives"):
            found = cifar.read_archive(file, ("data_batch_1.bin", "test_batch.bin"), 2**20)
            for records in found.values():
                images, labels = cifar.parse_records(records, "x", cifar.CIFAR_SETS["cifar10"])
                assert images.shape == (len(labels), 32, 32, 3)


@fuzz(0.08)
@given(damaged(SVHN, mat_file(IMAGES[..., None], np.ones(2), compressed=False)))
def test_svhn_files(file, data):
    file.write_bytes(data)
    with survives("SVHN files"):
        images, labels = svhn.read_mat(file)
        assert images.shape == (len(labels), 32, 32, 3)


@fuzz(0.08)
@given(damaged(EMNIST))
def test_emnist_archives(file, data):
    file.write_bytes(data)
    with survives("EMNIST archives"):
        images, labels = emnist.read_part(file, emnist.EMNIST_SPLITS["emnist:mnist"], "train")
        assert images.shape == (len(labels), 3, 3)


VARIANT = variant_to_dict(nin_jax.get_variant("nin_fc"))


def read_variant(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with survives("variant files"):
        variant = nin_jax.get_variant(path)
        assert variants.variant_from_dict(variant_to_dict(variant)) == variant
        convert.expected_shapes(
            variant, 3, 10, 100
        )  # its shapes can be computed, or it is rejected


@fuzz(0.12)
@given(damaged_json(VARIANT))
def test_variant_json(file, data):
    read_variant(file.with_suffix(".json"), data)


@fuzz(0.12)
@given(st.one_of(damaged_json(VARIANT, as_toml), damaged(TINY_TOML.encode())))
def test_variant_toml(file, data):
    read_variant(file.with_suffix(".toml"), data)


ROWS = [
    {"kind": "step", "step": 10, "epoch": 0.5, "train_loss": 2.0, "images_per_second": None},
    {"kind": "epoch", "step": 20, "epoch": 1, "test_loss": 1.5, "test_accuracy": 0.5},
]


def lines(rows: Any) -> str:
    return "".join(json.dumps(r) + "\n" for r in rows) if isinstance(rows, list) else "{"


@fuzz(0.08)
@given(damaged_json(ROWS, lines))
def test_metrics(file, data):
    file.write_bytes(data)
    with survives("metrics"):
        for found in writers.read_metrics(file):
            assert found["step"] >= 0


@fuzz(0.12)
@given(damaged_json([row(), row(seed=1, accuracy=0.9)], lines))
def test_results(file, data):
    file.write_bytes(data)
    with survives("results"):
        for found in grid.read_results(file):
            assert Path(found["cell"]).name == found["cell"]
            assert 0 <= found["test_accuracy"] <= 1


def tiny_weights() -> dict[str, np.ndarray]:
    shapes = convert.expected_shapes(TINY, **SIZES)
    return {name: np.full(shape, 0.5, np.float32) for name, shape in shapes.items()}


WEIGHTS = save(tiny_weights())
DATA_AT = 8 + int.from_bytes(WEIGHTS[:8], "little")
HEADER = json.loads(WEIGHTS[8:DATA_AT])


def with_header(header: Any) -> bytes:
    """Return the weights with another header."""
    return safetensors(header, WEIGHTS[DATA_AT:])


@fuzz(0.12)
@given(st.one_of(damaged_tree(HEADER).map(with_header), damaged(WEIGHTS)))
def test_safetensors(file, data):
    file.write_bytes(data)
    with survives("safetensors"):
        convert.load_safetensors(file)
    with survives("safetensors"):
        expected = convert.expected_shapes(TINY, **SIZES)
        found = recognize(convert.load_safetensors(file, expected, "tiny"), expected).arrays
        assert {name: array.shape for name, array in found.items()} == expected


def pt_file(**options: Any) -> bytes:
    arrays = tiny_weights()

    def checkpoint(torch: Any) -> dict[str, object]:
        state = {f"module.{name}": torch.from_numpy(array) for name, array in arrays.items()}
        return {"epoch": 3, "state_dict": state}

    return saved(checkpoint, **options)()


@fuzz(0.12)
@given(damaged(pt_file(), pt_file(_use_new_zipfile_serialization=False)))
def test_state_dicts(file, data):
    file.write_bytes(data)
    with survives("state dicts"):
        try:
            state = nin_torch_ref.load_state_dict_file(file)
        except ValueError as error:  # scripts/convert.py turns it into a UserError
            raise UserError(str(error)) from None
        expected = convert.expected_shapes(TINY, **SIZES)
        found = recognize(state, expected)
        convert.check_shapes({n: a.shape for n, a in found.arrays.items()}, expected, "tiny")
        assert "\n" not in found.note("float32")


CAFFE = [
    caffemodel(list(tiny_weights().values()), v1=v1, old=v1, packed=packed)
    for v1, packed in ((True, True), (False, False))
]
NAMES = [name.removesuffix(".weight") for name in tiny_weights() if name.endswith(".weight")]
MEAN = blob(np.ones((3, 4, 5), np.float32))


@fuzz(0.12)
@given(damaged(*CAFFE))
def test_caffemodel(file, data):
    file.write_bytes(data)
    with survives("caffemodel"):
        found = caffe.read(file, NAMES, "tiny")
        assert all(array.ndim in (1, 4) for array in found.arrays.values())
        assert "\n" not in found.note("float32")


@fuzz(0.06)
@given(damaged(MEAN))
def test_binaryproto(file, data):
    file.write_bytes(data)
    with survives("binaryproto"):
        assert all(isinstance(mean, float) for mean in caffe.read_mean(file))


@fuzz(0.06)
@given(damaged(picture(), picture(40)), st.sampled_from((1, 3)))
def test_pictures(file, data, channels):
    file.write_bytes(data)
    with survives("pictures"):
        assert pictures.read(file, channels, (8, 8)).shape == (8, 8, channels)


@fuzz(0.06)
@given(st.data())
def test_config_json(finished, data):
    folder = finished.parent / "damaged"
    if not folder.exists():
        folder.mkdir()
        (folder / "model.safetensors").write_bytes((finished / "model.safetensors").read_bytes())
    (folder / "config.json").write_bytes(data.draw(damaged_config(finished / "config.json")))
    for read in (manifest.read_run, load_model):
        with survives("config.json"):
            read(folder)


@functools.cache
def damaged_config(path: Path) -> st.SearchStrategy[bytes]:
    return damaged_json(json.loads(path.read_bytes()))


def load_model(folder: Path) -> None:
    """Call `load_run`, but stop before it creates the model, which takes a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "new_model", stop)
        with contextlib.suppress(StopIteration):
            nin_jax.load_run(folder)


def stop(variant: nin_jax.Variant, **options: Any) -> None:
    assert isinstance(variant, nin_jax.Variant)
    assert options["dtype"] in ("float32", "bfloat16")
    raise StopIteration
