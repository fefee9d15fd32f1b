"""What a reader of the notebooks sees: outputs that belong to the code above them, and a way from page to page.

`python .ci/notebooks.py [NOTEBOOK ...]` runs the notebooks whose code is not the one that their outputs were made by
(`--all`: every one) and stores what they show; figures become small pictures, so that any viewer shows them.
`--links` writes the line of links that each page ends with, and the list of lessons; nothing is run.
"""

import argparse
import base64
import io
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from hashlib import sha256
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
FLOORS = "ground models data train eval viz arena dashboard reports studies cli tutorials".split()  # from the bottom up
PLOTLY = "application/vnd.plotly.v1+json"
WIDGET = "application/vnd.jupyter.widget-view+json"  # a number that only a running kernel can look up
SKIPPED = re.compile(r"^#\s*\|\s*(slow|gpu|eval: false)\b", re.MULTILINE)


def pages() -> list[Path]:
    "All lessons in reading order: floor by floor, by number, a folder's own pages before its subfolders'."

    def place(path: Path) -> tuple:
        folders = path.relative_to(NBS).parts[:-1]
        return FLOORS.index(folders[0] if folders else "ground"), len(folders) > 1, folders, path.name

    lessons = [path for path in NBS.rglob("*.ipynb") if re.match(r"\d", path.name)]
    return sorted((path for path in lessons if ".ipynb_checkpoints" not in path.parts), key=place)


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def title(notebook: NotebookNode) -> tuple[str, str]:  # its name, and what it is about
    first = notebook.cells[0].source
    return re.search(r"^# (.+)", first, re.MULTILINE)[1], re.search(r"^> ?(.+)", first, re.MULTILINE)[1]


def stamp(notebook: NotebookNode) -> str:
    "The version of a notebook's code: what its stored outputs must be of."
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return sha256("\0".join(code).encode()).hexdigest()[:12]


def stored(notebook: NotebookNode) -> bool:  # whether the outputs are of this code
    return notebook.metadata.get("outputs_of") == stamp(notebook)


def drawn(figure: dict) -> str:  # a PNG, base64
    import kaleido
    import plotly.graph_objects as go
    from PIL import Image

    figure = go.Figure(figure, skip_invalid=True)
    options = {"format": "png", "width": figure.layout.width or 760, "height": figure.layout.height or 420}
    # Kaleido's own default asks a CDN for MathJax.
    data, small = kaleido.calc_fig_sync(figure.to_dict(), opts=options, kopts={"mathjax": False}), io.BytesIO()
    picture = Image.open(io.BytesIO(data))
    picture.convert("RGB").quantize(64).save(small, "PNG", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def settled(output: NotebookNode) -> NotebookNode:
    "An output as it is kept: a figure as a picture."
    data = output.get("data", {})
    if PLOTLY in data:
        output.data = {"image/png": drawn(data[PLOTLY]), "text/plain": "Figure"}
    if WIDGET in data:
        output.data = {"text/html": data["text/html"], "text/plain": "Widget"}
    return output


def is_kept(output: NotebookNode) -> bool:  # no warnings, no progress bars
    data = output.get("data", {})
    return output.get("name") != "stderr" and not (WIDGET in data and "text/html" not in data)


def run(path: Path) -> None:
    "Run a notebook in its folder and keep what it shows."
    from nbclient import NotebookClient

    notebook = read(path)
    cells = notebook.cells
    notebook.cells = [cell for cell in cells if not SKIPPED.search(cell.source)]
    NotebookClient(
        notebook, timeout=600, coalesce_streams=True, resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    for cell in cells:
        if cell.cell_type == "code":
            cell.outputs = [settled(output) for output in cell.outputs if is_kept(output)]
    notebook.cells = cells
    notebook.metadata.pop("widgets", None)
    notebook.metadata["outputs_of"] = stamp(notebook)
    nbformat.write(notebook, path)


def to_page(here: Path, there: Path, text: str) -> str:
    return f"[{text}]({os.path.relpath(there, here.parent)})"


def links(lessons: list[Path]) -> Iterator[tuple[Path, str]]:
    "Each lesson with the line of links that it ends with."
    names = {path: title(read(path))[0] for path in lessons}
    for before, path, after in zip([None, *lessons], lessons, [*lessons[1:], None]):
        parts = [to_page(path, NBS / "lessons.ipynb", "all lessons")]
        if before:
            parts.insert(0, "← " + to_page(path, before, names[before]))
        if after:
            parts.append(to_page(path, after, names[after]) + " →")
        yield path, " · ".join(parts)


def with_links(notebook: NotebookNode, line: str) -> NotebookNode:
    "A notebook whose last cell is its line of links."
    while notebook.cells[-1].cell_type == "markdown" and "[all lessons](" in notebook.cells[-1].source:
        notebook.cells.pop()
    notebook.cells.append(nbformat.v4.new_markdown_cell(line, id="links"))
    return notebook


def contents(lessons: list[Path]) -> str:
    "The list of lessons, floor by floor."
    here, floor, lines = NBS / "lessons.ipynb", None, []
    for path in lessons:
        folder = "/".join(path.relative_to(NBS).parts[:-1]) or "ground"
        if folder != floor:
            lines += ["", f"## {folder}", ""]
            floor = folder
        name, about = title(read(path))
        lines.append(f"- {to_page(here, path, name)}: {about}")
    return "\n".join(lines).strip()


def write_links() -> None:
    lessons = pages()
    for path, line in links(lessons):
        nbformat.write(with_links(read(path), line), path)
    index = read(NBS / "lessons.ipynb")
    index.cells[-1].source = contents(lessons)
    nbformat.write(index, NBS / "lessons.ipynb")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--links", action="store_true")
    options = parser.parse_args()
    if options.links:
        write_links()
        raise SystemExit
    os.environ |= {
        "PLOTLY_RENDERER": "plotly_mimetype",
        "DS_ACCELERATOR": "cpu",
        "HF_HUB_OFFLINE": "1",
        "IN_TEST": "1",
        "COCOIFT_SHARED": str((ROOT / os.environ.get("COCOIFT_SHARED", "../shared")).resolve()),
    }
    stale = [path for path in options.notebooks or pages() if options.all or not stored(read(path))]
    tutorials = [path for path in stale if path.parent.name == "tutorials"]  # they share a study
    with tqdm(total=len(stale), unit="notebook") as bar:
        for paths, at_once in ([path for path in stale if path not in tutorials], 2), (tutorials, 1):
            with ThreadPoolExecutor(at_once) as pool:
                running = {pool.submit(run, path): path for path in paths}
                for done in as_completed(running):
                    bar.update()
                    if error := done.exception():
                        bar.write(f"{running[done]}: {error}")
