"""Where things live. Every path that DVC knows is relative to the project's root, which is the working directory.

`home()` differs from the working directory in one case: a retrain runs in a git worktree of its own, and shares the
home project's MLflow store and resumable state through ROADSEG_HOME.
"""

import os
from pathlib import Path

RAW = Path("data/raw")
REMAPPED = Path("data/remapped")
PROFILE = Path("data/profile")
VALIDATION = Path("data/validation")
SEARCH = Path("models/search")
TRAIN = Path("models/train")
EXPORT = Path("models/export")
EVALUATE = Path("models/evaluate")
PROMOTE = Path("models/promote")


def home() -> Path:
    """The folder that holds mlflow/ and .state/: ROADSEG_HOME, else the working directory. Absolute."""
    return Path(os.environ.get("ROADSEG_HOME") or Path.cwd()).resolve()


def state(*parts: str) -> Path:
    """A place under .state/ for what must survive a killed stage (never a DVC output). Its parent folder exists.

    Layout: locks/, errors/, downloads/, packs/ (decoded scenes), latency/, study/, checkpoints/, champion/.
    """
    path = home().joinpath(".state", *parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
