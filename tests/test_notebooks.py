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


SLOW = {"cli/74_train"}  # it really trains
PAGES = [str(path.relative_to(ROOT / "nbs").with_suffix("")) for path in NOTEBOOKS]


@pytest.mark.parametrize(
    "notebook",
    [pytest.param(path, id=page, marks=[pytest.mark.slow] * (page in SLOW)) for path, page in zip(NOTEBOOKS, PAGES)],
)
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


def test_outputs_are_of_this_code_and_pages_follow_each_other():
    script = runpy.run_path(str(ROOT / ".ci/notebooks.py"))
    lessons = script["pages"]()
    stale = [str(path.relative_to(ROOT)) for path in lessons if not script["stored"](script["read"](path))]
    assert not stale, "stored outputs are of other code: run make notebooks"
    astray = [
        str(path.relative_to(ROOT))
        for path, line in script["links"](lessons)
        if script["read"](path).cells[-1].source != line
    ]
    assert not astray, "pages came or went: run make links"
    assert script["read"](ROOT / "nbs/lessons.ipynb").cells[-1].source == script["contents"](lessons), "run make links"


def test_readme_is_the_index_notebook():
    text = runpy.run_path(str(ROOT / ".ci/readme.py"))["render"](ROOT)
    assert (ROOT / "README.md").read_text(encoding="utf-8") == text, (
        "README.md differs from nbs/index.ipynb: run make readme"
    )
