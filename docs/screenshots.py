"""Takes the pictures of docs/images/ from the running UIs: `python -m docs.screenshots`, while `make up` runs.

In: a project with a finished line. Out: deployment.png (the schedule), retrain.png (a run with its stages), report.png,
failed.png, compare.png (MLflow's trials side by side), champion.png (the registered version with its alias). It starts
a retrain of HEAD, which DVC's cache makes short, and one that is made to fail; neither moves an unchanged champion.
Chromium is driven over its DevTools protocol: real time, so that what fades in or is drawn late has been.
"""

import argparse
import base64
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
from rich.console import Console
from websockets.sync.client import connect

from pipelines import running_server
from roadseg.errors import StageFailure, UserError, reported
from roadseg.tracking import server as mlflow_server

IMAGES = Path("docs/images")
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
PARENT = "mlflow.parentRunId"  # the tag of a child run
FAILING = {"validate.void_share": 0.0}  # every scene has some void, so validate names the scenes and stops the line
SETTLE_S = 3.0  # for what fades in, and for charts
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--hide-scrollbars", "--remote-debugging-port=0"),
)
CLICK = "[...document.querySelectorAll('button, a, span, [role=button]')].find(e => %s)?.click()"
NO_ASSISTANT = CLICK % "e.getAttribute('aria-label') == 'Close' || e.dataset.componentId?.includes('assistant.close')"
WHOLE_MESSAGE = CLICK % "e.innerText == 'See More'"


class Browser:
    """One page of a headless Chromium, 1400 pixels wide, for the length of a `with` block."""

    def __init__(self, chromium: str) -> None:
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        command = [chromium, *FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._sent = 0

    def __enter__(self) -> "Browser":
        record = Path(self._profile.name, "DevToolsActivePort")
        wait(lambda: record.is_file() and record.read_text().count("\n") > 0, "Chromium's DevTools")
        port = record.read_text().split()[0]
        page = answer(httpx.put(f"http://127.0.0.1:{port}/json/new?about:blank", timeout=60))
        self._socket = connect(page["webSocketDebuggerUrl"], max_size=None, proxy=None)
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait()
        self._profile.cleanup()

    def take(self, name: str, url: str, *, shows: str, height: int, then: str = "") -> None:
        """A picture of a page, once it shows a text. then: JavaScript that is run before it is taken."""
        size = {"width": 1400, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._send("Emulation.setDeviceMetricsOverride", size)
        self._send("Page.navigate", {"url": "about:blank"})  # or a change of the fragment alone would load nothing
        self._send("Page.navigate", {"url": url})
        wait(lambda: shows in str(self._run("document.body.innerText")), f"{shows!r} on {url}")
        time.sleep(SETTLE_S)
        if then:
            self._run(then)
            time.sleep(SETTLE_S)
        picture = self._send("Page.captureScreenshot", {"format": "png"})["data"]
        (IMAGES / f"{name}.png").write_bytes(base64.b64decode(picture))
        Console().print(f"{IMAGES / name}.png  {url}", soft_wrap=True)

    def _run(self, script: str) -> Any:
        return self._send("Runtime.evaluate", {"expression": script, "returnByValue": True})["result"].get("value")

    def _send(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self._sent += 1
        self._socket.send(json.dumps({"id": self._sent, "method": method, "params": parameters}))
        while (reply := json.loads(self._socket.recv(timeout=60))).get("id") != self._sent:
            pass  # an event
        result: dict[str, Any] = reply["result"]
        return result


def wait(ready: Callable[[], bool], what: str, patience_s: float = 60.0) -> None:
    deadline = time.monotonic() + patience_s
    while not ready():
        if time.monotonic() > deadline:
            raise StageFailure(f"{what} did not come within {patience_s:.0f} s")
        time.sleep(0.5)


def retrained(api: httpx.Client, name: str, overrides: dict[str, Any]) -> str:
    """Runs the `retrain` deployment to its end. The run's id."""
    deployment = answer(api.get("/deployments/name/retrain/retrain"))["id"]
    body = {"name": name, "parameters": {"revision": "HEAD", "overrides": overrides}}
    run: str = answer(api.post(f"/deployments/{deployment}/create_flow_run", json=body))["id"]
    with Console().status(f"retrain {name}"):
        wait(lambda: answer(api.get(f"/flow_runs/{run}"))["state"]["type"] in ENDED, f"retrain {name}'s end", 3600)
    return run


def prefect_pages(browser: Browser, url: str) -> None:
    ui = url.removesuffix("/api")
    with httpx.Client(base_url=url, timeout=60) as api:
        good, bad = retrained(api, "by-hand", {}), retrained(api, "no-void-allowed", FAILING)
        filters = {"artifacts": {"flow_run_id": {"any_": [good]}}}
        artifacts = answer(api.post("/artifacts/filter", json=filters))
        deployment = answer(api.get("/deployments/name/retrain/retrain"))["id"]
    if not artifacts:
        raise StageFailure(f"the retrain left no report: see {ui}/runs/flow-run/{good}")
    browser.take("deployment", f"{ui}/deployments/deployment/{deployment}", shows="Next Run", height=800)
    browser.take("retrain", f"{ui}/runs/flow-run/{good}", shows="Completed", height=1000)
    browser.take("report", f"{ui}/artifacts/artifact/{artifacts[0]['id']}", shows="Stages", height=1800)
    failed = f"{ui}/runs/flow-run/{bad}?tab=Details"
    browser.take("failed", failed, shows="State Message", height=1000, then=WHOLE_MESSAGE)


def mlflow_pages(browser: Browser, url: str) -> None:
    with httpx.Client(base_url=f"{url}/api/2.0/mlflow", timeout=60) as api:
        experiment = answer(api.get("/experiments/get-by-name", params={"experiment_name": "roadseg"}))
        number = experiment["experiment"]["experiment_id"]
        trials = answer(api.post("/runs/search", json={"experiment_ids": [number], "max_results": 200})).get("runs", [])
        models = answer(api.get("/registered-models/search")).get("registered_models", [])
        champions = [(model["name"], alias["version"]) for model in models for alias in model.get("aliases", [])]
    if not champions:
        raise UserError("no champion is registered: run `make repro` first")
    (model, version), *_ = champions
    children = [
        run["info"]["run_id"] for run in trials if PARENT in {tag["key"] for tag in run["data"].get("tags", [])}
    ]
    compared = urlencode({"runs": json.dumps(children[:12]), "experiments": json.dumps([number])})
    page = f"{url}/#/compare-runs?{compared}"
    browser.take("compare", page, shows="Comparing", height=1300, then=NO_ASSISTANT)
    page = f"{url}/#/models/{model}/versions/{version}"
    browser.take("champion", page, shows=f"Version {version}", height=1300, then=NO_ASSISTANT)


def answer(response: httpx.Response) -> Any:
    return response.raise_for_status().json()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome") or "chromium")
    chromium = parser.parse_args().chromium
    with reported("screenshots"):
        prefect, mlflow = running_server(), mlflow_server.running()
        if not (prefect and mlflow):
            raise UserError("`make up` is not running: start it in another terminal, then try again")
        if not shutil.which(chromium):
            raise UserError(f"{chromium} is no program here: install Chromium, or name it by --chromium")
        IMAGES.mkdir(parents=True, exist_ok=True)
        with Browser(chromium) as browser:
            mlflow_pages(browser, mlflow)
            prefect_pages(browser, prefect)


if __name__ == "__main__":
    main()
