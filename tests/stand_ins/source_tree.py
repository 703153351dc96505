"""The three packages as syntax trees: what is where, and who imports whom."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("imgalign", "reward_models", "ui")
BY_TEXT = ("import_module", "__import__")
"""Functions that import a module by its name as text."""


def sources() -> dict[str, Path]:
    """Every module of the three packages by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


SOURCES = sources()


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(SOURCES[module].read_text(encoding="utf-8"))


@cache
def imports(module: str) -> tuple[str, ...]:
    """Every module that this one imports, at the top, inside a function or by its name as text."""
    return tuple(_imports(module))


def _imports(module: str) -> Iterator[str]:
    package = module if SOURCES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) + 1 - node.level]
            base = ".".join([*(parents if node.level else []), *filter(None, [node.module])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield full if full in SOURCES else base
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(BY_TEXT):
            yield from (str(each.value) for each in node.args[:1] if isinstance(each, ast.Constant))


def ours(module: str) -> list[str]:
    """Those of its imports that lie in the three packages."""
    return [name for name in imports(module) if inside(name, PACKAGES)]


def inside(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def modules_of(*packages: str) -> list[str]:
    return [module for module in SOURCES if inside(module, packages)]


def calls(module: str) -> Iterator[tuple[ast.Call, str]]:
    """Every call in a module, with the text of what is called."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def classes(module: str) -> Iterator[ast.ClassDef]:
    return (node for node in ast.walk(tree(module)) if isinstance(node, ast.ClassDef))


def called(module: str) -> dict[str, str]:
    """What a module imports under another name: the name there, then the one it has elsewhere."""
    return {
        alias.asname: alias.name
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname
    }


def is_protocol(node: ast.ClassDef) -> bool:
    return any(ast.unparse(base).partition("[")[0] == "Protocol" for base in node.bases)


def methods(node: ast.ClassDef) -> set[str]:
    """Names of the methods and properties that a class defines itself."""
    return {each.name for each in node.body if isinstance(each, ast.FunctionDef)}


def assert_none(offenders: list[str]) -> None:
    assert not offenders, "\n".join(offenders)
