"""The Prefect API that a flow run by hand reports to: the running server's, or one of the flow's own while it lasts.

Prefect would start such a server itself, and leave it behind, holding the terminal's pipe, when its flow is killed with
-9. This one ends with the flow, however that ends. It writes to the same database, so `make up` shows its runs later.
"""

import logging
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import prefect
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, temporary_settings

from pipelines.processes import group
from roadseg.errors import StageFailure, UserError

START_S = 180.0  # its first start migrates a database; on a busy machine that took over 20 s
# Prefect's own settings for a server that serves one process: no pages (of others neither), no schedules.
ALONE = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
    "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": "http://127.0.0.1",
}


@contextmanager
def api() -> Iterator[str]:
    """Gives the API's address for the length of the block. Raises StageFailure if the server does not come up."""
    for handler in logging.getLogger().handlers:  # the terminal's; what goes to the API is whole
        handler.addFilter(unexpected)
    if address := PREFECT_API_URL.value():
        yield address
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(prefect.__module_path__.parent), "--factory"]
    command += ["prefect.server.api.server:create_app", "--host", "127.0.0.1", "--port", port, "--log-level", "error"]
    with group(
        command, cwd=Path.cwd(), environment={**os.environ, **ALONE}, output=subprocess.DEVNULL, grace_s=3.0
    ) as server:
        address = f"http://127.0.0.1:{port}/api"
        _wait(server, f"{address}/health")
        with temporary_settings({PREFECT_API_URL: address}):
            try:
                yield address
            finally:
                APILogWorker.drain_all(timeout=10)  # the runs' last lines, while there is somebody to take them


def unexpected(record: logging.LogRecord) -> bool:
    """Whether the terminal should show this: not the traceback of an error that is then said in one line."""
    error = record.exc_info[1] if record.exc_info else None
    return bool(os.environ.get("ROADSEG_DEBUG")) or not isinstance(error, UserError | StageFailure)


def _wait(server: "subprocess.Popen[str]", health: str) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(health, timeout=3):
                return
        except OSError:
            time.sleep(0.1)
    raise StageFailure(f"Prefect's server did not answer at {health} within {START_S:g} s: look with `roadseg doctor`")
