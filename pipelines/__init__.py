"""Prefect: what runs, in what order, where. Thin; the work itself is in roadseg.stages.

Importing this package, which importing any module of it does first, settles Prefect's environment: its files live in
.prefect/ of the home project, it sends nothing home, and its terminal output is warnings only (the runs' own logs go to
the API in full). Where `make up` is running, its server is used. What the environment says already is left as it is.
"""

import json
import os
import urllib.request
from pathlib import Path

from roadseg import paths

PREFECT_HOME = Path(os.environ.setdefault("PREFECT_HOME", str(paths.home() / ".prefect")))
SERVER_RECORD = PREFECT_HOME / "server.json"
"""Written by `make up` while it runs: {"url": API address, "pid": of `make up`}."""


def running_server(record: Path = SERVER_RECORD) -> str | None:
    """The API address of this project's Prefect server if it is up (one that was killed leaves its record), or None."""
    try:
        url, pid = (json.loads(record.read_text(encoding="utf-8"))[key] for key in ("url", "pid"))
        os.kill(pid, 0)
        with urllib.request.urlopen(f"{url}/health", timeout=3) as answer:
            return url if answer.status == 200 else None
    except (OSError, ValueError, KeyError):
        return None


for _name, _value in {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",  # or any page that a browser has open could start flows
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
}.items():
    os.environ.setdefault(_name, _value)
if "PREFECT_API_URL" not in os.environ and (_url := running_server()):
    os.environ["PREFECT_API_URL"] = _url
