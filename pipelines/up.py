"""`make up`: the Prefect server, the MLflow server and the scheduled retrain, on this machine's loopback alone.

In: params.yaml, two ports. Out: the two addresses, logs in .state/logs/; until Ctrl-C or SIGTERM, after which none
of its processes is left. Everything that it stores is in .prefect/ and mlflow/.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

import httpx
from rich.console import Console
from rich.panel import Panel

import pipelines
from pipelines.processes import group, undisturbed
from roadseg import config, paths
from roadseg.errors import StageFailure, UserError, reported
from roadseg.tracking import server as mlflow_server

HOST = "127.0.0.1"
PREFECT_PORT, MLFLOW_PORT = 4200, 5000
START_S = 180.0  # the first start makes the databases; a busy machine takes its time


@contextmanager
def service(name: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`python -m ...` in a process group of its own, its output in .state/logs/NAME.log; ended with the block."""
    command = [sys.executable, "-m", *arguments]
    log = paths.state("logs", f"{name}.log")
    with (
        log.open("w", encoding="utf-8") as output,
        group(command, cwd=paths.home(), environment=dict(os.environ), output=output) as process,
    ):
        yield process


def until_ready(name: str, process: subprocess.Popen[str], ready: Callable[[], bool]) -> None:
    """Waits until `ready()`. Raises StageFailure, with the log's place, if the process ends before or is too slow."""
    deadline = time.monotonic() + START_S
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            what = "ended at once" if process.poll() is not None else f"did not answer within {START_S:.0f} s"
            raise StageFailure(f"{name} {what}: see {paths.state('logs', f'{name}.log')}")
        time.sleep(0.25)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=3).status_code == 200
    except httpx.HTTPError:
        return False


def require_free(port: int, option: str) -> None:
    """Raises UserError, naming the option that changes the port, if something listens on it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise UserError(f"port {port} of {HOST} is taken: stop what uses it, or give another by {option}") from None


@contextmanager
def prefect_server(port: int) -> Iterator[subprocess.Popen[str]]:
    """A Prefect server, recorded for this project's other commands to use; from here on, this process uses it too."""
    url = f"http://{HOST}:{port}/api"
    os.environ["PREFECT_API_URL"] = url
    # Prefect's default lets any page that a browser has open ask, and the token that posting takes with it.
    os.environ.setdefault("PREFECT_SERVER_CORS_ALLOWED_ORIGINS", f"http://{HOST}:{port},http://localhost:{port}")
    with service("prefect", "prefect", "server", "start", "--host", HOST, "--port", str(port)) as process:
        until_ready("prefect", process, lambda: answers(f"{url}/health"))
        pipelines.SERVER_RECORD.write_text(json.dumps({"url": url, "pid": os.getpid()}) + "\n", encoding="utf-8")
        try:
            yield process
        finally:
            pipelines.SERVER_RECORD.unlink(missing_ok=True)


@contextmanager
def retrains() -> Iterator[subprocess.Popen[str]]:
    """What serves the `retrain` deployment. A retrain that runs when the block ends is cancelled first."""
    from pipelines import runs  # imports prefect, which must find the server's address

    runs.create_gpu_limit()
    runs.close_stale("retrain")  # nothing has served them any more
    runs.cancel_missed("retrain")
    with service("serve", "pipelines.serve") as process:
        try:
            yield process
        finally:
            with undisturbed():
                runs.cancel("retrain")


def up(prefect_port: int, mlflow_port: int) -> None:
    """Starts everything, says where, and waits. Raises StageFailure when one of the processes ends by itself."""
    settings = config.read().retrain
    if at := pipelines.running_server():
        raise UserError(f"`make up` is running already, with Prefect at {at.removesuffix('/api')}")
    require_free(prefect_port, "--port")
    if not mlflow_server.running():
        require_free(mlflow_port, "--mlflow-port")
    console = Console()
    with ExitStack() as running:  # left in the opposite order: what still has something to report goes first
        with console.status("starting the Prefect and MLflow servers (a minute the first time)"):
            prefect = running.enter_context(prefect_server(prefect_port))
            tracking = running.enter_context(mlflow_server.serve(mlflow_port))
            serving = running.enter_context(retrains())
        console.print(
            Panel(
                f"Prefect  http://{HOST}:{prefect_port}   retrains: {settings.cron} {settings.timezone}\n"
                f"MLflow   {tracking}",
                title="roadseg is up",
                subtitle="Ctrl-C stops it",
                expand=False,
            )
        )
        while True:
            for name, process in {"prefect": prefect, "serve": serving}.items():
                if process.poll() is not None:
                    log = paths.state("logs", f"{name}.log")
                    last = (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["nothing"])[-1]
                    raise StageFailure(f"{name} ended, saying: {last} (more in {log})")
            time.sleep(0.5)


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: give a number from 1 to 65535")
    return int(text)


def _leave(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    parser = argparse.ArgumentParser(prog="make up", description=__doc__)
    parser.add_argument("--port", type=_port, default=PREFECT_PORT, help="Prefect's (default: %(default)s)")
    parser.add_argument("--mlflow-port", type=_port, default=MLFLOW_PORT, help="MLflow's (default: %(default)s)")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    with reported("make up"):
        try:
            up(options.port, options.mlflow_port)
        except KeyboardInterrupt:
            print("stopped")


if __name__ == "__main__":
    main()
