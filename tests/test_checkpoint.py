"""Checkpoints: what is saved comes back, and a kill or damage is never taken for a checkpoint."""

import resource
from pathlib import Path

import pytest
import torch

from roadseg import checkpoint
from roadseg.errors import UserError


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.pt"
    state = {"tensor": torch.arange(5), "step": 3, "seconds": 1.5, "nested": {"curve": [{"loss": 0.5}], "name": "x"}}
    checkpoint.save(path, state)
    loaded = checkpoint.load(path)
    assert torch.equal(loaded.pop("tensor"), state.pop("tensor")) and loaded == state
    assert [file.name for file in path.parent.iterdir()] == ["a.pt"]


def test_a_disk_that_takes_no_more_is_said_and_keeps_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"step": 1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(OSError, match=f"File too large: '{path}'"):
            checkpoint.save(path, {"step": 2, "weights": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [one.name for one in tmp_path.iterdir()] == ["last.pt"]
    assert checkpoint.load(path) == {"step": 1}


def test_a_failed_save_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    checkpoint.save(path, {"step": 1})
    with pytest.raises(AttributeError):
        checkpoint.save(path, {"step": 2, "local": lambda: None})
    assert checkpoint.load(path) == {"step": 1}
    checkpoint.save(path, {"step": 3})  # over what the failed one left aside
    assert checkpoint.load(path) == {"step": 3}


def test_missing_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with pytest.raises(UserError, match=r"a\.pt is missing: no checkpoint was saved there"):
        checkpoint.load(path)
    checkpoint.save(path, {"weights": torch.zeros(1000)})
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[whole.index(b"ctorch._utils")] ^= 255
    cut = [whole[:size] for size in range(0, len(whole), 53)]
    for damaged in (*cut, bytes(changed), b"not a checkpoint"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"a\.pt is not a checkpoint of ours .*delete it and start again"):
            checkpoint.load(path)
    torch.save({"runs": Path}, path)  # a global: would need code to load
    with pytest.raises(UserError, match="is not a checkpoint of ours"):
        checkpoint.load(path)
