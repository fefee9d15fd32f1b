"""Every import at any depth of a Python file or a notebook, resolved, in one process; nothing is run.

`python imports.py FOLDER...` prints, as JSON, what was looked at and what is not there."""

import ast
import importlib
import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

# a module's name in a text: for runpy, a launcher's --module, import_module
DOTTED = re.compile(r"(?:cocoift|apps)(?:\.[a-z_]\w*)+")
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
IMPORTS = (ast.Import, ast.ImportFrom)
ON_A_GPU = {"liger_kernel", "magi_attention"}  # need its compiler: a run proves them before its first step


def sources(folder: Path) -> Iterator[tuple[Path, str, list[str]]]:  # file, code, the package it is in
    for path in sorted(folder.rglob("*.py")):
        if path.name != "_modidx.py":
            yield path, path.read_text(encoding="utf-8"), [folder.name, *path.relative_to(folder).parent.parts]
    for path in sorted(folder.rglob("*.ipynb")):
        cells = [
            "".join(cell["source"])
            for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
            if cell["cell_type"] == "code"
        ]
        for code in cells:
            if not code.lstrip().startswith("%%"):
                yield path, re.sub(r"(?m)^(\s*)(?:!|%\w).*", r"\1pass", code), []


@cache
def module(name: str):
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def there(name: str, of: str = "") -> bool:  # a module, or a name of one
    if not of:
        return module(name) is not None
    return module(of) is not None and (hasattr(module(of), name) or module(f"{of}.{name}") is not None)


def base_of(node: ast.ImportFrom, package: list[str]) -> str:
    above = package[: len(package) - node.level + 1] if node.level else []
    return ".".join([*above, *(node.module.split(".") if node.module else [])])


def imported(
    node: ast.AST, package: list[str]
) -> Iterator[tuple[str, str, str]]:  # the name it is bound to; the name, and the module that it is of
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.asname or alias.name.partition(".")[0], alias.name, ""
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
            yield alias.asname or alias.name, alias.name, base_of(node, package)


@cache
def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ModuleNotFoundError, AttributeError):
        return False


def rebound(function: ast.AST) -> set[str]:  # what a function binds otherwise than by an import
    nodes = list(ast.walk(function))
    return {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)} | {
        n.arg for n in nodes if isinstance(n, ast.arg)
    }


def modules_of(
    scope: ast.AST, package: list[str]
) -> dict[str, str]:  # of ours, by the names that imports bind in a scope
    bindings = {
        name: f"{of}.{what}" if of else what
        for node in ast.walk(scope)
        if isinstance(node, IMPORTS)
        for name, what, of in imported(node, package)
    }
    return {
        name: full
        for name, full in bindings.items()
        if full.startswith(("cocoift.", "apps.")) and name != full.partition(".")[0] and is_module(full)
    }


def attributes(
    node: ast.AST, package: list[str], known: dict[str, str]
) -> Iterator[tuple[int, str, str]]:  # line, name, module: of `study.FULL`, where `study` is a module of ours
    if isinstance(node, (ast.Module, *SCOPES)):
        again = rebound(node) if known else set()
        known = {name: full for name, full in known.items() if name not in again} | modules_of(node, package)
        if isinstance(node, ast.Module) and not known:  # nor is there one further within
            return
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in known:
        yield node.lineno, node.attr, known[node.value.id]
    for child in ast.iter_child_nodes(node):
        yield from attributes(child, package, known)


def look(path: Path, code: str, package: list[str]) -> Iterator[tuple[str, bool]]:
    tree = ast.parse(code)
    for node in ast.walk(tree):
        for _, name, of in imported(node, package) if isinstance(node, IMPORTS) else ():
            if (of or name).partition(".")[0] in ON_A_GPU:
                continue
            yield (
                f"{path}:{node.lineno}: {f'from {of} import {name}' if of else f'import {name}'}",
                name == "*" and there(of) or there(name, of),
            )
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and DOTTED.fullmatch(node.value):
            yield (
                f"{path}:{node.lineno}: {node.value!r}",
                is_module(node.value) or there(*node.value.rpartition(".")[::-2]),
            )
    for line, name, of in attributes(tree, package, {}):
        yield f"{path}:{line}: {name} of {of}", there(name, of)


if __name__ == "__main__":
    found = [pair for folder in sys.argv[1:] for source in sources(Path(folder).resolve()) for pair in look(*source)]
    print(json.dumps({"looked": len(found), "missing": sorted({text for text, right in found if not right})}))
