"""Hostile files: no code is run, no header allocates memory, no name leaves its folder."""

import ast
import json
import os
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from markupsafe import escape

import nin_jax
import nin_torch_ref
from nin_jax import UserError
from nin_jax.data import pictures
from nin_jax.models import caffe, convert
from nin_jax.models.geometry import MAX_PARAMS
from nin_jax.runs import manifest
from nin_jax.study import grid
from nin_jax.study.grid import Cell
from nin_jax.training.evaluate import Score
from nin_jax.training.recipes import RECIPES
from tests.bad_inputs.case import Case, legacy_pt, packed, picture, png, safetensors, tensor
from tests.conftest import SCRIPTS
from tests.support.caffemodel import blob, caffemodel, varint
from tests.support.resident_memory import growth
from tests.support.study_results import row
from tests.test_bad_input import finished, place

__all__ = ["finished", "place"]  # fixtures: pytest finds them by their names in the module

HOSTILE = "<script>alert(1)</script>\"'&[/b]$\\foo$|`"


# No code is run


FORBIDDEN = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_MODULES = {"pickle", "dill", "joblib", "marshal", "shelve", "yaml"}
UNPACKING = {"extract", "extractall", "unpack_archive"}  # a name in an archive may lead anywhere


@pytest.mark.parametrize("folder", ["nin_jax", "nin_torch_ref", "benchmarks", "scripts"])
def test_no_function_that_runs_code_from_files(folder):
    for path in sorted((SCRIPTS.parent / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {m.split(".")[0] for m in modules} & FORBIDDEN_MODULES, path
            if isinstance(node, ast.Call):
                _check_call(node, path)


def _check_call(node: ast.Call, path: Path) -> None:
    options = {keyword.arg: keyword.value for keyword in node.keywords}
    called = ast.unparse(node.func)
    assert called not in FORBIDDEN, path
    assert called.split(".")[-1] not in UNPACKING, path
    if called == "torch.load":
        assert ast.unparse(options["weights_only"]) == "True", path
    if called.split(".")[-1] == "load" and called.startswith(("np.", "numpy.")):
        pytest.fail(f"{path} reads NumPy's format, which may hold pickles")
    if "shell" in options:
        assert ast.unparse(options["shell"]) == "False", path


# No header allocates memory


def sparse(path: Path, size: int, head: bytes = b"") -> Path:
    """Create a file that is large but takes no space on the disk."""
    path.write_bytes(head)
    os.truncate(path, size)
    return path


def test_large_sizes_in_headers_take_no_memory(tmp_path):
    """Check that each file is rejected and that the process does not grow by the claimed size."""
    header = safetensors({"a": tensor("F32", [2**38], 0, 2**40)})
    files = {
        "claims.safetensors": safetensors({"a": tensor("F32", [2**40], 0, 2**42)}, b"1234"),
        "bomb.json": b'{"stages": [' + b'{"channels": 8, "kernel": 3},' * 10**6 + b"]}",
        "bomb.toml": b"a." * 100_000 + b"a = 1",
        "deep.json": b"[" * 10**6,
        "bomb.png": png(60_000, 60_000),
        "warned.png": png(12_000, 12_000),  # Pillow only warns
        "wide.png": png(2**31 - 1, 2**31 - 1),
        "packed.pt": packed(),
        "claims.caffemodel": b"\x12" + varint(2**34) + b"1234",
        "shape.caffemodel": caffemodel([blob(np.ones(1, np.float32), claimed=(2**40,))] * 2),
        "old.pt": legacy_pt(2**40),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    sparse(tmp_path / "sparse.safetensors", len(header) + 2**40, header)
    sparse(tmp_path / "sparse.json", 2**40)
    sparse(tmp_path / "sparse.caffemodel", 2**30)
    sparse(tmp_path / "sparse.png", 2**40)
    shapes = convert.expected_shapes(nin_jax.get_variant("nin"), 1, 10, 224)
    readers = {
        ".safetensors": lambda path: convert.load_safetensors(path, shapes, "nin"),
        ".caffemodel": lambda path: caffe.read(path, ["net.0.0"], "one"),
        ".json": nin_jax.get_variant,
        ".toml": nin_jax.get_variant,
        ".png": lambda path: pictures.read(path, 3, (8, 8)),
        ".pt": nin_torch_ref.load_state_dict_file,
    }
    with pytest.raises(ValueError, match="truncated"):  # the first call allocates memory once
        nin_torch_ref.load_state_dict_file(tmp_path / "bomb.png")
    for path in sorted(tmp_path.iterdir()):
        grown = growth()
        with pytest.raises(ValueError, match=path.name):  # a UserError is one
            readers[path.suffix](path)
        assert grown() < 20 * 10**6, path.name


def test_sparse_file_within_the_limit_is_rejected_by_its_header(tmp_path):
    header = safetensors({"net.0.0.weight": tensor("F32", [2**28], 0, 2**30)})
    path = sparse(tmp_path / "a.safetensors", len(header) + 2**30, header)
    shapes = convert.expected_shapes(nin_jax.get_variant("nin"), 1, 10, 224)
    grown = growth()
    with pytest.raises(UserError, match="the weights do not fit nin"):
        convert.load_safetensors(path, shapes, "nin")
    assert grown() < 20 * 10**6


def test_large_model_is_rejected_before_its_parameters_are_created():
    side = int((MAX_PARAMS / 8) ** 0.5) + 1
    large = nin_jax.Variant("large", (nin_jax.Stage(8, side, pool=None),))
    grown = growth()
    with pytest.raises(UserError, match="parameters, more than"):
        nin_jax.create_model(large, image_size=16_384)
    assert grown() < 200 * 10**6  # JAX starts here; the model would take 4 GB


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/stdin", "."])
def test_endless_files_are_not_read(path):
    for read in (
        manifest.read_json,
        grid.read_results,
        convert.load_safetensors,
        lambda path: pictures.read(path, 1, (8, 8)),
        nin_torch_ref.load_state_dict_file,
    ):
        with pytest.raises((UserError, ValueError, IsADirectoryError)):
            read(Path(path))


# No name leaves its folder


@settings(deadline=None, max_examples=200)
@given(
    variant=st.text(max_size=20) | st.sampled_from(["../../x", "/etc/passwd", "..", ".", "a/.."]),
    recipe=st.sampled_from(sorted(RECIPES)),
    seed=st.integers(0, 10),
    change=st.text(max_size=20) | st.sampled_from(["../../x", "lr=0.1", "/"]),
)
def test_name_of_a_cell_is_one_folder(variant, recipe, seed, change):
    name = Cell(variant.replace("\0", ""), recipe, seed, change).name
    assert name not in ("", ".", "..")
    assert "/" not in name
    assert Path(name).name == name


def test_results_file_cannot_make_the_page_read_outside(tmp_path):
    """The gallery loads the model of each row's cell, so a cell must be the name of one folder."""
    path = tmp_path / "results.jsonl"
    for cell in ("../../x", "/etc", "a/../b", "nin-modern-seed0/..", "..", ""):
        path.write_text(json.dumps(row(cell=cell)) + "\n")
        with pytest.raises(UserError, match="the cell cannot be"):
            grid.read_results(path)
    path.write_text(json.dumps(row()) + "\n")
    assert len(grid.read_results(path)) == 1


@pytest.mark.parametrize("name", ["../x", "a/b", "a\\b", "/etc/x", "a\0b", "a\nb", "\ud800"])
def test_name_of_a_variant_is_safe_in_a_file_name(name):
    with pytest.raises(UserError, match="name must be"):
        nin_jax.Variant(name, ())


def test_figures_named_after_a_variant_stay_in_their_folder(script, tmp_path):
    (tmp_path / "cwd" / "v.json").write_text('{"name": "..", "stages": []}')
    options = ("--variant", "v.json", "--image-size", 16, "--explain", "--plots", "plots")
    outcome = script("report", *options)
    assert outcome.code == 0, outcome.err
    assert [path.name for path in (tmp_path / "cwd" / "plots").iterdir()] == ["layers.png"]


# Text from files stays text


class Tags(HTMLParser):
    """Collect the tags of a page with the names of their attributes, and its text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[object] = []
        self.shown = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, *(name for name, _ in attrs)))
        self.shown += " ".join(value or "" for _, value in attrs)

    def handle_endtag(self, tag):
        self.tags.append(tag)

    def handle_data(self, data):
        self.shown += data


def page_of(script, folder: Path, **texts: Any) -> str:
    """Return the page that scripts/study.py writes for a results file with these texts."""
    (folder / "study").mkdir()
    changed = str(texts.pop("change", "an innocent change"))
    rows = [row(dataset="digits", **texts), row(dataset="digits", change=changed, **texts)]
    names = {"test_accuracy_per_class": [0.5] * 10}
    text = "".join(json.dumps(result | names) + "\n" for result in rows)
    (folder / "study" / "results.jsonl").write_text(text)
    options = ["--dataset", "digits", "--image-size", 67, "--epochs", 2, "--variants", "nin"]
    outcome = script("study", *options, "--out", folder / "study", "--page-only")
    assert outcome.code == 0, outcome.err
    return (folder / "study" / "index.html").read_text()


def test_page_escapes_all_text_from_a_results_file(script, tmp_path):
    hostile = {
        "device": HOSTILE,
        "evaluated_on": HOSTILE,
        "change": HOSTILE,
        "versions": {HOSTILE: HOSTILE},
    }
    plain = {"device": "d", "evaluated_on": "e", "versions": {"v": "1"}}
    for folder in ("plain", "hostile"):
        (tmp_path / folder).mkdir()
    innocent = Tags(page_of(script, tmp_path / "plain", **plain))
    text = page_of(script, tmp_path / "hostile", **hostile)
    found = Tags(text)
    assert found.tags == innocent.tags
    assert found.shown.count(HOSTILE) >= 4
    assert HOSTILE not in text
    assert escape(HOSTILE) in text


def test_names_are_not_read_as_markup_or_formulas(script, place, tmp_path):
    """rich fails on a closing tag without an opening one, matplotlib on an invalid formula."""
    names = [f"{HOSTILE}{i}" for i in range(10)]
    name = "[red] $\\foo$.png"
    place(Case("predict", "", files={name: picture}, edits={"dataset.class_names": names}))
    outcome = script("predict", name, "--workdir", "run")
    assert outcome.code == 0, outcome.err
    assert name in outcome.out
    assert HOSTILE in outcome.out
    outcome = script("explain", name, "--workdir", "run")
    assert outcome.code == 0, outcome.err
    maps = [path.name for path in (tmp_path / "cwd" / "maps").iterdir()]
    assert maps == ["[red] $\\foo$-maps.png"]


def test_titles_are_not_read_as_formulas(tmp_path):
    from nin_jax import plotting
    from nin_jax.accounting import figures

    score = Score(1.0, np.eye(3, dtype=np.int64))
    names = (HOSTILE, "$\\frac$", "$")
    plotting.plot_confusion(score.confusion, names, HOSTILE, tmp_path / "a.png")
    plotting.plot_curves([], HOSTILE, HOSTILE, tmp_path / "b.png")
    account = nin_jax.account(nin_jax.Variant("$}$", ()), image_size=16, xla=False)
    figures.plot_layers(account, tmp_path / "c.png")


def test_report_of_a_network_whose_name_is_markup(script, tmp_path):
    (tmp_path / "cwd" / "v.json").write_text('{"name": "[b] $}$ [red]", "stages": []}')
    outcome = script("report", "--variant", "v.json", "--image-size", 16, "--batch-size", 1)
    assert outcome.code == 0, outcome.err
    assert "[b] $}$ [red]" in outcome.out
