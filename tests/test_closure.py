"""The import closure against what Python itself imports, then the digest: what changes it and what does not."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from roadseg import closure
from roadseg.errors import UserError

MODULES = {
    "roadseg/__init__.py": "",
    "roadseg/base.py": "VALUE = 1\n",
    "roadseg/only_types.py": "",
    "roadseg/late.py": "from roadseg import base\n",
    "roadseg/unused.py": "import roadseg.base\n",
    "roadseg/parts/__init__.py": "from .one import ONE\n",
    "roadseg/parts/one.py": "from ..base import VALUE\nONE = VALUE\n",
    "roadseg/parts/two.py": "from . import one\nimport json, os.path\n",
    "roadseg/stages/__init__.py": "",
    "roadseg/stages/work.py": (
        '"""Works."""\n'
        "from typing import TYPE_CHECKING\n"
        "from roadseg.parts import two\n"
        "if TYPE_CHECKING:\n    from roadseg import only_types\n"
        "def run():\n    from roadseg.late import base\n    return two\n"
    ),
    "../pipelines/__init__.py": "",
    "../pipelines/flow.py": "from roadseg.stages import work\n",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    source = tmp_path / "src"
    for name, text in MODULES.items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(closure, "SOURCE", source)
    monkeypatch.setattr(closure, "PACKAGES", {"roadseg": source, "pipelines": tmp_path})
    closure._imports.cache_clear()
    yield source
    closure._imports.cache_clear()


def imported_by_python(module: str, call: str, project: Path) -> set[str]:
    code = f"import sys, {module}\n{call}\nprint(*sys.modules)"
    command, where = [sys.executable, "-c", code], {"PYTHONPATH": str(project)}
    result = subprocess.run(command, cwd=project.parent, env=where, capture_output=True, text=True, check=True)
    return {name for name in result.stdout.split() if name.split(".")[0] in ("roadseg", "pipelines")}


@pytest.mark.parametrize(
    ("module", "call"),
    [
        ("roadseg.base", ""),
        ("roadseg.parts.two", ""),
        ("roadseg.stages.work", "roadseg.stages.work.run()"),
        ("pipelines.flow", "pipelines.flow.work.run()"),
    ],
)
def test_closure_is_what_python_imports(project: Path, module: str, call: str) -> None:
    assert set(closure.closure(module)) == imported_by_python(module, call, project)


def test_type_checking_and_unused_modules_stay_out(project: Path) -> None:
    modules = closure.closure("pipelines.flow")
    assert "roadseg.only_types" not in modules
    assert "roadseg.unused" not in modules


def test_a_circle_of_imports_ends(project: Path) -> None:
    (project / "roadseg/base.py").write_text("import roadseg.late\n")
    assert closure.closure("roadseg.base") == ("roadseg", "roadseg.base", "roadseg.late")


def test_unknown_module_is_named(project: Path) -> None:
    with pytest.raises(UserError, match=r"no module roadseg\.nothing under"):
        closure.closure("roadseg.nothing")
    with pytest.raises(UserError, match="no module numpy under"):
        closure.digest(["numpy"])


def test_of_stage_gives_paths_from_the_root_and_prefers_the_flow(project: Path) -> None:
    work = ["base", "late", "parts/__init__", "parts/one", "parts/two", "stages/__init__", "stages/work"]
    assert closure.of_stage("work") == [Path(f"src/roadseg/{name}.py") for name in work]
    assert closure.of_stage("flow")[:2] == [Path("pipelines/flow.py"), Path("src/roadseg/base.py")]


def test_the_cpp_of_a_package_belongs_to_it(project: Path) -> None:
    (project / "roadseg/parts/one.cpp").write_text("int one = 1;\n")
    (project / "roadseg/parts/one.h").write_text("extern int one;\n")
    assert {Path("src/roadseg/parts/one.cpp"), Path("src/roadseg/parts/one.h")} <= set(closure.of_stage("work"))
    before = closure.digest(["roadseg.parts.one"]), closure.digest(["roadseg.base"])
    (project / "roadseg/parts/one.cpp").write_text("// As many\n// as there are.\n\nint one\n    = 1; // not 2\n")
    assert closure.digest(["roadseg.parts.one"]) == before[0], "comments and layout do nothing"
    (project / "roadseg/parts/one.cpp").write_text("int one = 2;\n")
    assert closure.digest(["roadseg.parts.one"]) != before[0]
    assert closure.digest(["roadseg.base"]) == before[1]


BEFORE = "X = 1\ndef f(a):\n    return a + X\n"


@pytest.mark.parametrize(
    ("after", "same"),
    [
        ('"""What it is."""\nX = 1\ndef f(a):\n    """What it does."""\n    return a + X\n', True),
        ("X = 1  # metres\n\n\ndef f(\n    a,\n):\n    return (a + X)\n", True),
        ('X = 1\n"""Metres."""\ndef f(a):\n    return a + X\n', True),
        ("X = 2\ndef f(a):\n    return a + X\n", False),
        ("X = 1\ndef f(b):\n    return b + X\n", False),
        ("def f(a):\n    return a + X\nX = 1\n", False),
    ],
)
def test_digest_sees_code_alone(project: Path, after: str, same: bool) -> None:
    path = project / "roadseg/base.py"
    path.write_text(BEFORE)
    before = closure.digest(["roadseg.base"])
    path.write_text(after)
    assert (closure.digest(["roadseg.base"]) == before) is same


def test_a_function_of_a_docstring_alone_equals_pass(project: Path) -> None:
    path = project / "roadseg/base.py"
    path.write_text('def f():\n    """Nothing."""\n')
    before = closure.digest(["roadseg.base"])
    path.write_text("def f():\n    pass\n")
    assert closure.digest(["roadseg.base"]) == before


def test_digest_follows_imports_unless_told_not_to(project: Path) -> None:
    before = closure.digest(["roadseg.late"]), closure.digest(["roadseg.late"], imports=False)
    (project / "roadseg/base.py").write_text("VALUE = 2\n")
    assert closure.digest(["roadseg.late"]) != before[0]
    assert closure.digest(["roadseg.late"], imports=False) == before[1]


def test_digest_knows_which_module_and_not_their_order(project: Path) -> None:
    assert closure.digest(["roadseg.only_types"]) != closure.digest(["roadseg.stages"])
    assert closure.digest(["roadseg.base", "roadseg.late"]) == closure.digest(["roadseg.late", "roadseg.base"])


def test_the_real_package_is_where_it_says() -> None:
    assert closure.files(["roadseg.closure"]) == [Path("src/roadseg/closure.py")]
    assert set(closure.closure("roadseg.config")) == {"roadseg", "roadseg.config", "roadseg.errors"}


def test_rewriting_the_graph_mends_its_code_lists_and_nothing_else() -> None:
    graph = Path("dvc.yaml").read_text(encoding="utf-8")
    broken = graph.replace("        - src/roadseg/scenes/download.py\n", "").replace(
        "      - src/roadseg/metrics.py\n", "      - src/roadseg/metrics.py\n      - src/roadseg/nobody.py\n"
    )
    assert broken != graph
    assert closure.rewritten(broken) == graph
