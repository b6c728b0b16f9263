"""What training sees, step by step: how many crops, of which size, of scenes at which scale.

One phase is the usual. Several are progressive scaling (Smith and Topin's "progressive resizing", made known by fast.ai
and, with a batch and a rate a phase, by Tan and Le 2021, section 4): small pictures first, which cost little, whole
ones at the end. A budget counts in pixels of the scenes, so that runs with different crops compare.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from roadseg import config
from roadseg.scenes.augment import crop_size


@dataclass(frozen=True)
class Phase:
    """A stretch of training in which all batches are alike."""

    steps: int
    """Optimiser steps."""
    crops: int
    """Of one step's batch."""
    crop: tuple[int, int]
    """(height, width), pixels."""
    scale: float = 1.0
    """Scenes are seen at this size, against their own."""
    rate: float = 1.0
    """Factor on the learning rate."""
    unscaled: tuple[int, int] | None = None
    """The crop of an unscaled scene that this one stands for; None: itself."""

    @property
    def pixels(self) -> int:
        """That one step stands for: its unscaled crops', padding included."""
        return self.crops * math.prod(self.unscaled or self.crop)


@dataclass(frozen=True)
class Plan:
    """Phases, one after another."""

    phases: tuple[Phase, ...]

    @property
    def steps(self) -> int:
        """Of all phases."""
        return sum(phase.steps for phase in self.phases)

    def at(self, step: int) -> tuple[Phase, int]:
        """The phase of a step, counted from 0, and how many crops were seen before it. Past the end the last phase goes
        on."""
        seen = 0
        for phase in self.phases[:-1]:
            if step < phase.steps:
                return phase, seen + step * phase.crops
            step -= phase.steps
            seen += phase.steps * phase.crops
        return self.phases[-1], seen + step * self.phases[-1].crops

    def pixels(self, steps: int) -> int:
        """That the first `steps` steps stand for. Past the end the last phase goes on."""
        seen = 0
        for phase in self.phases[:-1]:
            done = min(steps, phase.steps)
            seen += done * phase.pixels
            steps -= done
        return seen + steps * self.phases[-1].pixels


def plan(
    pixels: float,
    batch_pixels: int,
    crop: tuple[int, int],
    asked: Sequence[config.Phase] = (),
    multiple: int = 1,
) -> Plan:
    """The plan of a budget of `pixels` of unscaled scenes.

    batch_pixels: of a step, whatever the crop; the number of crops is what comes nearest, at least one. crop: (height,
    width), pixels, of an unscaled scene; that of a scaled one is rounded as `crop_size` does. asked: the phases as
    params.yaml has them, each of at least one step; none: a single one. multiple: of which the crops of a batch are
    one, so that they divide into as many equal parts.
    """
    crops = max(1, round(batch_pixels / math.prod(crop)))
    phases = []
    for part in asked or (config.Phase(share=1),):
        here = max(1, round(crops * part.batch / multiple)) * multiple
        steps = max(1, round(part.share * pixels / (here * math.prod(crop))))
        phases.append(Phase(steps, here, crop_size(*crop, part.scale), part.scale, part.rate, crop))
    return Plan(tuple(phases))


def even(steps: int, crops: int, crop: tuple[int, int]) -> Plan:
    """One phase."""
    return Plan((Phase(steps, crops, crop),))
