"README.md from nbs/index.ipynb (nbdev-readme would need Quarto). `--check` only says whether README.md is current."

import re
import sys
from pathlib import Path
from posixpath import normpath

import nbformat
from nbconvert import MarkdownExporter

DIRECTIVE = re.compile(r"^#\s*\|.*\n?", re.MULTILINE)
RELATIVE_LINK = re.compile(r"\]\((?![a-z]+:|#)([^)\s]+)")


def render(root: Path) -> str:
    notebook = nbformat.read(root / "nbs/index.ipynb", as_version=4)
    notebook.cells = [cell for cell in notebook.cells if not re.match(r"#\s*\|\s*hide\b", cell.source)]
    for cell in notebook.cells:
        cell.source = DIRECTIVE.sub("", cell.source)
    text, resources = MarkdownExporter().from_notebook_node(notebook)
    if resources["outputs"]:
        raise SystemExit("nbs/index.ipynb: a picture in its outputs would be lost in README.md: clear it")
    text = RELATIVE_LINK.sub(
        lambda link: f"]({normpath('nbs/' + link[1])}", text
    )  # the reader now stands one folder higher
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


if __name__ == "__main__":
    root = Path(__file__).resolve().parent.parent
    readme, text = root / "README.md", render(root)
    if "--check" not in sys.argv:
        readme.write_text(text, encoding="utf-8")
    elif readme.read_text(encoding="utf-8") != text:
        sys.exit("README.md is not what nbs/index.ipynb says: run make readme")
