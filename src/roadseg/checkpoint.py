"""Checkpoints on disk: whole or not there.

In: a path and a state of tensors, numbers, strings, lists and dicts. Out: one file, or that state again. Nothing else
can be in it: loading runs no code of the file's (`weights_only`), so a checkpoint from elsewhere is safe to open.
"""

import errno
import os
import pickle
from pathlib import Path
from typing import Any

import torch

from roadseg.errors import UserError

BROKEN = (OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, AssertionError, pickle.UnpicklingError)
"""What torch.load raises at a file that is cut short or has wrong bytes."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Write beside `path`, force to disk, then rename: a kill at any moment leaves the old file or the new one. Raises
    OSError, and leaves nothing new, where the disk does not take it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.aside")
    try:
        with aside.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:
        aside.unlink(missing_ok=True)
        cause = error if isinstance(error, OSError) else error.__context__  # torch's own error hides it
        if isinstance(cause, OSError):
            raise OSError(cause.errno, cause.strerror, str(path)) from None
        raise
    aside.replace(path)


def load(path: Path) -> dict[str, Any]:
    """The state that `save` wrote, tensors on the CPU. Raises UserError where there is none or it is damaged."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: no checkpoint was saved there") from None
    except BROKEN as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # which torch causes by where it seeks
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{path} is not a checkpoint of ours ({reason}): delete it and start again") from None
