"""A git worktree of the home project in which a retrain runs DVC's stages, one subprocess each.

In: the home project (its git history, its DVC cache), a revision, settings. Out: the stages' own outputs, inside the
worktree; DVC's cache and the home's .state/ and mlflow/ are shared, nothing else of the home is written.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipelines.processes import group, lines, undisturbed
from roadseg import paths
from roadseg.config import replaced
from roadseg.errors import UserError

OUTCOMES = {"Running stage": "ran", "is cached": "restored", "didn't change": "unchanged"}  # as DVC says it
DVC_GAVE_UP = "ERROR: failed to reproduce"  # what the stage said before tells more


class StageFailed(Exception):
    """A stage ended badly: "STAGE: the one line that says why"."""


@dataclass(frozen=True)
class Ran:
    """What became of a stage, for the report."""

    stage: str
    outcome: str
    """ran, restored (from DVC's cache) or unchanged."""
    seconds: float


@dataclass(frozen=True)
class Worktree:
    """The project at a revision: `root` is the worktree, `home` the project that it belongs to."""

    root: Path
    home: Path
    commit: str

    def override(self, overrides: dict[str, Any]) -> None:
        """Writes settings, by dotted key, to this worktree's params.yaml.

        Raises:
            UserError: params.yaml at this revision has no such key.
        """
        path = self.root / "params.yaml"
        params = yaml.safe_load(path.read_text(encoding="utf-8"))
        params = replaced(params, overrides, f"params.yaml at {self.commit[:8]}")
        if overrides:
            path.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")

    def stages(self) -> list[str]:
        """The names of dvc.yaml's stages, each after those that it depends on."""
        from dvc.exceptions import DvcException
        from dvc.repo import Repo
        from dvc.repo.reproduce import plan_repro

        try:
            with Repo(str(self.root)) as repo:
                return [stage.name for stage in plan_repro(repo.index.graph)]
        except DvcException as error:
            raise UserError(f"dvc.yaml at {self.commit[:8]}: {' '.join(str(error).split())}") from None

    def repro(self, stage: str, log: Callable[[str], object]) -> Ran:
        """Brings one stage up to date: `dvc repro --single-item`, each line of its output given to `log` as it comes.

        However this ends (an exception from a signal included), none of the stage's processes is left.

        Raises:
            StageFailed: with the one line that the stage left in .state/errors/, else its last words.
        """
        record = self.home / ".state" / "errors" / f"{stage}.json"
        record.unlink(missing_ok=True)
        outcome, last_line, start = "ran", "no output", time.monotonic()
        command = [sys.executable, "-m", "dvc", "repro", "--single-item", stage]
        with group(command, cwd=self.root, environment=self._environment()) as process:
            for line in lines(process):
                log(line)
                last_line = last_line if line.startswith(DVC_GAVE_UP) else line
                outcome = next((name for words, name in OUTCOMES.items() if words in line), outcome)
        if process.returncode:
            why = _why(record) or last_line
            raise StageFailed(why if why.startswith(f"{stage}:") else f"{stage}: {why}")
        return Ran(stage, outcome, time.monotonic() - start)

    def _environment(self) -> dict[str, str]:
        """This process's environment, less what ties it to a flow run, git or DVC call, with the worktree's code."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT__", "GIT_", "DVC_EXP", "DVC_STAGE"))}
        kept.pop("DVC_ROOT", None)
        return kept | {
            "COLUMNS": "120",
            "NO_COLOR": "1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PYTHONPATH": os.pathsep.join([str(self.root / "src"), str(self.root)]),
            "PYTHONUNBUFFERED": "1",
            "ROADSEG_HOME": str(self.home),
        }


@contextmanager
def worktree(revision: str) -> Iterator[Worktree]:
    """The home project at `revision`, in .state/retrain/tree, for as long as this process alone uses it.

    Removed at the end, but kept where a stage failed, to be looked at until the next retrain.

    Raises:
        UserError: the revision is not in the project's git history, or another retrain is running.
    """
    home = paths.home()
    root = paths.state("retrain", "tree")
    with _alone(paths.state("locks", "retrain.lock")):
        commit = _git(home, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
        if not commit:
            raise UserError(f"revision {revision!r} is not in the history of {home}: name a commit, a branch or a tag")
        _remove(home, root)
        if _git(home, "worktree", "add", "--detach", "--force", str(root), commit) is None:
            raise UserError(f"git made no worktree of {commit[:8]} at {root}: see `git worktree list`")
        _share_cache(home, root)
        keep = False
        try:
            yield Worktree(root, home, commit)
        except Exception:  # a failure: the tree stays. A cancelled run ends by another BaseException
            keep = True
            raise
        finally:
            if not keep:
                _remove(home, root)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """An OS lock on a file: one retrain at a time, and none still locked whose process was killed."""
    with path.open("a", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError("another retrain is running: wait for it to end, or cancel it, then try again") from None
        yield


def _share_cache(home: Path, root: Path) -> None:
    """Points the worktree's DVC at the home's cache: what a stage made before is restored, what it makes is kept."""
    from dvc.repo import Repo

    with Repo(str(home)) as repo:
        cache = repo.cache.local_cache_dir  # `local.path` is the files' folder inside it
    with Repo(str(root)) as repo, repo.config.edit("local") as config:
        config["cache"]["dir"] = cache
        config["core"]["autostage"] = True  # of the worktree's own index; saves its users four lines of advice a stage


def _remove(home: Path, root: Path) -> None:
    with undisturbed():
        if root.exists():
            _git(home, "worktree", "remove", "--force", "--force", str(root))
            shutil.rmtree(root, ignore_errors=True)  # where git did not know it as a worktree
        _git(home, "worktree", "prune")


def _git(home: Path, *arguments: str) -> str | None:
    """What git prints, or None where it fails."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(["git", *arguments], cwd=home, env=kept, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _why(record: Path) -> str | None:
    """The one line that a failed stage left, if it did."""
    try:
        return str(json.loads(record.read_text(encoding="utf-8"))["message"])
    except (OSError, ValueError, KeyError):
        return None
