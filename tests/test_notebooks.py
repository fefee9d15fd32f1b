"Every notebook runs from top to bottom, and README.md is what the index notebook says."

import json
import re
import runpy
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NBDEV = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["nbdev"]
NOTEBOOKS = sorted(path for path in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: str(path.relative_to(ROOT / "nbs").with_suffix("")))
def test_runs(notebook, apart, request, monkeypatch):
    if notebook.parent.name == "tutorials":
        monkeypatch.setenv("COCOIFT_STUDY", str(request.getfixturevalue("tiny_quickstart")[0]))
    done = apart(
        {"notebook": {"path": str(notebook), "skipped": NBDEV["tst_flags"].split(), "seconds": NBDEV["cell_timeout"]}}
    )
    assert done.returncode == 0, f"nbs/{notebook.relative_to(ROOT / 'nbs')}\n{done.stderr}"


def test_links_lead_somewhere():
    missing = []
    for notebook in NOTEBOOKS:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        text = "".join("".join(cell["source"]) + "\n" for cell in cells if cell["cell_type"] == "markdown")
        targets = re.findall(r"\]\((?![a-z]+:|#)([^)\s#]+)", text)
        missing += [(str(notebook.relative_to(ROOT)), to) for to in targets if not (notebook.parent / to).exists()]
    assert not missing


def test_readme_is_the_index_notebook():
    text = runpy.run_path(str(ROOT / ".ci/readme.py"))["render"](ROOT)
    assert (ROOT / "README.md").read_text(encoding="utf-8") == text, (
        "README.md differs from nbs/index.ipynb: run make readme"
    )
