"""What a run was made from: the tags that every run and registered version carries. No MLflow here."""

import os
import platform
import socket
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

import psutil
import yaml

TOOLS = ("torch", "onnx", "onnxruntime", "openvino", "albumentations", "optuna", "dvc", "mlflow")
DATA = ("data/profile/", "data/remapped/")


@cache
def tags() -> dict[str, str]:
    """Code, data, versions and device of this process, all under `roadseg.` but the commit, which MLflow shows."""
    dirty = _git("status", "--porcelain", "--untracked-files=no")
    found = {
        "roadseg.process": this_process(),
        "roadseg.python": platform.python_version(),
        "roadseg.device": f"{_cpu()}, {os.cpu_count()} cores",
        "roadseg.versions": " ".join(f"{tool}={version(tool)}" for tool in TOOLS),
        **data(),
    }
    if revision := _git("rev-parse", "HEAD"):
        found |= {
            "mlflow.source.git.commit": revision,
            "roadseg.git": revision,
            "roadseg.git_dirty": str(bool(dirty)).lower(),
        }
    return found


def data(lock: Path = Path("dvc.lock")) -> dict[str, str]:
    """`roadseg.data.PATH` to DVC's md5, for each output of dvc.lock under data/profile/ and data/remapped/."""
    if not lock.exists():
        return {}
    stages = yaml.safe_load(lock.read_text(encoding="utf-8")).get("stages") or {}
    return {
        f"roadseg.data.{out['path'].removeprefix('data/')}": str(out.get("md5", ""))
        for stage in stages.values()
        for out in stage.get("outs", [])
        if out["path"].startswith(DATA)
    }


def this_process() -> str:
    """host:pid:start, which names this process for good: a pid alone is used again."""
    process = psutil.Process()
    return f"{socket.gethostname()}:{process.pid}:{process.create_time():.2f}"


def is_dead(process: str) -> bool:
    """Whether a process named by `this_process` has ended. One of another host may be alive: False."""
    try:
        host, pid, start = process.rsplit(":", 2)
        if host != socket.gethostname():
            return False
        return abs(psutil.Process(int(pid)).create_time() - float(start)) > 1
    except psutil.NoSuchProcess:
        return True
    except ValueError:  # not a name that we gave
        return False


def _git(*arguments: str) -> str:
    """git's answer, or nothing outside a repository."""
    answer = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else ""


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
