"""examples/notebook.ipynb runs from its first cell to its last."""

import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="pip install nbclient ipykernel")
nbclient = pytest.importorskip("nbclient", reason="pip install nbclient ipykernel")
pytest.importorskip("ipykernel", reason="pip install nbclient ipykernel")

NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebook.ipynb"


@pytest.mark.filterwarnings("ignore")  # of the client's packages
def test_the_notebook(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, 4)
    assert all(not cell.outputs for cell in notebook.cells if cell.cell_type == "code")
    client = nbclient.NotebookClient(
        notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()  # an exception in a cell rises here
    found = "".join(cell.outputs[-1].data["text/plain"] for cell in notebook.cells
                    if cell.cell_type == "code" and "model.evaluate" in cell.source)  # fmt: skip
    accuracy = re.search(r"0\.\d+|1\.0", found)
    assert accuracy is not None
    assert float(accuracy[0]) > 0.9
    assert (tmp_path / "wine.html").stat().st_size > 10_000
