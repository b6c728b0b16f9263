"""The MLflow server's process: `python -m roadseg.tracking STORE PORT LOCK_FD`, which only `tracking.server` starts.

One process, on loopback, without job runner: it is up twice as fast as `mlflow server`, whose parent and worker each
import mlflow. It stops when nobody holds STORE/clients.lock any more.
"""

import fcntl
import json
import os
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import uvicorn


def main(store: Path, port: int, lock: int) -> None:
    """Serve the store, an absolute folder, until its last client is gone. lock: descriptor of the held server.lock."""
    os.set_inheritable(lock, False)
    os.chdir(store)  # the addresses below are relative, so that the folder may even be moved under a running server
    os.environ |= {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_SERVER_ALLOWED_HOSTS": "127.0.0.1:*,localhost:*",
        "_MLFLOW_SERVER_FILE_STORE": "sqlite:///mlflow.db",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": "./artifacts",
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SGI_NAME": "uvicorn",
    }
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    listener = socket.create_server(("127.0.0.1", port))

    import uvicorn

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # starlette's, about a module of its own that MLflow uses
        from mlflow.server.fastapi_app import app

    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3))
    threading.Thread(target=_watch, args=(server, listener.getsockname()[1]), daemon=True).start()
    server.run(sockets=[listener])


def _watch(server: "uvicorn.Server", port: int) -> None:
    """Record the server once it answers with a ready database; stop it once no client is left."""
    while not server.started:
        time.sleep(0.02)
    uri = f"http://127.0.0.1:{port}"
    first = urllib.request.Request(
        f"{uri}/api/2.0/mlflow/experiments/search", b'{"max_results": 1}', {"content-type": "application/json"}
    )
    try:
        urllib.request.urlopen(first, timeout=120).close()  # the first question creates or migrates the database
    except OSError as error:
        body = error.read().decode(errors="replace") if isinstance(error, urllib.error.HTTPError) else ""
        print("mlflow.db cannot be opened:", " ".join(f"{error} {body}".split()), file=sys.stderr)
        server.should_exit = True
        return
    aside = Path("server.json.new")
    aside.write_text(json.dumps({"uri": uri, "pid": os.getpid()}))
    aside.rename("server.json")
    clients = Path("clients.lock").open("a")  # noqa: SIM115 - held until the end: nobody joins a closing server
    while not server.should_exit:
        try:
            fcntl.flock(clients, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.1)
        else:
            Path("server.json").unlink()
            server.should_exit = True


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
