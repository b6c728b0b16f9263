"""What this machine has for the line: hardware, engines and their precisions, versions, servers, data, disk.

Reads params.yaml, constraints.txt and the machine; writes nothing but a table, and compiles the kernels. Something
missing is a finding, with what to do about it, never a failure.
"""

import importlib.metadata
import json
import os
import re
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import torch
from rich.console import Console
from rich.table import Table

from roadseg import kernels, paths
from roadseg.config import Config
from roadseg.deploy import device
from roadseg.deploy.engines import ENGINES
from roadseg.engine.precision import native_bf16
from roadseg.errors import masked, one_line
from roadseg.scenes import download, sources
from roadseg.tracking import server

TIMEOUT_S = 3.0
"""Of each address that is tried."""
SHOWN = ("torch", "dvc", "mlflow", "prefect", "great_expectations", "pandas", "albumentations", "optuna")
MARKS = {"good": "[green]ok[/]", "note": "[yellow]--[/]", "bad": "[red]no[/]"}


@dataclass(frozen=True)
class Finding:
    topic: str
    name: str
    state: Literal["good", "note", "bad"]
    """bad: something that this run's params.yaml asks for is not here."""
    text: str


def run(config: Config) -> None:
    """Prints a table of what was found, topic by topic. Takes a few seconds, most of them imports."""
    table = Table(title="roadseg doctor", title_justify="left", show_header=False, pad_edge=False)
    for column in ("topic", "name", "state", "text"):
        table.add_column(column, overflow="fold", no_wrap=column != "text", style="bold" if column == "topic" else None)
    last = ""
    for finding in findings(config):
        if last and finding.topic != last:
            table.add_section()
        topic = "" if finding.topic == last else finding.topic
        table.add_row(topic, finding.name, MARKS[finding.state], masked(finding.text))
        last = finding.topic
    Console().print(table)


def findings(config: Config) -> Iterator[Finding]:
    """Everything that `run` prints, in its order."""
    yield from _machine(config)
    yield from _engines(config)
    yield from _versions()
    yield from _servers()
    yield from _data(config)
    yield from _disk()


def _machine(config: Config) -> Iterator[Finding]:
    machine = device.fingerprint("cpu")
    memory = psutil.virtual_memory()
    yield Finding("machine", "cpu", "good", f"{machine['cpu']}; {machine['cores']} cores, {machine['os']}")
    yield Finding("machine", "isa", "good", " ".join(machine["isa"]) or "none that matters here")
    yield Finding("machine", "memory", "good", f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free")
    bf16 = "native" if native_bf16("cpu") else "emulated, so that training uses float32"
    yield Finding("machine", "bf16", "good" if bf16 == "native" else "note", bf16)
    yield _asked("machine", "kernels", _kernels, wanted=False)
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    state: Literal["note", "bad"] = "bad" if config.target.device == "cuda" else "note"
    yield Finding("machine", "gpu", "good" if gpus else state, ", ".join(gpus) or "none that torch can use")
    yield Finding("machine", "device id", "good", device.device_id(config.target.device))


def _kernels() -> tuple[bool, str]:
    try:
        kernels.build()
    except OSError as error:
        return False, f"training on this CPU is slower, since CXX, else c++, could not compile them: {one_line(error)}"
    return True, "compiled for this CPU's training"


def _engines(config: Config) -> Iterator[Finding]:
    for engine, precisions in ENGINES.items():
        wanted = engine in config.target.engines
        yield _asked("engines", engine, lambda p=precisions: _forms(p, config.target.device), wanted)  # type: ignore[misc]


def _forms(precisions: Callable[[str], list[str]], target: str) -> tuple[bool, str]:
    found = precisions(target)
    return bool(found), f"{', '.join(found)} on {target}" if found else f"does not run on {target} here"


def _versions() -> Iterator[Finding]:
    yield Finding("versions", "main", "good", ", ".join(f"{name} {_version(name)}" for name in SHOWN))
    file = Path("constraints.txt")
    if not file.exists():
        yield Finding("versions", "constraints", "note", "no constraints.txt here to compare with")
        return
    pins = re.findall(r"^([\w.-]+)==(\S+)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = {name: _version(name) for name, _ in pins}
    other = [f"{name} {found[name]} (not {pin})" for name, pin in pins if found[name].partition("+")[0] != pin]
    text = f"{len(pins) - len(other)} of {len(pins)} packages as in constraints.txt"
    yield Finding("versions", "constraints", "bad" if other else "good", "; ".join([text, *other[:8]]))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _servers() -> Iterator[Finding]:
    if given := os.environ.get("MLFLOW_TRACKING_URI"):
        up = server.answers(given, timeout=TIMEOUT_S)
        text = given if up else f"MLFLOW_TRACKING_URI={given} does not answer: start it, or unset the variable"
        yield Finding("servers", "MLflow", "good" if up else "bad", text)
    else:
        running = server.running()
        text = running or "not running: a stage starts its own, and `make up` serves it to people"
        yield Finding("servers", "MLflow", "good" if running else "note", text)
    yield _asked("servers", "Prefect", _prefect, wanted=bool(os.environ.get("PREFECT_API_URL")))


def _prefect() -> tuple[bool, str]:
    """The API that the environment names, else the one that `make up` recorded."""
    given = os.environ.get("PREFECT_API_URL")
    record = Path(os.environ.get("PREFECT_HOME") or paths.home() / ".prefect") / "server.json"
    if not given and not record.exists():
        return False, "not running: a flow starts its own, and `make up` serves it to people"
    url = given or json.loads(record.read_text(encoding="utf-8"))["url"]
    reachable = _reachable(f"{url}/health", "GET")  # Prefect answers HEAD with 405
    return reachable, url if reachable else f"{url} does not answer"


def _data(config: Config) -> Iterator[Finding]:
    for name in sources.SOURCES:
        yield _asked("data", name, lambda n=name: _source(config, n), name in config.data.sources)  # type: ignore[misc]


def _source(config: Config, name: str) -> tuple[bool, str]:
    """Where fetch would take the source from, in its own order: by hand, a mirror, the official address."""
    if (paths.RAW / name).is_dir():
        return True, f"fetched, in {paths.RAW / name}"
    source, settings = sources.get(config, name), getattr(config.sources, name)
    if not source.archives:
        return True, "drawn here, nothing to fetch"
    said = []
    for archive in source.archives:
        place = download.place(name, source, archive, settings, config.data.mirror_address())
        if place is None:
            return False, f"needs an account: {archive.file} from {archive.page}, then sources.{name}.archive"
        remote = download.is_web(place)
        there = _reachable(place) if remote else Path(place).is_file()
        said.append(f"{place} {'answers' if there and remote else 'is there' if there else 'cannot be reached'}")
        if not there and not archive.optional:
            return False, said[-1]
    return True, said[0] + (f", and {len(said) - 1} more" if said[1:] else "")


def _reachable(url: str, method: str = "HEAD") -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=TIMEOUT_S) as reply:
            return bool(reply.status < 400)
    except (OSError, ValueError):
        return False


def _disk() -> Iterator[Finding]:
    usage = shutil.disk_usage(paths.home())
    roomy = usage.free > 5e9
    yield Finding("disk", "free", "good" if roomy else "note", f"{usage.free / 1e9:.1f} GB, for {paths.home()}")


def _asked(topic: str, name: str, probe: Callable[[], tuple[bool, str]], wanted: bool) -> Finding:
    """The probe's answer as a finding. Whatever it raises is the finding: an engine may fail to load in its own way."""
    try:
        found, text = probe()
    except Exception as error:  # noqa: BLE001  (a doctor reports what is broken, he does not stop at it)
        found, text = False, one_line(error)
    return Finding(topic, name, "good" if found else "bad" if wanted else "note", text)
