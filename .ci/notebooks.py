"Run notebooks and store what they show, figures as small data and nothing of what went to stderr: `make notebooks`."

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
os.environ.update(
    PLOTLY_RENDERER="plotly_mimetype",
    DS_ACCELERATOR="cpu",
    HF_HUB_OFFLINE="1",
    IN_TEST="1",
    COCOIFT_SHARED=str((ROOT / os.environ.get("COCOIFT_SHARED", "../shared")).resolve()),
)


def skipped(cell) -> bool:
    return any(mark in cell.source for mark in ("#| slow", "#| gpu", "#| eval: false"))


def store(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    cells = notebook.cells
    notebook.cells = [cell for cell in cells if not skipped(cell)]
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    for cell in cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                output.get("data", {}).pop("text/html", None) if "application/vnd.plotly.v1+json" in output.get(
                    "data", {}
                ) else None
    notebook.cells = cells
    nbformat.write(notebook, path)


for path in [Path(name) for name in sys.argv[1:]] or sorted((ROOT / "nbs").rglob("*.ipynb")):
    if ".ipynb_checkpoints" not in path.parts and path.name != "index.ipynb":
        print(path, flush=True)
        store(path)
