"""What the house counts of itself, over the whole tree, without importing it: one JSON document.

`python tests/house.py [--at REV] [--lists]`: of this tree or of another revision; `--lists` names what was counted.

*Public*: in a module's `__all__`, and not `_underscored`.
*Long lines*: of more than 120 columns, in code.
A cell *shows* if it is not exported, hidden or skipped and ends in an expression that is no call to something which
returns nothing (a test, a function of the package annotated `-> None`, `append` and its like), or if it prints,
displays or runs a shell command outside of functions and conditions.
A *fork on a benchmark* compares something called bench, benchmark, exam or name with a registered benchmark's name, or
asks whether it is in a collection of which most are; the benchmark's own module may.
A *circle* is a set of files that import each other, at any depth of their code.
A *page* links to its neighbours if it names the files before and after it in its folder.
A *logical line* is a statement, docstrings aside."""

import ast
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

COLUMNS, MODULE, BODY, MOST_BODY = 120, 300, 30, 40
WORDS = ("told", "said", "found", "some", "kept", "given")
SILENT = set(
    "add append clear close copy copytree extend fill_ filterwarnings insert mkdir pop remove rename rmtree save seed "
    "setattr setdefault show_pictures simplefilter sort symlink_to touch unlink update write write_bytes "
    "write_text".split()
)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def walked(tree: ast.AST) -> list[ast.AST]:  # many counts look at the same trees
    return list(ast.walk(tree))


def modules(root: Path) -> dict[str, Path]:  # "eval/run.py" -> its file
    package = root / "cocoift"
    return {
        path.relative_to(package).as_posix(): path
        for path in sorted(package.rglob("*.py"))
        if path.name != "_modidx.py"
    }


def notebooks(root: Path) -> list[Path]:
    return sorted(path for path in (root / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)


@cache
def cells(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def duplicate_names(root: Path) -> dict[str, list[str]]:
    homes = defaultdict(list)
    for name, path in modules(root).items():
        for node in parsed(path).body:
            if names_all(node):
                for public in ast.literal_eval(node.value):
                    homes[public].append(name)
    return {name: found for name, found in sorted(homes.items()) if len(found) > 1 and not name.startswith("_")}


def names_all(node: ast.AST) -> bool:
    return isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]


def too_long(path: Path) -> list[int]:  # the numbers of its lines, `__all__` aside, which nbdev writes
    lines = path.read_text(encoding="utf-8").splitlines()
    long = [number for number, line in enumerate(lines, 1) if len(line) > COLUMNS]
    if long:
        written = [range(node.lineno, node.end_lineno + 1) for node in parsed(path).body if names_all(node)]
        return [number for number in long if not any(number in lines for lines in written)]
    return long


def long_lines(root: Path) -> list[str]:
    scripts = [path for folder in ("apps", "tests") for path in sorted((root / folder).rglob("*.py"))]
    places = [
        f"{path.relative_to(root)}:{number}"
        for path in [*modules(root).values(), *scripts]
        for number in too_long(path)
    ]
    return places + [
        f"{path.relative_to(root)}:{k}"
        for path in notebooks(root)
        for k, cell in enumerate(cells(path))
        if cell["cell_type"] == "code"
        for line in "".join(cell["source"]).splitlines()
        if len(line) > COLUMNS
    ]


def silent_functions(root: Path) -> set[str]:
    return SILENT | {
        node.name
        for path in modules(root).values()
        for node in walked(parsed(path))
        if isinstance(node, FUNCTIONS) and isinstance(node.returns, ast.Constant) and node.returns.value is None
    }


def called(node: ast.AST) -> str:  # the name that is called
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def run_at_once(node: ast.AST) -> Iterator[ast.AST]:  # outside of functions and conditions
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (*FUNCTIONS, ast.Lambda, ast.ClassDef, ast.If)):
            yield from run_at_once(child)


def shows(source: str, silent: set[str]) -> bool:
    if re.search(r"(?m)^#\|\s*(export\w*|exec_doc|hide|default_exp|eval:\s*false|skip|slow|gpu)\b", source):
        return False
    if re.match(r"\s*%%", source):
        return "%%capture" not in source
    if re.search(r"(?m)^\s*!", source):
        return True
    tree = ast.parse(re.sub(r"(?m)^%.*$", "", source))
    if any(called(node) in ("print", "display") for node in run_at_once(tree)):
        return True
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr) or source.rstrip().endswith(";"):
        return False
    name = called(last.value)
    text = isinstance(last.value, ast.Constant) and isinstance(last.value.value, str)
    return not (text or name in silent or name.startswith(("test_", "expect_", "activation_checkpointing_")))


def blind_cells(root: Path) -> tuple[int, list[str]]:  # how many show something, and those without an output
    silent, showing, blind = silent_functions(root), 0, []
    for path in notebooks(root):
        for k, cell in enumerate(cells(path)):
            if cell["cell_type"] == "code" and shows("".join(cell["source"]), silent):
                showing += 1
                if not cell["outputs"]:
                    blind.append(f"{path.relative_to(root)}: cell {k}")
    return showing, blind


def benchmark_names(root: Path) -> set[str]:
    names = {"rounds", "scope"}
    for name, path in modules(root).items():
        for node in walked(parsed(path)):
            if called(node) == "Benchmark" and not name.startswith("data/"):
                names |= {k.value.value for k in node.keywords if k.arg == "name" and isinstance(k.value, ast.Constant)}
    return names


def strings(
    node: ast.AST, constants: dict[str, set[str]]
) -> set[str]:  # that a constant, or a collection of them, holds
    if isinstance(node, ast.Constant):
        return {node.value} if isinstance(node.value, str) else set()
    if isinstance(node, ast.Name):
        return constants.get(node.id, set())
    if isinstance(node, ast.Starred):
        return strings(node.value, constants)
    if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        return set().union(*(strings(part, constants) for part in node.elts))
    return set()


def assigned(node: ast.Assign) -> Iterator[tuple[str, ast.AST]]:
    for target in node.targets:
        if isinstance(target, ast.Name):
            yield target.id, node.value
        elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            yield from ((t.id, v) for t, v in zip(target.elts, node.value.elts) if isinstance(t, ast.Name))


def mostly(these: set[str], names: set[str]) -> bool:
    return 2 * len(these & names) > len(these)


def benchmark_forks(root: Path) -> list[str]:
    names, forks = benchmark_names(root), []
    subject = re.compile(r"bench|exam\b|\bname\b")
    for module, path in modules(root).items():
        if module.startswith("eval/benchmarks/"):
            continue
        tree, constants = parsed(path), {}
        for node in tree.body:
            if isinstance(node, ast.Assign):
                constants.update({name: strings(value, constants) for name, value in assigned(node)})
        for node in walked(tree):
            pairs = []
            if isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.Eq, ast.NotEq)):
                pairs = [(node.left, node.comparators[0]), (node.comparators[0], node.left)]
                pairs = [(a, b) for a, b in pairs if isinstance(b, ast.Constant)]
            elif isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.In, ast.NotIn)):
                pairs = [(node.left, node.comparators[0])]
            elif called(node) == "isin" and node.args:
                pairs = [(node.func.value, node.args[0])]
            if any(subject.search(ast.unparse(a)) and mostly(strings(b, constants), names) for a, b in pairs):
                forks.append(f"{module}:{node.lineno}: {ast.unparse(node)}")
    return forks


def imports(name: str, path: Path, known: set[str]) -> set[str]:  # the files of the package that a file imports
    package, wanted = ["cocoift", *Path(name).parent.parts], set()
    for node in walked(parsed(path)):
        if isinstance(node, ast.Import):
            wanted |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base += node.module.split(".") if node.module else []
            inner = {".".join([*base, alias.name]) for alias in node.names}
            below = {full for full in inner if file_of(full) in known}
            wanted |= below if below == inner else below | {".".join(base)}
    return {file_of(full) for full in wanted} & known - {name}


def file_of(full: str) -> str:
    return full.removeprefix("cocoift.").replace(".", "/") + ".py" if full.startswith("cocoift.") else ""


def circles(root: Path) -> list[list[str]]:
    "The strongly connected sets of files (Tarjan)."
    files = modules(root)
    graph = {name: sorted(imports(name, path, set(files))) for name, path in files.items()}
    number, low, stack, sets = {}, {}, [], []

    def visit(name: str) -> None:
        number[name] = low[name] = len(number)
        stack.append(name)
        for other in graph[name]:
            if other not in number:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], number[other])
        if low[name] == number[name]:
            at = stack.index(name)
            sets.append(sorted(stack[at:]))
            del stack[at:]

    for name in graph:
        if name not in number:
            visit(name)
    return [files for files in sets if len(files) > 1]


def bodies(tree: ast.AST) -> Iterator[tuple[str, int]]:  # name, lines, the signature and the docstring aside
    for node in walked(tree):
        if isinstance(node, FUNCTIONS):
            first = node.body[ast.get_docstring(node) is not None :] or node.body
            yield node.name, node.body[-1].end_lineno - first[0].lineno + 1


def long_functions(root: Path) -> dict[str, int]:
    return {
        f"{module}: {name}": lines
        for module, path in modules(root).items()
        for name, lines in bodies(parsed(path))
        if lines > BODY
    }


def number(path: Path) -> str:
    return re.match(r"\d*", path.name)[0]


def duplicate_numbers(root: Path) -> list[str]:
    counts = Counter((path.parent, number(path)) for path in notebooks(root) if number(path))
    return [f"{folder.relative_to(root)}: {n}" for (folder, n), times in sorted(counts.items()) if times > 1]


def lonely_pages(root: Path) -> list[str]:
    lonely, pages = [], [path for path in notebooks(root) if number(path)]
    for folder in sorted({path.parent for path in pages}):
        row = [path for path in pages if path.parent == folder]
        for k, path in enumerate(row):
            prose = "".join("".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "markdown")
            linked = {Path(target).name for target in re.findall(r"\]\(([^)#\s]+)", prose)}
            if not {other.name for other in row[max(k - 1, 0) : k] + row[k + 1 : k + 2]} <= linked:
                lonely.append(str(path.relative_to(root)))
    return lonely


def bindings(root: Path) -> dict[str, int]:
    nodes = [node for path in modules(root).values() for node in walked(parsed(path))]
    names = [n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    counts = Counter([*names, *(n.arg for n in nodes if isinstance(n, ast.arg))])
    return {word: counts[word] for word in WORDS}


def statements(tree: ast.AST) -> int:
    nodes = [node for node in walked(tree) if isinstance(node, ast.stmt)]
    texts = [
        n
        for n in nodes
        if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant) and isinstance(n.value.value, str)
    ]
    return len(nodes) - len(texts)


def look(root: Path) -> tuple[dict[str, int], dict]:  # the counts, and what was counted
    files = modules(root)
    sizes = {name: path.read_text(encoding="utf-8").count("\n") for name, path in files.items()}
    functions, (showing, blind) = long_functions(root), blind_cells(root)
    lists = {
        "names_in_two_modules": duplicate_names(root),
        "long_lines": long_lines(root),
        "showing_cells_without_output": blind,
        "forks_on_a_benchmark": benchmark_forks(root),
        "file_circles": circles(root),
        "modules_over_300": {name: n for name, n in sizes.items() if n > MODULE},
        "functions_over_30": functions,
        "functions_over_40": {name: n for name, n in functions.items() if n > MOST_BODY},
        "duplicate_numbers": duplicate_numbers(root),
        "pages_without_neighbours": lonely_pages(root),
        "words": bindings(root),
    }
    counts = {name: len(value) for name, value in lists.items() if name != "words"} | {
        "bindings_of_told_said_found_some_kept_given": sum(lists["words"].values()),
        "showing_cells": showing,
        "modules": len(files),
        "notebooks": len(notebooks(root)),
        "logical_lines": sum(statements(parsed(path)) for path in files.values()),
        "lines": sum(sizes.values()),
    }
    return counts, lists


def at(root: Path, revision: str, folder: Path) -> Path:
    "The tree of another revision, unpacked."
    archive = subprocess.run(
        ["git", "archive", revision, "cocoift", "nbs", "apps", "tests"], cwd=root, check=True, capture_output=True
    )
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    return folder


if __name__ == "__main__":
    here, arguments = Path(__file__).resolve().parent.parent, sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        tree = at(here, arguments[arguments.index("--at") + 1], Path(folder)) if "--at" in arguments else here
        counts, lists = look(tree)
    print(json.dumps(counts | ({"lists": lists} if "--lists" in arguments else {}), indent=1, ensure_ascii=False))
