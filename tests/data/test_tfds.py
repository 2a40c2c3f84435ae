"""tensorflow-datasets: the reader returns what the project's own builders prepared."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from nin_jax.data import tfds_builders
from nin_jax.data.built_in import BUILT_IN
from nin_jax.data.datasets import list_datasets, load_dataset
from nin_jax.errors import UserError
from tests.support.synthetic_idx import error_of


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which nin_digits is prepared."""
    folder = tmp_path_factory.mktemp("tfds")
    name, path = tfds_builders.prepare("digits", None, folder)
    assert (name, path) == ("tfds:nin_digits", folder / "nin_digits" / "1.0.0")
    return folder


@pytest.fixture
def copy(prepared: Path, tmp_path: Path) -> Path:
    """Return a copy of the prepared dataset's folder that a test may damage."""
    return Path(shutil.copytree(prepared, tmp_path / "copy")) / "nin_digits" / "1.0.0"


class ProbeBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Prepare the given images and labels, as PNG, under the name `probe_builder`."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, features: Any, examples: list[dict[str, Any]], data_dir: Path):
        self._features, self._examples = features, examples
        super().__init__(data_dir=str(data_dir), file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(self._features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {"train": self._generate_examples(), "test": self._generate_examples()}

    def _generate_examples(self) -> Any:
        yield from enumerate(self._examples)


def probe(folder: Path, images: list[np.ndarray], image_feature: Any, label_feature: Any) -> str:
    """Prepare images with the labels 0, 1, 2, ...; return the name for `load_dataset`."""
    examples = [{"image": Image.fromarray(image), "label": i} for i, image in enumerate(images)]
    features = {"image": image_feature, "label": label_feature}
    ProbeBuilder(features=features, examples=examples, data_dir=folder).download_and_prepare()
    return "tfds:probe_builder"


TWO_CLASSES = tfds.features.ClassLabel(names=["cat", "dog"])
GRAY = tfds.features.Image(shape=(None, None, 1))
SMALL = np.zeros((4, 4), np.uint8)


# Round trips


def test_round_trip_is_exact(prepared, monkeypatch):
    expected, found = load_dataset("digits"), load_dataset("tfds:nin_digits", prepared)
    for split in ("train", "test"):
        for field in ("images", "labels"):
            one, other = (getattr(getattr(d, split), field) for d in (expected, found))
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype
    assert found.checksum == expected.checksum
    assert found.class_names == expected.class_names
    assert (found.name, found.source) == ("tfds:nin_digits", "tfds:nin_digits/1.0.0")
    monkeypatch.setenv("NIN_DATA_DIR", str(prepared))
    assert load_dataset("tfds:nin_digits:1.0.0").checksum == expected.checksum


def test_every_own_dataset_has_a_builder(tmp_path):
    for name in list_datasets():
        builder = tfds.builder(f"nin_{name.replace(':', '_')}", data_dir=str(tmp_path))
        features: Any = builder.info.features
        assert features["image"].shape == BUILT_IN[name].image_shape
        assert tuple(features["label"].names) == BUILT_IN[name].class_names


def test_reading_loads_neither_tensorflow_nor_torch_nor_the_builders(prepared):
    code = (
        "import sys; from nin_jax.data.datasets import list_datasets, load_dataset; "
        "load_dataset('tfds:nin_digits', sys.argv[1]); "
        "loaded = {'tensorflow', 'torch', 'nin_jax.data.tfds_builders'} & sys.modules.keys(); "
        "assert not loaded, loaded"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(prepared)]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2])


# Datasets that cannot be read


@pytest.mark.parametrize("name", ["nin_digits", "mnist", "no_such_set", "mnist:9.9.9"])
def test_not_prepared(tmp_path, name):
    for folder in (tmp_path, tmp_path / "nowhere"):
        message = error_of(f"tfds:{name}", folder)
        assert f"tfds:{name}" in message
        assert "prepare it there with tensorflow-datasets" in message
        assert "scripts/prepare_tfds.py" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "../digits", "huggingface:mnist", "mnist/a=True", "a\nb"])
def test_invalid_names(tmp_path, name):
    assert "is not a tensorflow-datasets name" in error_of(f"tfds:{name}", tmp_path)


def test_tensorflow_only_format(tmp_path):
    name = probe(tmp_path, [SMALL], GRAY, TWO_CLASSES)
    info = tmp_path / "probe_builder" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    message = error_of(name, tmp_path)
    assert "prepared as tfrecord" in message
    assert "file_format='array_record'" in message


def test_missing_split(copy):
    info = copy / "dataset_info.json"
    info.write_text(info.read_text().replace('"test"', '"validation"'))
    message = error_of("tfds:nin_digits", copy.parents[1])
    assert "no split 'test'" in message
    assert "train, validation" in message


def test_damaged_metadata(copy):
    (copy / "dataset_info.json").write_text("{")
    assert "cannot be opened" in error_of("tfds:nin_digits", copy.parents[1])


def test_metadata_that_claims_a_trillion_images(copy):
    info = copy / "dataset_info.json"
    info.write_text(info.read_text().replace('"1442"', '"1442000000000"'))
    assert "split train" in error_of("tfds:nin_digits", copy.parents[1])


@pytest.mark.parametrize(
    ("images", "image_feature", "label_feature", "problem"),
    [
        ([SMALL], GRAY, tfds.features.Scalar(np.int64), "not an image-classification dataset"),
        (
            [SMALL],
            tfds.features.Image(shape=(4, 4, 4)),
            TWO_CLASSES,
            "uint8 images with 4 channels",
        ),
        (
            [SMALL.astype(np.uint16)],
            tfds.features.Image(shape=(4, 4, 1), dtype=np.uint16),
            TWO_CLASSES,
            "uint16 images with 1 channels",
        ),
    ],
)
def test_not_image_classification(tmp_path, images, image_feature, label_feature, problem):
    name = probe(tmp_path, images, image_feature, label_feature)
    assert problem in error_of(name, tmp_path)


# Preparing


def test_prepare_errors(tmp_path):
    with pytest.raises(UserError, match="did you mean digits"):
        tfds_builders.prepare("digit", None, tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        tfds_builders.prepare("mnist", tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="cannot write"):
        tfds_builders.prepare("digits", None, tmp_path / "file")


def test_preparing_again_changes_nothing(copy):
    before = {path: path.stat().st_mtime_ns for path in copy.iterdir()}
    tfds_builders.prepare("digits", None, copy.parents[1])
    assert {path: path.stat().st_mtime_ns for path in copy.iterdir()} == before


def test_script_prints_the_folder_and_the_training_command(script, tmp_path):
    out = tmp_path / "with space"
    outcome = script("prepare_tfds", "--dataset", "digits", "--out", out)
    assert outcome.code == 0, outcome.err
    assert f"prepared tfds:nin_digits in {out / 'nin_digits' / '1.0.0'}" in outcome.out
    assert f"scripts/train.py --dataset tfds:nin_digits --data-dir '{out}'" in outcome.out
    assert (out / "nin_digits" / "1.0.0" / "features.json").is_file()
