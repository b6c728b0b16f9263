"""A retrain's worktree, its subprocesses and its report, on a toy DVC project; Prefect itself only where it must be."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

import pipelines
from pipelines.processes import end_group, group, lines
from pipelines.report import report
from pipelines.worktree import Ran, StageFailed, Worktree, worktree
from roadseg.errors import UserError
from tests.test_overfit import STREETS, prepared

PROJECT = Path(__file__).resolve().parents[1]
GRAPH = {
    "stages": {
        "judge": {"cmd": f"{sys.executable} toy.py judge", "deps": ["model.json"], "outs": ["score.json"]},
        "fit": {
            "cmd": f"{sys.executable} toy.py fit",
            "deps": ["data.json"],
            "params": ["fit"],
            "outs": ["model.json"],
        },
        "fetch": {
            "foreach": "${sources}",
            "do": {"cmd": f"{sys.executable} toy.py data", "outs": [{"data.json": {"cache": False}}]},
        },
    }
}
TOY = """
import json, os, pathlib, sys, yaml
name = sys.argv[1]
settings = yaml.safe_load(open("params.yaml"))["fit"]
print("\\x1b[32mworking\\x1b[0m on", name, flush=True)
if name == "fit" and settings["fail"]:
    record = pathlib.Path(os.environ["ROADSEG_HOME"], ".state/errors/fit.json")
    record.parent.mkdir(parents=True, exist_ok=True)
    if settings["fail"] == "said":
        what = {"stage": "fit", "kind": "user", "message": "0016E5.png: class id 77: fix the mask"}
        record.write_text(json.dumps(what))
    sys.exit("it went wrong")
out = {"data": "data.json", "fit": "model.json", "judge": "score.json"}[name]
pathlib.Path(out).write_text(json.dumps({"epochs": settings["epochs"], "of": name}))
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git project with three trivial DVC stages."""
    root = tmp_path_factory.mktemp("toy")
    (root / "toy.py").write_text(TOY)
    (root / "dvc.yaml").write_text(yaml.safe_dump(GRAPH, sort_keys=False))
    (root / "params.yaml").write_text("sources: [streets]\nfit: {epochs: 1, fail: null}\n")
    (root / ".gitignore").write_text("/.state/\n/data.json\n/model.json\n/score.json\n")
    environment = dict(os.environ) | {"GIT_CONFIG_GLOBAL": os.devnull}
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t"]
    dvc = [sys.executable, "-m", "dvc", "init", "-q"]
    for command in ([*git, "init", "-q"], dvc, [*git, "add", "-A"], [*git, "commit", "-q", "-m", "toy"]):
        subprocess.run(command, cwd=root, env=environment, check=True)
    return root


@pytest.fixture
def project(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the toy project, as the home and the working directory."""
    root = tmp_path / "project"
    shutil.copytree(toy, root)
    monkeypatch.chdir(root)
    monkeypatch.delenv("ROADSEG_HOME", raising=False)
    return root


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_retrain_runs_in_order_restores_and_touches_nothing_else(project: Path) -> None:
    said: list[str] = []
    with worktree("HEAD") as tree:
        assert tree.stages() == ["fetch@streets", "fit", "judge"]
        tree.override({"fit.epochs": 5, "sources": ["streets"]})
        assert [tree.repro(stage, said.append).outcome for stage in ("fetch@streets", "fit")] == ["ran", "ran"]
        assert "working on fit" in said  # without the colours
        assert json.loads((tree.root / "model.json").read_text())["epochs"] == 5
    assert not tree.root.exists()
    with worktree("HEAD") as tree:
        tree.override({"fit.epochs": 5})
        assert tree.repro("fetch@streets", said.append).outcome == "ran"  # raw data is never cached
        assert tree.repro("fit", said.append).outcome == "restored"
    assert run("git", "status", "--porcelain") == ""
    assert len(run("git", "worktree", "list").splitlines()) == 1
    kept = {".git", ".dvc", ".dvcignore", ".gitignore", ".state", "dvc.yaml", "params.yaml", "toy.py"}
    assert {path.name for path in project.iterdir()} == kept


def test_a_retrain_restores_what_the_project_made_itself(project: Path) -> None:
    for stage in ("fetch@streets", "fit"):
        run(sys.executable, "-m", "dvc", "repro", "--single-item", stage)
    run("git", "add", "dvc.lock")
    run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "-m", "made")
    with worktree("HEAD") as tree:
        tree.repro("fetch@streets", len)
        assert tree.repro("fit", len).outcome == "restored"


def test_a_failure_is_the_stages_own_line_and_its_tree_stays_until_the_next(project: Path) -> None:
    with pytest.raises(StageFailed) as said, worktree("HEAD") as tree:
        (tree.root / "data.json").write_text("{}")
        tree.override({"fit.fail": "said"})
        tree.repro("fit", len)
    assert str(said.value) == "fit: 0016E5.png: class id 77: fix the mask"
    assert (tree.root / "data.json").exists()
    with pytest.raises(StageFailed) as said, worktree("HEAD") as tree:
        assert not (tree.root / "data.json").exists()
        (tree.root / "data.json").write_text("{}")
        tree.override({"fit.fail": "unsaid"})  # the record of the time before is not taken for this one's
        tree.repro("fit", len)
    assert str(said.value) == "fit: it went wrong"


def test_what_cannot_be_done_is_said_in_one_line(project: Path) -> None:
    with pytest.raises(
        UserError, match=r"^revision 'nowhere' is not in the history of .*: name a commit, a branch or a"
    ):
        worktree("nowhere").__enter__()
    tree = Worktree(project, project, "0123456789abcdef")
    for key in ("fit.epoch", "fits.epochs", "sources.0", "fit.epochs.x"):
        with pytest.raises(UserError) as said:
            tree.override({key: 3})
        assert str(said.value) == f"params.yaml at 01234567 has no key {key} (given 3)"


def test_one_retrain_at_a_time(project: Path) -> None:
    holds = (
        "import fcntl, sys, time; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True)"
    )
    lock = project / ".state/locks/retrain.lock"
    lock.parent.mkdir(parents=True)
    command = [sys.executable, "-c", f"{holds}; time.sleep(60)", str(lock)]
    with group(command, cwd=project, environment=dict(os.environ)) as other:
        assert next(lines(other)) == "held"
        with pytest.raises(UserError, match=r"^another retrain is running"):
            worktree("HEAD").__enter__()
    with worktree("HEAD"):
        pass  # the lock went with its process


FAMILY = "sh -c 'trap \"\" TERM; sleep 100 & echo $$ $!; wait; sleep 100' & wait"  # a child that minds no SIGTERM


def family(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    return [psutil.Process(int(number)) for number in next(lines(process)).split()]


def gone(processes: list[psutil.Process]) -> bool:
    return not [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def test_a_group_ends_as_a_whole(tmp_path: Path) -> None:
    with group(["sh", "-c", FAMILY], cwd=tmp_path, environment=dict(os.environ), grace_s=0.5) as process:
        children = family(process)
        assert not gone(children)
    assert gone(children)
    assert process.returncode is not None


def test_a_second_signal_does_not_cut_the_ending_short(tmp_path: Path) -> None:
    def leave(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, leave)
    poke = None
    try:
        with (
            pytest.raises(KeyboardInterrupt),
            group(["sh", "-c", FAMILY], cwd=tmp_path, environment=dict(os.environ), grace_s=1.0) as process,
        ):
            children = family(process)
            poke = subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -TERM {os.getpid()}"])
        assert gone(children)
    finally:
        signal.signal(signal.SIGTERM, before)
        if poke:
            poke.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent is gone")
def test_a_killed_parent_takes_its_group_with_it(tmp_path: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from pipelines.processes import group, lines
with group(["sh", "-c", "sleep 100 & echo $$ $!; wait"], cwd=Path("."), environment=dict(os.environ)) as process:
    for line in lines(process):
        print(line, flush=True)
"""
    environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join([str(PROJECT), str(PROJECT / "src")])}
    parent = subprocess.Popen([sys.executable, "-c", program], env=environment, cwd=tmp_path, stdout=-1, text=True)
    assert parent.stdout is not None
    children = [psutil.Process(int(number)) for number in parent.stdout.readline().split()]
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while not gone(children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert gone(children)


def test_output_comes_line_by_line_without_colours(tmp_path: Path) -> None:
    command = ["sh", "-c", r"printf '\033[1;31mred\033[0m\n\n one\rtwo\n\377\n' ; exit 3"]
    with group(command, cwd=tmp_path, environment=dict(os.environ)) as process:
        assert list(lines(process)) == ["red", " one", "two", "\ufffd"]
        assert process.returncode == 3
    end_group(process)  # of a group that is gone: nothing happens


def test_the_report_shows_decision_numbers_picture_and_stages(tmp_path: Path) -> None:
    evaluate, promote = tmp_path / "models/evaluate", tmp_path / "models/promote"
    evaluate.mkdir(parents=True)
    promote.mkdir()
    ran = [Ran("fetch@streets", "ran", 2.04), Ran("train", "restored", 61.3)]
    bare = report(tmp_path, ran, commit="0123456789abcdef", overrides={}, mlflow=None)
    assert bare.startswith("Code and settings of `01234567`.\n\n## Stages\n\n| stage |")
    assert "| fetch@streets | ran | 2.0 |\n| train | restored | 61.3 |" in bare
    (evaluate / "metrics.json").write_text('{"miou": 0.51236, "network": "a|b"}')
    (evaluate / "frontier.png").write_bytes(b"png")
    (promote / "card.md").write_text("# roadseg-x: promoted\n")
    (promote / "decision.json").write_text('{"model": "roadseg-x", "champion_version": 4}')
    full = report(
        tmp_path, ran, commit="0123456789abcdef", overrides={"train.epochs": 3}, mlflow="http://127.0.0.1:5000"
    )
    assert 'with `{"train.epochs": 3}`' in full
    assert "| miou | 0.5124 |\n| network | a\\|b |" in full
    assert "(data:image/png;base64,cG5n)" in full
    assert "# roadseg-x: promoted" in full
    assert "[Champion: version 4 of roadseg-x](http://127.0.0.1:5000/#/models/roadseg-x/versions/4)" in full


def test_a_server_record_counts_only_while_its_server_lives(tmp_path: Path) -> None:
    record = tmp_path / "server.json"
    assert pipelines.running_server(record) is None
    for text in (
        "",
        "{}",
        '{"url": "http://127.0.0.1:9/api", "pid": 999999999}',
        f'{{"url": "x", "pid": {os.getpid()}}}',
    ):
        record.write_text(text)
        assert pipelines.running_server(record) is None


def test_a_page_of_elsewhere_cannot_use_a_flows_own_server(tmp_path: Path) -> None:
    """In a process of its own: PREFECT_HOME is settled on import."""
    program = """
import urllib.error, urllib.request
from pipelines import server
from prefect.client.orchestration import get_client

def asked(address, origin, method="OPTIONS"):
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/flow_runs/filter", b"{}", headers, method=method)
    try:
        with urllib.request.urlopen(request) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        return error.code

with server.api() as address:
    print(asked(address, "https://evil.example"), asked(address, "http://127.0.0.1"))
    print(asked(address, "https://evil.example", "POST"))  # a browser sends what it need not ask for first
    with get_client(sync_client=True) as client:
        print(client.read_flow_runs())
"""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    environment |= {"PYTHONPATH": os.pathsep.join([str(PROJECT), str(PROJECT / "src")]), "ROADSEG_HOME": str(tmp_path)}
    environment |= {"http_proxy": "http://127.0.0.1:9"}  # of a company: this machine's servers are not behind it
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["400", "200", "403", "[]"], done.stderr


@pytest.fixture(scope="module")
def prefect_api() -> Iterator[None]:
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=180):
        yield


class Line:
    """Stands in for a worktree: two stages, of which `bad` fails."""

    def __init__(self, root: Path, bad: str | None = None) -> None:
        self.root, self.commit, self.bad = root, "0123456789abcdef", bad
        self.tried: list[str] = []

    def override(self, overrides: dict[str, object]) -> None:
        if "x" in overrides:
            raise UserError("params.yaml at 01234567 has no key x (given 1)")

    def stages(self) -> list[str]:
        return ["fetch@streets", "train"]

    def repro(self, stage: str, log: Callable[[str], object]) -> Ran:
        self.tried.append(stage)
        log(f"Running stage {stage}")
        if stage == self.bad:
            raise StageFailed(f"{stage}: data/a.png: class id 77: fix the mask")
        return Ran(stage, "ran", 1.0)


def test_the_flow_shows_stages_report_and_a_failures_line(
    prefect_api: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.states import Running, Scheduled

    from pipelines import retrain, runs

    monkeypatch.chdir(tmp_path)
    good, bad = Line(tmp_path), Line(tmp_path, bad="fetch@streets")
    lines_of = {"good": good, "bad": bad}
    monkeypatch.setattr(retrain, "worktree", lambda revision: nullcontext(lines_of[revision]))
    with get_client(sync_client=True) as client:
        killed = client.create_flow_run(retrain.retrain, state=Running(), tags=[runs.PROJECT])
        of_another_project = client.create_flow_run(retrain.retrain, state=Running())
        assert retrain.retrain("good", return_state=True).is_completed()
        assert client.read_flow_run(killed.id).state.is_crashed()
        assert client.read_flow_run(of_another_project.id).state.is_running()
        assert "| train | ran | 1.0 |" in client.read_artifacts()[0].data
        failed = retrain.retrain("bad", return_state=True)
        assert failed.is_failed()
        assert failed.message == "fetch@streets: data/a.png: class id 77: fix the mask"
        assert bad.tried == ["fetch@streets"]
        assert (
            retrain.retrain("good", {"x": 1}, return_state=True).message
            == "params.yaml at 01234567 has no key x (given 1)"
        )
        states = {task.name: (task.state.type.value, task.state.message) for task in client.read_task_runs()}
        assert states["fetch@streets"] in {("COMPLETED", ""), ("FAILED", failed.message), ("COMPLETED", None)}
        late, coming = (
            client.create_flow_run(retrain.retrain, state=Scheduled(scheduled_time=datetime.now(UTC) + timedelta(days)))
            for days in (-1, 1)
        )
        assert runs.cancel_missed("retrain") == 1
        assert client.read_flow_run(late.id).state.is_cancelled()
        assert client.read_flow_run(coming.id).state.is_scheduled()
        runs.create_gpu_limit()
        runs.create_gpu_limit(slots=3)  # one that is there stays as it is
        assert client.read_global_concurrency_limit_by_name("gpu").limit == 1
    with runs.turn_on("cuda"), runs.turn_on("cpu"):
        pass


def test_a_finalist_that_broke_is_tried_again_from_its_checkpoint(
    prefect_api: None, workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A disk that is full for a moment: Prefect's second attempt ends with the weights of an unbroken training. What
    the settings are to blame for is not tried again."""
    import torch
    from prefect import flow
    from prefect.utilities.annotations import quote

    from pipelines.train import finalist
    from roadseg import checkpoint
    from roadseg.errors import StageFailure
    from roadseg.stages import profile, train
    from roadseg.stages.training import Course, Recipe
    from roadseg.tracking.null import NullRun

    given = prepared(sources=STREETS, train={"epochs": 4, "batch": 2})
    profile.run(given)
    course, recipe, save = Course.open(given), Recipe("fastscnn", "dice", 0.004, 0.75), checkpoint.save
    unbroken = train.train(given, course, recipe, NullRun())
    whole = checkpoint.load(unbroken)["training"]
    unbroken.unlink()
    calls: list[int] = []

    def full_once(path: Path, state: dict[str, Any]) -> None:
        calls.append(state["training"]["step"])
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        save(path, state)

    def diverges(*arguments: object) -> None:
        calls.append(0)
        raise StageFailure("training diverged")

    quick = finalist.with_options(retry_delay_seconds=0)
    once = flow(lambda: quick(quote(given), quote(course), quote(recipe), quote(NullRun())), name="once")
    monkeypatch.setattr(checkpoint, "save", full_once)
    again = checkpoint.load(once())["training"]
    assert calls.count(calls[1]) == 2 and calls.count(calls[0]) == 1, "it went on from the first checkpoint"
    for part in ("net", "ema"):
        assert all(torch.equal(value, whole[part][name]) for name, value in again[part].items())
    calls.clear()
    monkeypatch.setattr(train, "train", diverges)
    with pytest.raises(StageFailure):
        once()
    assert calls == [0]


def test_a_wrong_schedule_is_said() -> None:
    from pipelines import serve
    from roadseg.config import Retrain

    assert (
        serve.schedule(Retrain(cron="0 3 * * 1", timezone="Europe/Berlin", revision="HEAD")).timezone == "Europe/Berlin"
    )
    with pytest.raises(UserError, match=r"^params.yaml: retrain: 'soon', 'UTC' is no schedule: "):
        serve.schedule(Retrain(cron="soon", timezone="UTC", revision="HEAD"))


def test_a_mistake_that_a_flow_finds_is_one_line(workspace: Path) -> None:
    """Prefect would show a traceback of it, and of each task that it passes through."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "ROADSEG_"))}
    command = [sys.executable, "-m", "pipelines.search"]
    done = subprocess.run(
        command, cwd=workspace, env=clean | {"PYTHONPATH": str(PROJECT)}, capture_output=True, text=True, timeout=300
    )
    assert done.stderr.endswith("search: data/profile/weights.json is missing: run the profile stage first\n")
    assert "Traceback" not in done.stderr and "Encountered" not in done.stderr
    assert done.returncode == 2
