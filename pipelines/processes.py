"""Subprocesses that leave nothing behind: each leads a process group, which ends with the block that started it."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import psutil

GRACE_S = 15.0  # from SIGTERM to SIGKILL; Prefect gives a cancelled flow 30 s before it kills the flow itself
COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
GUARD = """trap 'trap "" TERM; kill -TERM 0' TERM; "$@" & wait $!"""
_libc = ctypes.CDLL(None)


@contextmanager
def group(
    command: list[str],
    *,
    cwd: Path,
    environment: dict[str, str],
    output: int | IO[str] = subprocess.PIPE,
    grace_s: float = GRACE_S,
) -> Iterator[subprocess.Popen[str]]:
    """Runs a command in a process group of its own. When the block ends, however it does, `end_group` follows.

    A shell leads the group: should this process be killed with -9, the kernel tells the leader (on Linux), which passes
    it on to all of them.
    """
    process = subprocess.Popen(
        ["/bin/sh", "-c", GUARD, "sh", *command],
        cwd=cwd,
        env=environment,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )
    try:
        yield process
    finally:
        try:
            end_group(process, grace_s)
        finally:
            if process.stdout:
                process.stdout.close()


def lines(process: subprocess.Popen[str]) -> Iterator[str]:
    """The output of a process, line by line as it comes, without colours and blank lines; then waits for its end."""
    assert process.stdout is not None
    for line in process.stdout:
        if text := COLOURS.sub("", line).rstrip():
            yield text
    process.wait()


def end_group(process: subprocess.Popen[str], grace_s: float = GRACE_S) -> None:
    """SIGTERM to the group that `process` leads, SIGKILL to what is left of it `grace_s` seconds later."""
    deadline = time.monotonic() + grace_s
    with undisturbed():
        for number, until in ((signal.SIGTERM, deadline), (signal.SIGKILL, deadline + grace_s)):
            if process.poll() is not None and not _living(process.pid):
                break
            os.killpg(process.pid, number)
            _until(lambda: process.poll() is not None and not _living(process.pid), until)
        process.wait()


@contextmanager
def undisturbed() -> Iterator[None]:
    """SIGTERM and SIGINT wait until the block is done: a second one must not cut short the cleaning up after the first.

    By handlers, not by a signal mask: a mask holds for one thread, and Python runs handlers for all of them.
    """
    if threading.current_thread() is not threading.main_thread():  # Python's handlers run in the main thread alone
        yield
        return
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: came.append(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for late in came[:1]:
            os.kill(os.getpid(), late)


def _until(ended: Callable[[], bool], deadline: float) -> None:
    while not ended() and time.monotonic() < deadline:
        time.sleep(0.1)


def _living(leader: int) -> list[psutil.Process]:
    """Members of the group that are more than zombies (nobody may be there to reap those whose parent is gone)."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def die_with_parent(number: int = signal.SIGTERM) -> None:
    """Asks the kernel, where it is Linux, to send this process a signal when its parent is gone, `kill -9` included."""
    if sys.platform == "linux":
        _libc.prctl(1, number)  # PR_SET_PDEATHSIG
