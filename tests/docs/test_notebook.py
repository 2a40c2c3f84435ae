"""The notebook of the exercise runs from top to bottom; its committed outputs are of such a run."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import nin_jax

ROOT = Path(__file__).resolve().parent.parent.parent
NOTEBOOK = ROOT / "docs" / "exercise.ipynb"
MOST_BYTES = 500_000
HANGS_AFTER = 1800  # seconds in one cell; no statement about speed


def read():
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell):
    return "".join(o.text for o in cell.outputs if o.output_type == "stream")


def assert_is_a_clean_run(notebook):
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type in ("stream", "display_data"), cell.id
            assert output.get("name") != "stderr", output.text


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The notebook after a run in an empty folder, with nothing of the user's Jupyter settings."""
    folder = tmp_path_factory.mktemp("notebook")
    own = {
        name: str(folder / name)
        for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
    }
    tree = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PLATFORM_DIRS", "1")  # jupyter_core warns without it
        for name, value in (own | tree).items():
            patch.setenv(name, value)
        work = folder / "work"
        work.mkdir()
        notebook = read()
        client = NotebookClient(
            notebook,
            timeout=HANGS_AFTER,
            kernel_name="python3",
            resources={"metadata": {"path": str(work)}},
        )
        client.execute()
        assert list(work.iterdir()) == []
    return notebook


def test_it_runs_without_errors_and_warnings(executed):
    assert_is_a_clean_run(executed)


def test_its_counts_are_those_committed(executed):
    """Accuracies differ from one machine to the next; what is tagged as exact does not."""
    exact = 0
    for now, committed in zip(code_cells(executed), code_cells(read()), strict=True):
        if "exact" in now.metadata.get("tags", []):
            assert printed(now) == printed(committed)
            exact += 1
    assert exact > 0
    nin = nin_jax.count_params(nin_jax.create_model("nin"))
    assert f"nin has {nin:,} parameters" in "".join(map(printed, code_cells(executed)))


def test_the_committed_outputs_are_a_run_and_tell_nothing_of_the_machine():
    notebook = read()
    nbformat.validate(notebook)
    assert_is_a_clean_run(notebook)
    assert notebook.metadata.keys() == {"kernelspec", "language_info"}
    assert all(cell.metadata.keys() <= {"tags"} for cell in notebook.cells)  # so no times either
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < MOST_BYTES
    assert not [
        word for word in ("/home/", "/tmp/", str(Path.home()), "site-packages") if word in text
    ]
