"""The training loop.

In: a network and what trains it (roadseg.engine.training), a pack of labelled scenes. Out: `fit` yields a Report now
and then; the consumer logs, evaluates, prunes, saves `training.state()` or simply stops iterating. Budgets are in
pixels seen, so that runs with different crops compare.

Exact resume: what a step does depends on the state and on (seed, step) alone. Its batch is a function of them
(roadseg.scenes.batches), and torch's generator (dropout) is seeded from them before each step, so there is no random
state to save, and what the consumer draws between reports changes nothing.
"""

import copy
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from roadseg.engine.training import Loss, Teacher, Training
from roadseg.errors import StageFailure
from roadseg.losses import IGNORE, boundary
from roadseg.scenes.augment import normalise
from roadseg.scenes.batches import Batch, Batches, prefetch
from roadseg.scenes.pack import Pack

BACK_OFF = 0.5
"""Factor on the learning rate after each setback."""


class Diverged(StageFailure):
    """The loss is no longer a number; the message names the step, the loss, the learning rate and the scenes."""


@dataclass(frozen=True)
class Report:
    """How far training is."""

    step: int
    """Optimiser steps done."""
    total_steps: int
    epoch: float
    """Pixels seen, as a multiple of the training split's."""
    pixels: int
    """Pixels seen, padding included."""
    loss: float
    """Mean per step since the last report."""
    learning_rate: float
    """Of the last step."""
    seconds: float
    """Spent training so far, over all resumed sessions; the consumer's own time is not counted."""
    parts: int
    """In how many parts a batch goes through; more than asked for where memory ran out."""
    setbacks: int
    """How often training went back because the loss was no number."""


def crops_per_batch(batch_pixels: int, crop: tuple[int, int]) -> int:
    """Crops whose pixels come nearest to `batch_pixels`, at least one."""
    return max(1, round(batch_pixels / math.prod(crop)))


def total_steps(pixels: int, batch_pixels: int, crop: tuple[int, int]) -> int:
    """Steps that a budget of `pixels` allows, at least one."""
    return max(1, round(pixels / (crops_per_batch(batch_pixels, crop) * math.prod(crop))))


def fit(
    training: Training,
    pack: Pack,
    *,
    batch_pixels: int,
    crop: tuple[int, int],
    report_every_pixels: int,
    draws: Sequence[float] | None = None,
    augment: bool = True,
    rotation: float = 0.0,
    max_share: float = 1.0,
    workers: int = 1,
    setbacks: int = 0,
) -> Iterator[Report]:
    """Train from `training.step` to `training.total_steps`, yielding a Report about every `report_every_pixels`.

    batch_pixels: of one step, whatever the crop; the number of crops follows. crop: (height, width), pixels. draws,
    augment, rotation, max_share: see roadseg.scenes.batches. workers: threads that draw crops. At each yield, the last
    one included, the state is whole and may be saved; nothing is left running when the consumer stops iterating. A
    resumed run must be given the same pack, batch, crop and draws.

    A loss that is not finite takes training back to the last report, with half the learning rate from there on, at most
    `setbacks` times. Raises Diverged on the next.
    """
    crops = crops_per_batch(batch_pixels, crop)
    step_pixels = crops * math.prod(crop)
    batches = Batches(
        pack,
        crop=crop,
        crops=crops,
        seed=training.seed,
        draws=draws,
        augment=augment,
        rotation=rotation,
        max_share=max_share,
    )
    good = copy.deepcopy(training.state()) if setbacks else None
    losses: list[float] = []
    clock = time.perf_counter()
    while training.step < training.total_steps:
        with closing(prefetch(batches, training.step, training.total_steps, workers=workers)) as stream:
            for batch in stream:
                loss = _step(training, batch)
                seen = (training.step + 1) * step_pixels
                due = seen // report_every_pixels > (seen - step_pixels) // report_every_pixels
                due |= training.step + 1 == training.total_steps
                # A loss may still be a number when its gradient is none: what is reported and saved is looked at whole.
                if not math.isfinite(loss) or (due and not _finite(training.net)):
                    if good is None or training.setbacks >= setbacks:
                        raise _diverged(training, loss, batches)
                    had = training.setbacks
                    training.load(good)
                    training.setbacks = had + 1
                    losses.clear()
                    break
                training.step += 1
                losses.append(loss)
                if due:
                    training.seconds += time.perf_counter() - clock
                    yield _report(training, losses, batches)
                    losses.clear()
                    good = None  # before there is another: they are as large as the network and its optimizer
                    good = copy.deepcopy(training.state()) if setbacks else None
                    clock = time.perf_counter()


def _finite(net: nn.Module) -> bool:
    return all(bool(parameter.isfinite().all()) for parameter in net.parameters())


def _report(training: Training, losses: list[float], batches: Batches) -> Report:
    pixels = training.step * batches.crops * math.prod(batches.crop)
    return Report(
        step=training.step,
        total_steps=training.total_steps,
        epoch=pixels / batches.pack.pixels,
        pixels=pixels,
        loss=sum(losses) / len(losses),
        learning_rate=max(group["lr"] for group in training.optimizer.param_groups),
        seconds=training.seconds,
        parts=training.parts,
        setbacks=training.setbacks,
    )


def _diverged(training: Training, loss: float, batches: Batches) -> Diverged:
    first = training.step * batches.crops
    names = sorted({batches.pack.names[batches.scene(crop)] for crop in range(first, first + batches.crops)})
    rate = max(group["lr"] for group in training.optimizer.param_groups)
    after = f" after {training.setbacks} setbacks" if training.setbacks else ""
    listed = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return Diverged(
        f"training diverged: loss {loss} at step {training.step}{after}, learning rate {rate:.3g}, scenes {listed}"
    )


def _step(training: Training, batch: Batch) -> float:
    """One optimiser step; its loss. The weights are not to be used where that is not finite.

    Where the batch does not fit into the device's memory, it is divided, and stays so: each part weighs as much as it
    has labelled pixels. Batch norm then sees a part at a time.
    """
    _steer(training)
    training.net.train()
    while True:
        torch.manual_seed(int(np.random.SeedSequence((training.seed, training.step)).generate_state(1)[0]))
        training.optimizer.zero_grad(set_to_none=True)
        try:
            value = _backward(training, *batch)
            break
        except torch.OutOfMemoryError:
            if training.parts >= len(batch[0]):
                raise StageFailure(
                    f"out of memory on {training.device} with one crop at a time: lower search.crops (params.yaml)"
                ) from None
        training.parts = min(2 * training.parts, len(batch[0]))
        if training.device.type == "cuda":
            torch.cuda.empty_cache()
    if training.clip:
        training.scaler.unscale_(training.optimizer)
        nn.utils.clip_grad_norm_(training.net.parameters(), training.clip)
    training.scaler.step(training.optimizer)
    training.scaler.update()
    training.ema.update(training.net, training.step)
    return value.item()  # last: on a GPU it waits for the whole step


def _backward(training: Training, images: Tensor, labels: Tensor) -> Tensor:
    """Adds the batch's gradients, part after part; the loss, float32 scalar without a graph."""
    labelled = (labels != IGNORE).flatten(1).sum(dim=1)
    total = torch.zeros((), device=training.device)
    own = 1.0
    if training.mixup:
        own = float(np.random.default_rng((training.seed, training.step)).beta(training.mixup, training.mixup))
    # mixup: each with its mirror place in the whole batch, so that parts change nothing
    others = (images.flip(0), labels.flip(0)) if training.mixup else (images, labels)
    columns = (images, labels, *others, labelled)
    for image, label, other_image, other_label, counts in zip(
        *(column.chunk(training.parts) for column in columns), strict=True
    ):
        share = float(counts.sum() / labelled.sum().clamp_min(1)) if training.parts > 1 else 1.0
        loss = share * _loss(training, (image, other_image), (label, other_label), own)
        training.scaler.scale(loss).backward()
        total += loss.detach()
    return total


def _loss(training: Training, images: tuple[Tensor, Tensor], labels: tuple[Tensor, Tensor], own: float) -> Tensor:
    """The loss of images (uint8 BHWC) and labels (uint8 BHW), the second of which are mixed in by a share 1 - own."""
    mixed = 1 if own == 1 else 2
    views = [normalise(one.to(training.device, non_blocking=True)) for one in images[:mixed]]
    image = views[0] if mixed == 1 else own * views[0] + (1 - own) * views[1]
    if not training.channels_last:
        image = image.contiguous()
    target, *other = (one.to(training.device, non_blocking=True).long() for one in labels[:mixed])
    with torch.autocast(training.device.type, training.dtype, enabled=training.dtype != torch.float32):
        outputs = training.net(image)
    loss = own * _weigh(training.loss, outputs, target, training.aux_weight)
    for second in other:
        loss = loss + (1 - own) * _weigh(training.loss, outputs, second, training.aux_weight)
    if training.teacher:
        loss = loss + training.teacher.weight * _imitate(training, training.teacher, image, outputs, target)
    return loss


def _steer(training: Training) -> None:
    """Sets the optimizer's learning rate, and momentum where the schedule has one, for the step to come."""
    progress = training.step / training.total_steps
    learning_rate = training.learning_rate * BACK_OFF**training.setbacks * training.schedule(progress)
    for group in training.optimizer.param_groups:
        group["lr"] = learning_rate * group["share"]
        if training.schedule.momentum:
            momentum = training.schedule.momentum(progress)
            group.update({"betas": (momentum, group["betas"][1])} if "betas" in group else {"momentum": momentum})


def _imitate(
    training: Training, teacher: Teacher, images: Tensor, outputs: Tensor | Sequence[Tensor], target: Tensor
) -> Tensor:
    """How far the main output is from the teacher's answer to the same images."""
    with torch.no_grad(), torch.autocast(training.device.type, training.dtype, training.dtype != torch.float32):
        answer = teacher.net(images)
    main = outputs if isinstance(outputs, Tensor) else outputs[0]
    return teacher.loss(main.float(), answer.float(), target)


def _weigh(loss: Loss, outputs: Tensor | Sequence[Tensor], target: Tensor, aux_weight: float) -> Tensor:
    """Loss of the main output plus `aux_weight` times that of each auxiliary one, in float32.

    Auxiliary logits may be smaller than the target: the losses compare them with the pixels in the middle. An auxiliary
    head of a single channel, beside a main one of several, predicts boundaries.
    """
    main, *aux = [outputs] if isinstance(outputs, Tensor) else outputs
    total = loss(main.float(), target)
    for logits in aux:
        of_head = boundary if logits.shape[1] == 1 < main.shape[1] else loss
        total = total + aux_weight * of_head(logits.float(), target)
    return total
