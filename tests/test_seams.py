"""The seams of the repository: dvc.yaml, params.yaml, the command line, the Makefile, README.md and git agree.

Nothing here runs a stage. `make check` runs this file beside ruff, mypy and import-linter.
"""

import ast
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from dvc.repo import Repo
from dvc.stage import Stage

from roadseg import closure
from roadseg.cli import app
from roadseg.scenes.sources import SOURCES

ROOT = Path(__file__).resolve().parents[1]
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
VERBS = ("setup", "repro", "test", "check", "up", "bench")

UNUSED_BY_STAGES = {
    "data.mirror": "where the same bytes come from changes no result",
    "retrain": "read by what `make up` serves",
}
"""Keys of params.yaml that no stage lists in dvc.yaml, and why not."""


def git(*words: str) -> list[str]:
    result = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return result.stdout.splitlines()


def project_files() -> list[Path]:
    """What git tracks, or would after `git add -A`."""
    names = git("ls-files", "--cached", "--others", "--exclude-standard")
    return [Path(name) for name in sorted(set(names)) if (ROOT / name).is_file()]


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> list[Stage]:
    """dvc.yaml's stages as DVC resolves them with every source selected."""
    folder = tmp_path_factory.mktemp("line")
    params = yaml.safe_load(text_of("params.yaml"))
    params["data"]["sources"] = list(SOURCES)
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    shutil.copy(ROOT / "dvc.yaml", folder)
    Repo.init(str(folder), no_scm=True).close()
    with Repo(str(folder)) as line:
        assert line.index.graph.number_of_nodes() == len(line.index.stages)
        return list(line.index.stages)


def name_of(stage: Stage) -> str:
    """remap@streets -> remap"""
    return str(stage.name).partition("@")[0]


def params_of(stage: Stage) -> set[str]:
    return {key for dependency in stage.deps for key in getattr(dependency, "params", None) or ()}


def leaves(value: Any, key: str = "") -> list[str]:
    if not isinstance(value, dict) or not value:
        return [key]
    return [leaf for name, inner in value.items() for leaf in leaves(inner, f"{key}.{name}" if key else str(name))]


def covered(key: str, names: set[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


# ---- dvc.yaml --------------------------------------------------------------------------------------------------------


def test_the_graph_loads() -> None:
    with Repo(str(ROOT)) as line:
        assert line.index.graph.number_of_nodes() == len(line.index.stages) > 0


def test_every_stage_runs_a_real_command(stages: list[Stage]) -> None:
    for stage in stages:
        words = stage.cmd.split()
        if words[0] == "roadseg":
            command = COMMANDS.get(words[1])
            assert command, f"{stage.name}: {stage.cmd}: there is no such command"
            needed = [p for p in command.params if p.param_type_name == "argument" and p.required]
            assert len(words) - 2 == len(needed), f"{stage.name}: {stage.cmd}: takes {len(needed)} arguments"
            assert words[1] == name_of(stage)
        else:
            assert words == ["python", "-m", f"pipelines.{name_of(stage)}"], stage.cmd
            assert '__name__ == "__main__"' in text_of(f"pipelines/{name_of(stage)}.py")


def test_every_source_can_be_fetched_and_remapped(stages: list[Stage]) -> None:
    addresses = {stage.name for stage in stages}
    assert {f"{stage}@{source}" for stage in ("fetch", "remap") for source in SOURCES} <= addresses


def test_params_of_stages_exist(stages: list[Stage]) -> None:
    keys = leaves(yaml.safe_load(text_of("params.yaml")))
    for stage in stages:
        for name in params_of(stage):
            assert any(covered(key, {name}) for key in keys), f"{stage.name}: params.yaml has no {name}"


def test_every_key_of_params_reaches_a_stage(stages: list[Stage]) -> None:
    used = set().union(*map(params_of, stages))
    keys = leaves(yaml.safe_load(text_of("params.yaml")))
    idle = [key for key in keys if not covered(key, used) and not covered(key, set(UNUSED_BY_STAGES))]
    assert not idle, f"no stage depends on {idle}: a change there would rerun nothing"
    for name in UNUSED_BY_STAGES:
        assert any(covered(key, {name}) for key in keys), f"params.yaml has no {name} any more"
        assert not covered(name, used), f"{name} is used by a stage now"


def test_code_dependencies_are_the_import_closure(stages: list[Stage]) -> None:
    for stage in stages:
        paths = {Path(dependency.def_path) for dependency in stage.deps}
        listed = {path for path in paths if path.parts[0] in ("src", "pipelines")}
        needed = set(closure.of_stage(name_of(stage)))
        assert listed == needed, (
            f"{stage.name}: dvc.yaml lacks {sorted(map(str, needed - listed))} and has "
            f"{sorted(map(str, listed - needed))} too many: `python -m roadseg.closure` mends it"
        )


def test_an_edited_network_reruns_what_uses_networks() -> None:
    """Written out by hand: the comparison with the closure would follow a wrong import."""
    graph = yaml.safe_load(text_of("dvc.yaml"))["stages"]
    network = "src/roadseg/nets/enet.py"
    uses = {name for name, stage in graph.items() if network in stage.get("do", stage).get("deps", [])}
    assert uses == {"search", "train", "export"}


def test_data_dependencies_are_outputs_of_other_stages(stages: list[Stage]) -> None:
    outputs = {out.def_path for stage in stages for out in stage.outs}
    for stage in stages:
        for dependency in stage.deps:
            path = dependency.def_path
            if path.startswith(("data/", "models/")):
                made = any(out == path or out.startswith(f"{path}/") or path.startswith(f"{out}/") for out in outputs)
                assert made, f"{stage.name} depends on {path}, which no stage makes"


def test_git_ignores_every_output(stages: list[Stage]) -> None:
    for stage in stages:
        for out in stage.outs:
            result = subprocess.run(["git", "check-ignore", "--no-index", "-q", out.def_path], cwd=ROOT)
            assert result.returncode == 0, f"{stage.name}: git would track {out.def_path}"


def test_raw_data_is_never_cached_or_pushed(stages: list[Stage]) -> None:
    for out in (out for stage in stages if name_of(stage) == "fetch" for out in stage.outs):
        assert not out.use_cache, out.def_path


def test_metrics_are_cached(stages: list[Stage]) -> None:
    """Git ignores them, so that an uncached one would be lost to `dvc exp show` with its experiment."""
    metrics = [out for stage in stages for out in stage.outs if out.metric]
    assert metrics
    assert all(out.use_cache for out in metrics), [out.def_path for out in metrics if not out.use_cache]


def test_plots_are_files_that_a_stage_makes(stages: list[Stage]) -> None:
    outputs = {out.def_path for stage in stages for out in stage.outs}
    named: set[str] = set()
    for plot in yaml.safe_load(text_of("dvc.yaml")).get("plots", []):
        for name, settings in (plot if isinstance(plot, dict) else {plot: None}).items():
            y = settings.get("y") if settings else None
            named |= set(y) if isinstance(y, dict) else {name}
    for path in named:
        assert any(path == out or path.startswith(f"{out}/") for out in outputs), f"no stage makes the plot {path}"


# ---- git, the Makefile, the environment ------------------------------------------------------------------------------


def test_nothing_hides_the_mlflow_package() -> None:
    assert not (ROOT / "mlflow/__init__.py").exists()
    assert not (ROOT / "pipelines/prefect.py").exists()


def test_gitignore_hides_no_source() -> None:
    for name in ("src/roadseg/models/x.py", "src/roadseg/data/x.py", "tests/data/x.py", "src/roadseg/mlflow/x.py"):
        result = subprocess.run(["git", "check-ignore", "--no-index", "-q", name], cwd=ROOT)
        assert result.returncode == 1, name


def test_makefile_has_these_verbs_and_each_sets_up() -> None:
    rules = dict(re.findall(r"^([a-z]+):(.*?)##", text_of("Makefile"), flags=re.MULTILINE))
    assert set(rules) == {"help", *VERBS}
    for verb in VERBS[1:]:
        assert rules[verb].split() == ["setup"], verb


def test_continuous_integration_runs_the_verbs() -> None:
    script = ROOT / ".ci/run"
    assert script.stat().st_mode & stat.S_IXUSR
    assert script.read_text().splitlines()[-2:] == ["make check", "make test"]


def test_constraints_are_bare_pins_that_cover_what_we_ask_for() -> None:
    lines = [line for line in text_of("constraints.txt").splitlines() if not line.startswith("#")]
    pins = dict(line.split("==") for line in lines)
    assert all(re.fullmatch(r"[\w.-]+==[\w.!-]+", line) for line in lines), "a local version would pin one build"
    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    names = {re.sub(r"[-_.]+", "-", name).lower() for name in pins}
    assert set(project["dependencies"]) | set(project["optional-dependencies"]["dev"]) <= {
        *names,
        *(name.replace("-", "_") for name in names),
        *pins,
    } | {"types-PyYAML"}
    assert int(pins["fastapi"].split(".")[1]) < 151
    assert pins["SQLAlchemy"].startswith("2.0.")


def test_no_file_names_a_package_registry_or_this_machine() -> None:
    hosts = ["pypi" + ".org", "python" + "hosted.org", "anaconda" + ".org", "download.py" + "torch.org"]
    homes = ["/work" + "/", "/root" + "/"]
    for path in project_files():
        content = (ROOT / path).read_bytes()
        for word in [*hosts, *homes]:
            assert word.encode() not in content, f"{path} names {word}"


# ---- imports ---------------------------------------------------------------------------------------------------------


def test_the_command_line_imports_nothing_heavy() -> None:
    code = "import sys, roadseg.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    heavy = {"torch", "mlflow", "prefect", "optuna", "great_expectations", "onnxruntime", "openvino", "albumentations"}
    assert not (heavy | {"matplotlib", "pandas", "cv2"}) & set(loaded.split())


def test_the_bundle_script_stands_alone() -> None:
    tree = ast.parse(text_of("src/roadseg/deploy/run.py"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "." for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    foreign = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert foreign <= {"numpy", "PIL", "onnxruntime", "openvino"}


# ---- the words -------------------------------------------------------------------------------------------------------


def documents() -> list[str]:
    return ["README.md", *(str(path) for path in project_files() if path.suffix == ".md" and path.name != "README.md")]


def code_in(document: str) -> list[str]:
    """Lines of fenced blocks and inline code."""
    text = text_of(document)
    blocks = re.findall(r"^```.*?\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    return [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()] + inline


def named_in(document: str, program: str) -> list[list[str]]:
    """The calls of `program` in a document's code, as words."""
    return [line.split()[1:] for line in code_in(document) if line.startswith(f"{program} ")]


@pytest.mark.parametrize("document", documents())
def test_commands_in_documents_exist(document: str) -> None:
    for words in named_in(document, "roadseg"):
        if words == ["--help"]:
            continue
        assert words[0] in COMMANDS, f"{document}: roadseg {words[0]}: there is no such command"
        known = {option for param in COMMANDS[words[0]].params for option in param.opts}
        for word in words[1:]:
            assert not word.startswith("--") or word in known | {"--help"}, f"{document}: roadseg {' '.join(words)}"
    for words in named_in(document, "make"):
        assert words[0] in VERBS, f"{document}: make {words[0]}: there is no such verb"
    for line in code_in(document):
        for module in re.findall(r"python -m (pipelines\.\w+|roadseg[\w.]*)", line):
            assert closure.path_of(module), f"{document}: {line}"


def test_readme_names_every_command_and_verb() -> None:
    assert {words[0] for words in named_in("README.md", "roadseg")} >= set(COMMANDS)
    assert {words[0] for words in named_in("README.md", "make")} >= set(VERBS)


def test_readme_names_every_stage(stages: list[Stage]) -> None:
    section = re.search(r"^## The line\n(.*?)^## ", text_of("README.md"), flags=re.MULTILINE | re.DOTALL)
    assert section
    rows = re.findall(r"^\| `(\w+)`", section[1], flags=re.MULTILINE)
    assert rows == list(dict.fromkeys(yaml.safe_load(text_of("dvc.yaml"))["stages"]))


@pytest.mark.parametrize("document", documents())
def test_links_lead_somewhere(document: str) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)\)", text_of(document)):
        if not target.startswith(("http://", "https://")):
            assert (ROOT / document).parent.joinpath(target).exists(), f"{document}: {target} is not there"


def tree_in_readme() -> dict[str, str]:
    """Path -> caption, from the block under "## The tree": two spaces of indent a level, folders end with /."""
    block = re.search(r"^## The tree\n.*?^```\n(.*?)^```", text_of("README.md"), flags=re.MULTILINE | re.DOTALL)
    assert block, "README.md has no block under `## The tree`"
    found, folders = {}, [""]
    for line in block[1].splitlines():
        indent, name, caption = re.fullmatch(r"( *)(\S+)(?: {2,}(.*))?", line).groups()  # type: ignore[union-attr]
        depth = len(indent) // 2
        path = folders[depth] + name
        found[path] = caption or ""
        if name.endswith("/"):
            folders[depth + 1 :] = [path]
    return found


def test_readme_tree_is_the_tree() -> None:
    tree = tree_in_readme()
    assert all(tree.values()), f"without a caption: {[path for path, caption in tree.items() if not caption]}"
    actual: set[str] = set()
    for path in project_files():
        for depth in range(1, len(path.parts) + 1):
            actual.add("/".join(path.parts[:depth]) + ("/" if depth < len(path.parts) else ""))
    # Shown: the top level, the flows, and the package one level deep; below that, whatever the README likes to show.
    shown = re.compile(r"[^/]+/?|src/roadseg/([^/]+/?)?|pipelines/[^/]+")
    needed = {path for path in actual if shown.fullmatch(path)} - {"src/", "pipelines/__init__.py"}
    needed.discard("dvc.lock")  # there once the line has run; whether it is committed is the user's choice
    assert needed <= set(tree), f"README's tree lacks {sorted(needed - set(tree))}"
    assert set(tree) <= actual, f"README's tree has {sorted(set(tree) - actual)}, which are not there"
