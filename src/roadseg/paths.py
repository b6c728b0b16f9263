"""Where things live. Every path that DVC knows is relative to the project's root, which is the working directory.

`home()` differs from the working directory where a run has a copy of the project to itself, and shares the MLflow store
and the resumable state of the project that it came from: a retrain's git worktree (ROADSEG_HOME names its home) and the
folder of a queued `dvc exp run` (DVC names it in DVC_ROOT).
"""

import os
import re
from pathlib import Path

from roadseg.errors import UserError

RAW = Path("data/raw")
REMAPPED = Path("data/remapped")
PROFILE = Path("data/profile")
VALIDATION = Path("data/validation")
SEARCH = Path("models/search")
TRAIN = Path("models/train")
EXPORT = Path("models/export")
EVALUATE = Path("models/evaluate")
PROMOTE = Path("models/promote")

MODELS = "models:/"
"""How a setting that names a registered model begins."""
NAME = r"(?P<name>[^/:@.\s\x00-\x1f\x7f-\x9f][^/:@\x00-\x1f\x7f-\x9f\u2028\u2029]{0,254})"
"""A registered model's name: one that MLflow takes (no slash, no colon), and that is safe as a folder's name."""
NUMBER = r"(?P<number>[0-9]{1,9})"
"""A version. The server fails on a number that its database cannot hold, and MLflow's client asks again for minutes."""
VERSION = re.compile(f"{re.escape(MODELS)}{NAME}/{NUMBER}")


def home() -> Path:
    """The folder that holds mlflow/ and .state/: ROADSEG_HOME, else DVC_ROOT, else the working directory. Absolute."""
    return Path(os.environ.get("ROADSEG_HOME") or os.environ.get("DVC_ROOT") or Path.cwd()).resolve()


def of_home(path: Path) -> Path:
    """A path that a person gave, which is relative to `home()`: in a project's own folder the path as it is.

    Raises UserError where it begins with the home of a user that there is not.
    """
    try:
        expanded = path.expanduser()
    except RuntimeError:
        raise UserError(f"{path}: this machine has no user {path.parts[0]}: write the path in full") from None
    return expanded if home() == Path.cwd() else home() / expanded


def state(*parts: str) -> Path:
    """A place under .state/ for what must survive a killed stage (never a DVC output). Its parent folder exists.

    Layout: locks/, errors/, downloads/, accepted/ (class shares), packs/ (decoded scenes), latency/, study/,
    checkpoints/, champion/, remapped/ (masks by content), registered/ (weights of registered models).
    """
    path = home().joinpath(".state", *parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def weights(source: str) -> Path:
    """Where the weights lie that a setting names: a file's path, or models:/NAME/VERSION, which is copied under .state/
    before training begins. Nothing is made.

    Raises UserError where a registered model is named in another way: its parts become names of folders.
    """
    if not source.startswith(MODELS):
        return of_home(Path(source))
    found = VERSION.fullmatch(source)
    if not found:
        raise UserError(f"{source!r} must be models:/NAME/VERSION: a registered model's name, and a number")
    return home() / ".state" / "registered" / found["name"] / found["number"] / "weights.safetensors"


def folder(path: Path, option: str = "--out") -> None:
    """Makes the folder that a person named, by `option`, for results. Raises UserError where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be made a folder ({error.strerror}): name another by {option}") from None


def picture(path: Path) -> Path:
    """A picture that a person named for results, whose folder is made. Raises UserError where it can be none."""
    if path.suffix.lower() not in (".png", ".pdf", ".svg") or path.is_dir():
        raise UserError(f"--out {path}: a picture's name must end in .png, .pdf or .svg")
    folder(path.parent)
    return path


def finalists(folder: Path) -> list[Path]:
    """The finalists' folders, by name. Raises UserError where there is none."""
    found = sorted(path.parent for path in folder.glob("*/recipe.json"))
    if not found:
        raise UserError(f"{folder} holds no finalist: run the stage that writes it first")
    return found
