"""What training sees, step by step: budgets, phases and where each begins."""

import math

import numpy as np
import pytest

from roadseg import config
from roadseg.scenes.batches import Batches
from roadseg.scenes.plan import Phase, Plan, even, plan
from tests.test_augment import Scenes


def test_budgets_are_equal_pixels_whatever_the_crop() -> None:
    scene, batch = 360 * 480, 8 * 360 * 480
    for crop in ((360, 480), (256, 352), (192, 256)):
        planned = plan(100 * scene, batch, crop)
        [phase] = planned.phases
        assert phase.crop == crop and abs(phase.crops * math.prod(phase.crop) / batch - 1) < 0.04
        assert abs(planned.pixels(planned.steps) / (100 * scene) - 1) < 0.05
    assert plan(10, 10, (32, 32)).phases == (Phase(1, 1, (32, 32), unscaled=(32, 32)),), "at least a step of a crop"
    assert plan(10, 10, (32, 32), multiple=3).phases[0].crops == 3


ASKED = (config.Phase(share=0.5, scale=0.5, batch=2, rate=1.5), config.Phase(share=0.5))


def test_phases_share_the_crops_that_training_sees() -> None:
    """100 scenes of 192x384, 4 a batch: 50 of them at half the size in batches of 8, 50 in batches of 4."""
    planned = plan(100 * 192 * 384, 4 * 192 * 384, (192, 384), ASKED)
    assert planned.phases == (
        Phase(6, 8, (96, 192), 0.5, 1.5, (192, 384)),
        Phase(12, 4, (192, 384), unscaled=(192, 384)),
    )  # 50 / 8, 50 / 4, rounded
    assert planned.steps == 18
    seen = [(phase.crop, first) for phase, first in (planned.at(step) for step in (0, 5, 6, 17, 18))]
    small, whole = (96, 192), (192, 384)
    assert seen == [(small, 0), (small, 40), (whole, 48), (whole, 92), (whole, 96)]
    seen_then = [planned.pixels(steps) / (192 * 384) for steps in (0, 6, 7, 18, 20)]
    assert seen_then == [0, 6 * 8, 6 * 8 + 4, 96, 104], "of scenes, past the end too"
    odd = plan(100 * 360 * 480, 4 * 360 * 480, (360, 480), ASKED)  # 180x240 is no multiple of 32: 192x256
    assert odd.phases[0].crop == (192, 256) and odd.pixels(odd.steps) == 96 * 360 * 480


def test_batches_follow_the_plan_and_scenes_go_on_through_it() -> None:
    planned = Plan((Phase(2, 3, (32, 64), 0.5), Phase(2, 2, (64, 96))))
    batches = Batches(Scenes(5), planned, seed=1)  # type: ignore[arg-type]
    assert [tuple(batches[step][1].shape) for step in range(5)] == [(3, 32, 64)] * 2 + [(2, 64, 96)] * 3
    assert sorted(batches.scene(crop) for crop in range(5)) == list(range(5)), "a pass goes over the phases' border"


def test_a_scaled_phase_shows_more_of_the_scene_in_as_many_pixels() -> None:
    """A scene of two halves, 64x256: crops of 64x64 of it at half the size show both halves twice as often."""

    class Halves(Scenes):
        def __getitem__(self, scene: int) -> tuple[np.ndarray, np.ndarray]:
            label = np.zeros((64, 256), np.uint8)
            label[:, 128:] = 1
            return np.repeat(label[:, :, None] * 200, 3, axis=2), label

    def both(scale: float) -> int:
        batches = Batches(Halves(1), Plan((Phase(200, 1, (64, 64), scale),)), seed=1)  # type: ignore[arg-type]
        return sum(set(np.unique(batches[step][1])) >= {0, 1} for step in range(200))

    assert both(0.5) > 1.4 * both(1.0) > 0


def test_parts_of_a_batch_make_the_whole() -> None:
    whole = Batches(Scenes(), even(4, 4, (32, 64)), seed=3)  # type: ignore[arg-type]
    parts = [Batches(Scenes(), even(4, 4, (32, 64)), seed=3, part=(place, 2)) for place in range(2)]  # type: ignore[arg-type]
    for kind in (0, 1):
        together = np.concatenate([part[1][kind].numpy() for part in parts])
        np.testing.assert_array_equal(together, whole[1][kind].numpy())
    with pytest.raises(ValueError, match="a batch of 4 crops does not divide into 3 equal parts"):
        Batches(Scenes(), even(4, 4, (32, 64)), seed=3, part=(0, 3))  # type: ignore[arg-type]
