"""How every stage behaves: one writer, outputs placed last, mistakes written down, no life after its commander's.

with stage("remap", "streets") as running:
    folder = running.aside(Path("data/remapped/streets"))
    ...  # write into `folder`; it takes its final name when the block ends well
"""

import fcntl
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Any

import psutil

from roadseg.errors import StageFailure, UserError, one_line
from roadseg.paths import state

GRACE_S = 15.0  # an orphaned stage notices within a second and needs a few more to end its runs


class Stage:
    """A running stage: the outputs that it builds aside."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._asides: dict[Path, Path] = {}

    def aside(self, final: Path) -> Path:
        """An empty place beside `final` to build a file or folder in; it becomes `final` when the stage ends well."""
        aside = final.with_name(f".{final.name}.aside")
        _remove(aside)
        aside.parent.mkdir(parents=True, exist_ok=True)
        self._asides[final] = aside
        return aside

    def folder(self, final: Path) -> Path:
        """`aside` for a folder, already made."""
        aside = self.aside(final)
        aside.mkdir()
        return aside

    def json(self, final: Path, value: Any) -> None:
        """Writes `value` as indented JSON, to become `final`."""
        self.aside(final).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")

    def discard(self) -> None:
        """Removes what was built aside."""
        for aside in self._asides.values():
            _remove(aside)

    def place(self) -> None:
        for final, aside in self._asides.items():
            if final.is_dir():
                _remove(final)
            aside.replace(final)


@contextmanager
def stage(name: str, item: str | None = None) -> Iterator[Stage]:
    """Runs a stage's body as its only writer, and leaves .state/errors/NAME.json where it fails.

    Raises:
        UserError: the stage is running already, in the process that the message names.
    """
    full = f"{name}@{item}" if item else name
    running = Stage(full)
    try:
        with recorded(full), _lock(full), _terminable(), _watching_commander():
            _record(full).unlink(missing_ok=True)
            yield running
            running.place()
    finally:
        running.discard()


@contextmanager
def recorded(full: str) -> Iterator[None]:
    """Leaves .state/errors/FULL.json where the block fails; `stage` does it for its own."""
    try:
        yield
    except Exception as error:
        kind = "user" if isinstance(error, UserError) else "failure" if isinstance(error, StageFailure) else "crash"
        _record(full).write_text(json.dumps({"stage": full, "kind": kind, "message": one_line(error)}) + "\n")
        raise


def _record(full: str) -> Path:
    return state("errors", f"{full}.json")


def experiment() -> bool:
    """Whether `dvc exp run` is what runs: it compares, and changes nothing that other runs go by."""
    return bool(os.environ.get("DVC_EXP_NAME") or os.environ.get("DVC_EXP_BASELINE_REV"))  # it sets both


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _lock(name: str) -> Iterator[None]:
    """The stage's lock, an OS lock on a file: it ends with the process that holds it, however that process ends.

    A record lock (`lockf`), because children do not inherit it: a data worker cannot keep a dead stage locked.
    """
    path = state("locks", f"{name}.lock")
    with path.open("a+", encoding="utf-8") as file:
        deadline = time.monotonic() + GRACE_S
        while not _try_lock(file):
            if time.monotonic() > deadline:
                file.seek(0)
                holder = file.read().strip() or "another process"
                raise UserError(
                    f"{name} is already running as {holder}: wait for it to end, or stop it, then try again"
                )
            time.sleep(0.2)
        file.truncate(0)
        file.write(f"process {os.getpid()} in {Path.cwd()}")
        file.flush()
        yield


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def _terminable() -> Iterator[None]:
    """Makes SIGTERM an exception, so that what a stage holds (runs, servers, workers) is closed on the way out."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # Prefect may run a flow's body in a thread
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _watching_commander() -> Iterator[None]:
    """Ends this process when the `dvc` that started it is gone.

    Killing dvc alone leaves its stage alive, and the next `dvc repro` empties the outputs under it. Without DVC there
    is nobody to watch.
    """
    commander = _commander()
    done = threading.Event()

    def watch() -> None:
        while commander and not done.wait(0.5):
            if not commander.is_running() or commander.status() == psutil.STATUS_ZOMBIE:
                os.kill(os.getpid(), signal.SIGTERM)
                if not done.wait(GRACE_S / 2):
                    os._exit(143)

    thread = threading.Thread(target=watch, name="watch-dvc", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _commander() -> psutil.Process | None:
    if "DVC_STAGE" not in os.environ:
        return None
    for parent in psutil.Process().parents():
        if any(Path(word).name == "dvc" for word in parent.cmdline()[:3]):
            return parent
    return None
