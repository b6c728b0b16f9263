"""Which of our own modules a module needs, read from the source without running it.

dvc.yaml's stages name their code as dependencies (tests/test_seams.py compares), and latencies, trainings and searches
are kept under names that change with their code. After a change of imports, write dvc.yaml's lists anew:

    python -m roadseg.closure
"""

import ast
import hashlib
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from roadseg.errors import UserError

SOURCE = Path(__file__).resolve().parents[1]
"""The folder that holds the package roadseg; its parent holds pipelines/ (absent where roadseg is installed alone)."""

PACKAGES = {"roadseg": SOURCE, "pipelines": SOURCE.parent}


def closure(module: str, without: str = "") -> tuple[str, ...]:
    """`module` and every module of roadseg and pipelines that importing and using it reads, by name, sorted.

    `without` is left out, with what only it imports: a package whose `__init__` lists its modules.

    Imports inside functions count, since the stage's result depends on them; those under `if TYPE_CHECKING:` do not run
    and do not count. A package's own `__init__` comes with each of its modules, as in Python. Names that are only known
    when the code runs (`importlib.import_module(name)`) cannot be followed.

    Raises:
        UserError: there is no such module.
    """
    found: set[str] = set()
    waiting = {module}
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting |= _imports(name) - found - {without}
    return tuple(sorted(found))


def files(modules: Iterable[str]) -> list[Path]:
    """The source files of `modules`, relative to the project's root, sorted."""
    paths = (path_of(module) for module in modules)
    return sorted(path.relative_to(SOURCE.parent) for path in paths if path)


def digest(modules: Iterable[str], *, imports: bool = True) -> str:
    """SHA-256 (hex) of what `modules` and, with `imports`, all that they import do.

    Comments, docstrings and layout do not change it, nor does the package's own `__init__` (see `of_stage`).
    """
    named = {name for module in modules for name in (closure(module) if imports else [module])}
    total = hashlib.sha256()
    for module in sorted(named - PACKAGES.keys()):
        tree = _without_texts(_parsed(module))
        total.update(f"{module}\n{ast.dump(tree)}\n".encode())
        for file in _compiled(module):
            code = re.sub(r"//.*", "", file.read_text(encoding="utf-8"))
            total.update(" ".join(code.split()).encode())
    return total.hexdigest()


def path_of(module: str) -> Path | None:
    """The source file of a module of ours; None for any other name (another package's, a function's ...)."""
    package, *rest = module.split(".")
    if package not in PACKAGES:
        return None
    path = PACKAGES[package].joinpath(package, *rest)
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


def _compiled(module: str) -> list[Path]:
    """The C++ of a package, beside its `__init__`."""
    path = path_of(module)
    if not path or path.name != "__init__.py":
        return []
    return sorted([*path.parent.glob("*.cpp"), *path.parent.glob("*.h")])


@cache
def _imports(module: str) -> frozenset[str]:
    """Our modules that `module` imports itself, with their packages and its own."""
    names, is_package = {module}, getattr(path_of(module), "name", "") == "__init__.py"
    for node in _running(_parsed(module)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, module, is_package=is_package)
            names.add(base)
            # `from package import name`: the name may be a module or something that the package defines.
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return frozenset(parent for name in names for parent in _with_packages(name) if path_of(parent))


def _parsed(module: str) -> ast.Module:
    path = path_of(module)
    if not path:
        raise UserError(f"no module {module} under {SOURCE} or {SOURCE.parent / 'pipelines'}")
    return ast.parse(path.read_bytes(), filename=str(path))


def _base(node: ast.ImportFrom, module: str, *, is_package: bool) -> str:
    """What stands between `from` and `import`, made absolute."""
    if not node.level:
        return node.module or ""
    here = module.split(".") if is_package else module.split(".")[:-1]
    parts = here[: len(here) - node.level + 1]
    return ".".join([*parts, node.module] if node.module else parts)


def _with_packages(name: str) -> Iterator[str]:
    """a.b.c: a, a.b, a.b.c"""
    parts = name.split(".")
    return (".".join(parts[:end]) for end in range(1, len(parts) + 1))


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node below `tree` but the bodies of `if TYPE_CHECKING:`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for other in node.orelse:
                yield other
                yield from _running(other)
            continue
        yield node
        yield from _running(node)


def _without_texts(tree: ast.Module) -> ast.Module:
    """`tree` without its bare string statements: docstrings of modules, classes, functions and fields."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [statement for statement in body if not _is_text(statement)]
            node.body = kept or [ast.Pass()]  # type: ignore[attr-defined]
    return tree


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def of_stage(name: str) -> list[Path]:
    """The code dependencies of a stage in dvc.yaml: the closure of roadseg.stages.NAME, or of pipelines.NAME where the
    stage is a flow, with the C++ of those packages and their folders of tables (YAML). Relative to the project's root.

    The packages' own `__init__` are left out: they hold the version and switches of the environment, and no result
    depends on them.
    """
    flow = f"pipelines.{name}"
    modules = closure(flow if path_of(flow) else f"roadseg.stages.{name}")
    code = files(module for module in modules if module not in PACKAGES)
    compiled = [
        file.relative_to(SOURCE.parent) for module in {*modules} - PACKAGES.keys() for file in _compiled(module)
    ]
    packages = [SOURCE.parent / path.parent for path in code if path.name == "__init__.py"]
    tables = {table.parent for package in packages for table in package.rglob("*.yaml")}
    return sorted([*code, *compiled, *(table.relative_to(SOURCE.parent) for table in tables)])


def rewritten(graph: str) -> str:
    """dvc.yaml's text with the code dependencies of every stage as `of_stage` gives them; all else as it was."""
    lines, stage, listed = [], "", False
    for line in graph.splitlines():
        if found := re.fullmatch(r"  (\w+):", line):
            stage = found[1]
        if found := re.match(r"( +- )(src|pipelines)/", line):
            if not listed:
                lines += [f"{found[1]}{path}" for path in of_stage(stage)]
            listed = True
            continue
        listed = False
        lines.append(line)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    path = Path("dvc.yaml")
    path.write_text(rewritten(path.read_text(encoding="utf-8")), encoding="utf-8")
