"""A validation split of the tails of the training sequences, for sources whose official one says little.

CamVid's official val is a single shot, seven seconds long: what scores best there need not elsewhere. Here the last
scenes of every training sequence become val, training keeps a distance in time to all that is held out, and the
official val is scored beside them, as a split of its own.
"""

import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from roadseg.errors import UserError
from roadseg.scenes.sources.source import OFFICIAL, RawScene, Source


def scenes(source: Source, folder: Path) -> list[RawScene]:
    """The scenes of a raw folder in the splits of this run: the official ones, or those of `source.blocks`."""
    found = list(source.scan(folder))
    return divide(found, source.blocks.share, source.blocks.gap) if source.blocks else found


def divide(scenes: Sequence[RawScene], share: float, gap: int) -> list[RawScene]:
    """The scenes in their new splits, without those that are too near: training scenes less than `gap` frames from a
    held-out one, and val scenes less than that from one of test or of the official val.

    Val is the last `share` (rounded) of each training sequence. UserError where a scene of such a sequence has no frame
    number, and where no sequence is long enough.
    """
    training: dict[str, list[RawScene]] = defaultdict(list)
    for scene in scenes:
        if scene.split == "train":
            training[scene.sequence].append(scene)
    tails = {scene.name for found in training.values() for scene in _tail(found, share)}
    if not tails:
        raise UserError(
            f"blocks: none of {len(training)} training sequences is long enough for a tail of {share:g}: raise `share`"
        )
    divided = []
    for scene in scenes:
        split = "val" if scene.split == "train" and scene.name in tails else scene.split
        divided.append(replace(scene, split=OFFICIAL if scene.split == "val" else split))
    reported = _frames(divided, {"test", OFFICIAL}, set(training))
    apart = [one for one in divided if one.split != "val" or _distance(one, reported) >= gap]
    held = _frames(apart, {"val", "test", OFFICIAL}, set(training))
    return [one for one in apart if one.split != "train" or _distance(one, held) >= gap]


def described(before: Sequence[RawScene], after: Sequence[RawScene]) -> str:
    """What became of the training scenes, as one line."""
    official, now = Counter(scene.split for scene in before), Counter(scene.split for scene in after)
    gaps = official["train"] - now["train"] - now["val"]
    beside = f"; the official val ({now[OFFICIAL]}) is scored beside it" if now[OFFICIAL] else ""
    return (
        f"blocks: {now['train']} of {official['train']} training scenes remain, {now['val']} are val, {gaps} lie in "
        f"the gaps{beside}"
    )


def _tail(scenes: list[RawScene], share: float) -> list[RawScene]:
    return sorted(scenes, key=_frame)[len(scenes) - round(share * len(scenes)) :]


def _frame(scene: RawScene) -> int:
    if scene.frame is None:
        raise UserError(f"{scene.image} has no frame number, which blocks need: end its name with digits")
    return scene.frame


def _frames(scenes: Sequence[RawScene], splits: set[str], sequences: set[str]) -> dict[str, list[int]]:
    """The frames of these splits in each of these sequences, sorted."""
    found: dict[str, list[int]] = {sequence: [] for sequence in sequences}
    for scene in scenes:
        if scene.split in splits and scene.sequence in sequences:
            found[scene.sequence].append(_frame(scene))
    return {sequence: sorted(frames) for sequence, frames in found.items()}


def _distance(scene: RawScene, frames: Mapping[str, Sequence[int]]) -> float:
    """Frames to the nearest of `frames` of the scene's own sequence."""
    others, frame = frames[scene.sequence], _frame(scene)
    place = bisect_left(others, frame)
    return min((abs(frame - other) for other in others[max(0, place - 1) : place + 1]), default=math.inf)
