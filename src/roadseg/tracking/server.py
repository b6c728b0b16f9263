"""The MLflow server: the one MLFLOW_TRACKING_URI names, else the project's own on loopback, started if it is not up.

The project's store is mlflow/mlflow.db (SQLite) and mlflow/artifacts/ under `paths.home()`. Artifacts are addressed as
mlflow-artifacts:/, so nothing in the store names a place on this disk and the folder can be moved.

Two OS file locks in mlflow/ say everything about the server; the kernel drops them whatever ends their holder:

- server.lock is held by the one process that serves, from before it starts, so a second can never open the database;
- clients.lock is shared by all who use the server, which lives while somebody holds it: no kill -9 leaves an orphan.

mlflow/server.json (uri, pid) is there while the server answers; mlflow/server.log is what the latest one printed.
"""

import fcntl
import importlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from roadseg import paths
from roadseg.errors import StageFailure, UserError

HOST = "127.0.0.1"
PATIENCE = 180.0
"""Seconds that a server may take to answer; about 6 on an idle core, 2 more where the database is new."""


def folder() -> Path:
    """The store's folder, which may not exist yet. Absolute."""
    return paths.home() / "mlflow"


@contextmanager
def connect(*, create: bool = True) -> Iterator[str]:
    """The address of an MLflow server that answers for the length of the block.

    create: whether a store may be made where there is none. Raises UserError if MLFLOW_TRACKING_URI is not an http(s)
    address or nothing answers there, or if there is no store and none may be made.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI")
    if given:
        if not given.startswith(("http://", "https://")):
            raise UserError(f"MLFLOW_TRACKING_URI is {given!r}: give the http(s) address of an MLflow server")
        if not answers(given):
            raise UserError(f"no MLflow server answers at MLFLOW_TRACKING_URI={given}: start it, or unset the variable")
        yield given
        return
    if not create and not (folder() / "mlflow.db").exists():
        raise UserError(f"no MLflow store in {paths.home()}: set MLFLOW_TRACKING_URI, or run from the project's root")
    with serve() as uri:
        yield uri


@contextmanager
def serve(port: int = 0) -> Iterator[str]:
    """The address of the project's own server, which lives at least as long as the block.

    port: of a server started here; 0 is any free one. A server that is up already is used as it is. Raises StageFailure
    if the server does not come up, with the last line that it printed.
    """
    store = folder()
    store.mkdir(parents=True, exist_ok=True)
    with (store / "clients.lock").open("a") as clients:
        fcntl.flock(clients, fcntl.LOCK_SH)  # waits while an earlier server closes
        process, uri = _find_or_start(store, port)
        try:
            yield uri
        finally:
            if process is not None and _locked(clients):  # only the last to leave gets the lock alone
                process.terminate()
                process.wait()
                (store / "server.json").unlink(missing_ok=True)
            fcntl.flock(clients, fcntl.LOCK_UN)


def running() -> str | None:
    """The address of the project's own server if it is up. Starts nothing."""
    uri = _recorded(folder())
    return uri if uri and answers(uri) else None


def answers(uri: str, timeout: float = 10.0) -> bool:
    """Whether an MLflow server answers at this address within so many seconds."""
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=timeout) as reply:
            return bool(reply.status == 200)
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code in (401, 403)  # MLflow's client knows the log-in; this question goes without
    except (OSError, ValueError):
        return False


def _locked(file: IO[str]) -> bool:
    """Take the file's lock for ourselves alone, without waiting."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _recorded(store: Path) -> str | None:
    try:
        return str(json.loads((store / "server.json").read_text())["uri"])
    except FileNotFoundError:
        return None


def _find_or_start(store: Path, port: int) -> tuple[subprocess.Popen[bytes] | None, str]:
    """The server's process, if it was started here, and its address."""
    process = None
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process is None:
            process = _start(store, port)
        uri = _recorded(store)
        if uri and answers(uri):
            return process, uri
        if process is not None and process.poll() is not None:
            break
        time.sleep(0.05)
    if process is not None:
        process.kill()
        process.wait()
    lines = (store / "server.log").read_text(errors="replace").strip().splitlines()
    last = lines[-1] if lines else "it printed nothing"
    raise StageFailure(f"the MLflow server did not start: {last} (more in {store}/server.log)")


def _start(store: Path, port: int) -> subprocess.Popen[bytes] | None:
    """Start a server unless one is up or coming up. It inherits the lock taken here: at no moment is it free."""
    with (store / "server.lock").open("a") as lock, (store / "server.log").open("ab") as log:
        if not _locked(lock):
            return None
        (store / "server.json").unlink(missing_ok=True)  # a killed server's
        log.truncate(0)
        process = subprocess.Popen(
            [sys.executable, "-m", "roadseg.tracking", str(store), str(port), str(lock.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(lock.fileno(),),
            start_new_session=True,  # a Ctrl-C is the client's to handle
        )
    importlib.import_module("mlflow.tracking")  # takes as long as the server's start: do both at once
    return process
