"""The notebook of the exercise runs from top to bottom; its committed outputs are from a run."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import nin_jax

ROOT = Path(__file__).resolve().parent.parent.parent
NOTEBOOK = ROOT / "docs" / "exercise.ipynb"
MAX_BYTES = 500_000
TIMEOUT_S = 1800  # for one cell; only a cell that hangs takes this long


def read():
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def is_tagged(cell, tag):
    return tag in cell.metadata.get("tags", [])


def printed(cell):
    return "".join(o.text for o in cell.outputs if o.output_type == "stream")


def assert_is_a_clean_run(notebook):
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type in ("stream", "display_data"), cell.id
            assert output.get("name") != "stderr", output.text


def execute(folder: Path):
    """Run the notebook in an empty folder, without the user's Jupyter settings, and return it."""
    jupyter = {
        name: str(folder / name)
        for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
    }
    tree = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PLATFORM_DIRS", "1")  # jupyter_core warns without it
        for name, value in (jupyter | tree).items():
            patch.setenv(name, value)
        work = folder / "work"
        work.mkdir()
        notebook = read()
        (parameters,) = [cell for cell in code_cells(notebook) if is_tagged(cell, "parameters")]
        assert "\nEPOCHS = 4\n" in parameters.source
        parameters.source += "\nEPOCHS = 1"  # the committed outputs are those of four
        client = NotebookClient(
            notebook,
            timeout=TIMEOUT_S,
            kernel_name="python3",
            resources={"metadata": {"path": str(work)}},
        )
        client.execute()
        assert list(work.iterdir()) == []
    return notebook


@pytest.mark.slow
def test_the_notebook_runs_and_its_exact_outputs_are_those_committed(tmp_path):
    """Accuracies differ between machines; outputs of cells with the tag "exact" do not."""
    executed = execute(tmp_path)
    assert_is_a_clean_run(executed)
    exact = 0
    for now, committed in zip(code_cells(executed), code_cells(read()), strict=True):
        if is_tagged(now, "exact"):
            assert printed(now) == printed(committed)
            exact += 1
    assert exact > 0
    nin = nin_jax.count_params(nin_jax.create_model("nin"))
    assert f"nin has {nin:,} parameters" in "".join(map(printed, code_cells(executed)))


def test_the_committed_outputs_are_from_a_run_and_do_not_describe_the_machine():
    notebook = read()
    nbformat.validate(notebook)
    assert_is_a_clean_run(notebook)
    assert notebook.metadata.keys() == {"kernelspec", "language_info"}
    assert all(
        cell.metadata.keys() <= {"tags"} for cell in notebook.cells
    )  # so there are no times either
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < MAX_BYTES
    assert not [
        word for word in ("/home/", "/tmp/", str(Path.home()), "site-packages") if word in text
    ]
