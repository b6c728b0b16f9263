import fcntl
import json
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from mlflow.tracking import MlflowClient

from roadseg import tracking
from roadseg.errors import StageFailure, UserError
from roadseg.tracking import provenance, server
from roadseg.tracking.null import NullRun, NullTracker, Run, Tracker
from roadseg.tracking.runs import MlflowRun, MlflowTracker

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture
def tracker(mlflow_uri, unique):
    with tracking.connect(unique) as connected:
        yield connected


@pytest.fixture
def client(mlflow_uri):
    return MlflowClient(mlflow_uri, mlflow_uri)


def runs_of(client, experiment):
    return client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


# ---- without MLflow --------------------------------------------------------------------------------------------------


def test_the_projects_folder_mlflow_is_no_package():
    assert not (PROJECT / "mlflow" / "__init__.py").exists(), "it would hide the mlflow package"


def test_importing_tracking_does_not_import_mlflow():
    code = "import sys, roadseg.tracking; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("null", "real", "surface"), [(NullRun, MlflowRun, Run), (NullTracker, MlflowTracker, Tracker)]
)
def test_null_and_real_offer_the_same(null, real, surface):
    offered = {name for name in vars(surface) if not name.startswith("_")}
    assert offered
    for kind in (null, real):
        assert offered <= set(dir(kind))


def test_tracking_off_records_nothing_and_starts_nothing(workspace, monkeypatch):
    monkeypatch.setenv("ROADSEG_TRACKING", "off")
    with tracking.connect() as off, off.parent(kind="search", key="k", name="n") as parent:
        with parent.child("k-1", "trial", {"a": 1}) as run:
            run.metrics({"miou": 0.5}, step=1)
            assert not run.finished
        assert off.latest({"roadseg.key": "k"}) is None
    assert not (workspace / "mlflow").exists()


def test_a_wrong_switch_is_named(monkeypatch):
    monkeypatch.setenv("ROADSEG_TRACKING", "no")
    with pytest.raises(UserError, match="ROADSEG_TRACKING is 'no': use on or off"):
        tracking.is_on()


# ---- the server ------------------------------------------------------------------------------------------------------


def test_an_address_that_is_not_http_or_does_not_answer(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    with (
        pytest.raises(UserError, match=r"MLFLOW_TRACKING_URI is 'sqlite:///mlflow.db': give the http"),
        server.connect(),
    ):
        pass
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="no MLflow server answers at MLFLOW_TRACKING_URI=http"):
        server.connect().__enter__()


def test_no_store_is_made_where_none_may_be(workspace):
    with (
        pytest.raises(UserError, match=r"no MLflow store in .*: set MLFLOW_TRACKING_URI"),
        server.connect(create=False),
    ):
        pass
    assert not (workspace / "mlflow").exists()


def test_a_server_that_cannot_start_says_why(workspace):
    (workspace / "mlflow").mkdir()
    (workspace / "mlflow" / "mlflow.db").write_text("this is no database")
    with (
        pytest.raises(StageFailure, match=r"the MLflow server did not start: mlflow.db .*server\.log"),
        server.connect(),
    ):
        pass


def test_a_second_client_joins_the_server_that_is_up(mlflow_server, monkeypatch):
    uri, home = mlflow_server
    monkeypatch.setenv("ROADSEG_HOME", str(home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert server.running() == uri
    with server.connect() as first, server.connect() as second:
        assert first == second == uri
    assert server.answers(uri), "leaving must not stop a server that others use"
    with (home / "mlflow" / "server.lock").open("a") as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_two_starts_at_once_make_one_server_and_kill_9_leaves_none(workspace):
    code = (
        "import time\nfrom roadseg.tracking import server\n"
        "with server.connect() as uri:\n    print(uri, flush=True)\n    time.sleep(600)"
    )
    command = [sys.executable, "-c", code]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        first, second = (one.stdout.readline().strip() for one in both)
        assert first == second != ""
        pid = json.loads((workspace / "mlflow" / "server.json").read_text())["pid"]
        both[0].send_signal(signal.SIGKILL)
        both[0].wait()
        time.sleep(0.5)
        assert server.answers(first), "one client is left"
    finally:
        for one in both:
            one.kill()
            one.communicate()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists(), "the server must end with its last client"
    assert not (workspace / "mlflow" / "server.json").exists()


def test_only_this_machine_reaches_the_server(mlflow_server):
    import psutil

    pid = json.loads((mlflow_server[1] / "mlflow" / "server.json").read_text())["pid"]
    listening = [one.laddr.ip for one in psutil.Process(pid).net_connections() if one.status == "LISTEN"]
    assert listening == ["127.0.0.1"]


def test_no_page_of_elsewhere_reaches_the_server(mlflow_uri):
    def asked(**headers):
        request = urllib.request.Request(f"{mlflow_uri}/api/2.0/mlflow/experiments/search", b"{}", headers)
        request.add_header("Content-Type", "application/json")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request)
        with refused.value as reply:
            return reply.code

    assert asked(Origin="https://evil.example") == 403
    assert asked(Host="evil.example") == 403


def test_a_server_with_a_log_in_answers():
    class Guarded(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(401)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as guarded:
        threading.Thread(target=guarded.serve_forever).start()
        assert server.answers(f"http://127.0.0.1:{guarded.server_port}")
        guarded.shutdown()


# ---- runs ------------------------------------------------------------------------------------------------------------


def test_a_study_is_one_parent_with_its_children(tracker, client, unique, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    frame = pd.DataFrame({"split": ["train", "val"], "height": [144, 144]})
    with tracker.parent(kind="search", key=unique, name="search") as parent:
        parent.dataset(frame, "streets", "0" * 32)
        with parent.child(
            f"{unique}-1", "trial 1", {"loss": "focal", "crop (share)": 0.5}, {"roadseg.trial": 1}
        ) as run:
            run.metrics({"miou": 0.5, "iou_road": None, "iou_car": float("nan")}, step=2)
            run.figure("curves.png", Figure())
            run.figure("pictures/overlay.png", np.zeros((8, 8, 3), np.uint8))
            run.artifact(tmp_path / "notes.txt", "notes")
            assert run.url.endswith(run.id)
    record = client.get_run(run.id)
    assert record.info.status == client.get_run(parent.id).info.status == "FINISHED"
    assert record.data.tags["mlflow.parentRunId"] == parent.id
    assert record.data.tags["roadseg.trial"] == "1"
    assert record.data.params == {"loss": "focal", "crop  share ": "0.5"}
    assert record.data.metrics == {"miou": 0.5}
    assert client.get_metric_history(run.id, "miou")[0].step == 2
    assert {file.path for file in client.list_artifacts(run.id)} == {"curves.png", "notes", "pictures"}
    (given,) = client.get_run(parent.id).inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("streets", "0" * 32)


def test_every_run_says_what_it_was_made_from(tracker, client, unique):
    with tracker.parent(kind="search", key=unique, name="search") as parent:
        tags = client.get_run(parent.id).data.tags
    assert tags["roadseg.kind"] == "search"
    assert "torch=" in tags["roadseg.versions"]
    assert tags["roadseg.process"] == provenance.this_process()


def test_a_key_names_one_run_however_often_it_is_opened(tracker, client, unique):
    for kind in ("search", "train"):
        with (
            tracker.parent(kind=kind, key=unique, name="search") as parent,
            parent.child(f"{unique}-1", "trial 1") as run,
        ):
            assert run.finished == (kind == "train")
    assert len(runs_of(client, unique)) == 2
    assert client.get_run(parent.id).data.tags["roadseg.kind"] == "search", "the stage that opened it first"


def test_a_resumed_run_keeps_the_settings_that_it_had(tracker, client, unique):
    """The same weights may lie under another path by then: MLflow refuses to change a parameter."""
    for path, more in (("a.safetensors", {}), ("b.safetensors", {"crop": 0.5})):
        with tracker.parent("search", unique, "search") as parent:
            parent.params({"initial": path, **more})
    assert client.get_run(parent.id).data.params == {"initial": "a.safetensors", "crop": "0.5"}


def test_a_finished_child_is_left_as_it_is(tracker, client, unique):
    with tracker.parent(kind="search", key=unique, name="search") as parent:
        with parent.child(f"{unique}-1", "trial 1", {"a": 1}) as run:
            pass
        ended = client.get_run(run.id).info.end_time
        with parent.child(f"{unique}-1", "trial 1", {"a": 2}) as again:
            assert again.finished and again.id == run.id
    assert client.get_run(run.id).info.end_time == ended
    assert client.get_run(run.id).data.params == {"a": "1"}


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_what_becomes_of_the_block_becomes_of_the_run(tracker, client, unique, error, status):
    with (
        pytest.raises(error),
        tracker.parent(kind="search", key=unique, name="search") as parent,
        parent.child(f"{unique}-1", "trial 1") as run,
    ):
        raise error
    assert client.get_run(run.id).info.status == client.get_run(parent.id).info.status == status
    with (
        tracker.parent(kind="search", key=unique, name="search") as parent,
        parent.child(f"{unique}-1", "trial 1") as run,
    ):
        assert not run.finished, "it has still to be done"
        assert client.get_run(run.id).info.status == "RUNNING"
    assert client.get_run(run.id).info.status == "FINISHED"


def test_runs_of_a_killed_process_do_not_stay_running(mlflow_uri, client, unique):
    code = (
        "import os, signal\nfrom roadseg import tracking\n"
        f"with tracking.connect({unique!r}) as to, to.parent('search', 'k', 'search') as p, p.child('k-1', 'trial'):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert {run.info.status for run in runs_of(client, unique)} == {"RUNNING"}
    with tracking.connect(unique):
        assert {run.info.status for run in runs_of(client, unique)} == {"KILLED"}


def test_runs_of_a_living_process_are_left_alone(tracker, client, unique):
    with tracker.parent(kind="search", key=unique, name="search") as parent, tracking.connect(unique):
        assert client.get_run(parent.id).info.status == "RUNNING"


def test_dead_processes():
    assert not provenance.is_dead(provenance.this_process())
    host, pid, start = provenance.this_process().rsplit(":", 2)
    assert provenance.is_dead(f"{host}:{pid}:{float(start) - 100:.2f}"), "the same pid, another process"
    assert not provenance.is_dead(f"elsewhere:{pid}:{start}")
    assert not provenance.is_dead("")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert provenance.is_dead(f"{host}:{ended.pid}:{start}")


def test_the_newest_run_with_these_tags(tracker, unique):
    with tracker.parent(kind="search", key=unique, name="search") as parent:
        with parent.child("a", "a", tags={"roadseg.finalist": "enet", "roadseg.x": "1"}):
            pass
        with parent.child("b", "b", tags={"roadseg.finalist": "enet"}) as second:
            pass
    assert tracker.latest({"roadseg.finalist": "enet"}).id == second.id
    assert tracker.latest({"roadseg.finalist": "enet", "roadseg.x": "1"}).id != second.id
    assert tracker.latest({"roadseg.finalist": "other"}) is None


def test_data_versions_come_from_dvc_lock(tmp_path):
    lock = tmp_path / "dvc.lock"
    assert provenance.data(lock) == {}
    lock.write_text(
        "schema: '2.0'\nstages:\n  profile:\n    cmd: x\n    outs:\n    - {path: data/profile/weights.json, md5: abc}\n"
        "  search:\n    cmd: y\n    outs:\n    - {path: models/search/trials.csv, md5: def}\n"
    )
    assert provenance.data(lock) == {"roadseg.data.profile/weights.json": "abc"}
