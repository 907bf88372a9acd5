"""No import circle: every module can be imported first, whatever was imported before."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("sim", "experts", "lgdrl", "baselines")


def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name] = path
    return found


def imported(tree: ast.AST) -> Iterator[str]:
    """Names of what a module imports when it is imported: not in functions, nor for type checking only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            yield node.module
        yield from imported(node)


def test_modules_import_each_other_in_one_direction_only():
    paths = modules()
    graph = {
        name: {found for found in imported(ast.parse(path.read_text(encoding="utf-8"))) if found in paths} - {name}
        for name, path in paths.items()
    }
    while ready := [name for name, needed in graph.items() if not needed]:  # Kahn's algorithm
        for name in ready:
            del graph[name]
        for needed in graph.values():
            needed -= set(ready)
    assert not graph, f"import circle among: {', '.join(sorted(graph))}"
