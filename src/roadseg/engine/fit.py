"""The training loop.

In: a network and what trains it (roadseg.engine.training), batches of labelled scenes. Out: `fit` yields a Report now
and then; the consumer logs, evaluates, prunes, saves `training.state()` or simply stops iterating.

Exact resume: what a step does depends on the state and on (seed, step) alone. Its batch is a function of them
(roadseg.scenes.batches), and torch's generator (dropout) is seeded from them before each step, so there is no random
state to save, and what the consumer draws between reports changes nothing. To the last bit on a CPU: some of torch's
sums on a GPU are in no fixed order.
"""

import copy
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from roadseg import distributed
from roadseg.engine import memory
from roadseg.engine.training import LossFunction, Teacher, Training
from roadseg.errors import StageFailure
from roadseg.labels import IGNORE
from roadseg.losses import boundary, reduced
from roadseg.losses.pixels import Pixels
from roadseg.scenes.augment import normalise
from roadseg.scenes.batches import Batch, Batches, prefetch

BACK_OFF = 0.5
"""Factor on the learning rate after each setback."""
LEAST_SCALE = 2.0**-20
"""Of float16's gradients: 36 steps in a row that were left out are no overflow any more."""


class Diverged(StageFailure):
    """The loss is no longer a number; the message names the step, the loss, the learning rate and the scenes."""


@dataclass(frozen=True)
class Report:
    """How far training is."""

    step: int
    """Optimiser steps done."""
    total_steps: int
    epoch: float
    """Pixels seen, as a multiple of the training split's; of a scaled scene as many as the whole one has."""
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


def fit(
    training: Training,
    batches: Batches,
    *,
    report_every: float,
    workers: int = 1,
    setbacks: int = 0,
) -> Iterator[Report]:
    """Train from `training.step` to `training.total_steps`, yielding a Report about every `report_every` steps.

    batches: of `training.seed`, and planned for as many steps. workers: threads that draw them. At each yield, the last
    one included, the state is whole and may be saved; nothing is left running when the consumer stops iterating. A
    resumed run must be given the same batches.

    A loss that is not finite takes training back to the last report, with half the learning rate from there on, at most
    `setbacks` times. Raises Diverged on the next, and StageFailure where one crop alone, the optimizer's step or a part
    of one of several processes does not fit into the device's memory, or one crop is too small for batch norm.
    """
    on_cpu, first = training.device.type == "cpu", training.step
    if on_cpu:
        memory.keep_freed()
    good = copy.deepcopy(training.state()) if setbacks else None
    losses: list[float] = []
    clock = time.perf_counter()
    while training.step < training.total_steps:
        with closing(prefetch(batches, training.step, training.total_steps, workers=workers)) as stream:
            for batch in stream:
                loss, gradient = _step(training, batch, batches.plan.at(training.step)[0].rate)
                due = (training.step + 1) // report_every > training.step // report_every
                due |= training.step + 1 == training.total_steps
                # A loss may be a number when its gradient is none, and both when the weights that they lead to are not:
                # what is reported and saved is looked at whole.
                if not math.isfinite(loss + gradient) or (due and not _finite(training.net)):
                    if good is None or training.setbacks >= setbacks:
                        raise _diverged(training, loss, gradient, batches)
                    good["setbacks"] = training.setbacks + 1
                    training.load(good)
                    losses.clear()
                    break
                training.step += 1
                losses.append(loss)
                if on_cpu and (due or training.step == first + 1):
                    memory.large_pages()  # what later steps take more, at each report
                if due:
                    training.seconds += time.perf_counter() - clock
                    yield _report(training, losses, batches)
                    losses.clear()
                    good = None  # before there is another: they are as large as the network and its optimizer
                    good = copy.deepcopy(training.state()) if setbacks else None
                    clock = time.perf_counter()


@torch.no_grad()
def _finite(net: nn.Module) -> bool:
    state = [*net.parameters(), *(one for one in net.buffers() if one.is_floating_point())]
    return bool(nn.utils.get_total_norm(state).isfinite())  # a number if they all are, to 1e19


def _report(training: Training, losses: list[float], batches: Batches) -> Report:
    return Report(
        step=training.step,
        total_steps=training.total_steps,
        epoch=batches.plan.pixels(training.step) / batches.pack.pixels,
        loss=sum(losses) / len(losses),
        learning_rate=_rate(training),
        seconds=training.seconds,
        parts=training.parts,
        setbacks=training.setbacks,
    )


def _rate(training: Training) -> float:
    """Of the last step; a pre-trained backbone's is a share of it."""
    group = training.optimizer.param_groups[0]
    return float(group["lr"] / group["share"])


def _diverged(training: Training, loss: float, gradient: float, batches: Batches) -> Diverged:
    names = batches.names(training.step)  # all: any of them may be the one
    after = f" after {training.setbacks} setbacks" if training.setbacks else ""
    what = f"loss {loss:.3g}, norm of its gradient {gradient:.3g}"
    if math.isfinite(loss + gradient):
        what = f"loss {loss:.3g}, but weights are no numbers since the last report,"
    where = f"step {training.step}{after}, learning rate {_rate(training):.3g}"
    return Diverged(f"training diverged: {what} at {where}, scenes {', '.join(names)}")


def _step(training: Training, batch: Batch, rate: float) -> tuple[float, float]:
    """One optimiser step at `rate` times the schedule's learning rate; its loss and the norm of its gradient. The
    weights are not to be used where one is not finite.

    Where the batch does not fit into the device's memory, it is divided, and stays so: each part weighs as much as it
    has labelled pixels, which is the whole batch's mean where all classes weigh the same. Losses that divide by weights
    of pixels, or look at whole regions, see a part at a time, and so does batch norm. Of several processes none can go
    back alone: they end.
    """
    _steer(training, rate)
    training.net.train()
    before = training.parts
    while True:
        torch.manual_seed(_seed(training))
        training.optimizer.zero_grad(set_to_none=True)
        try:
            with memory.recognised():
                value = _backward(training, *batch)
            break
        except torch.OutOfMemoryError as error:
            if training.parts >= len(batch[0]):
                # what the whole batch took of a CPU's memory is in pieces by then, too small for other sizes
                start = f"start with train.parts {training.parts}, or " if training.parts > before else ""
                raise StageFailure(
                    f"out of memory on {training.device} with one crop at a time: {start}lower search.crops or "
                    "train.long_side (params.yaml)"
                ) from error
            if distributed.size() > 1:
                raise StageFailure(
                    f"out of memory on {training.device} with train.parts {training.parts} (params.yaml): raise it"
                ) from None
        except ValueError as error:
            if "Expected more than 1 value per channel" not in str(error):  # torch's batch norm
                raise
            raise StageFailure(
                f"one crop of {batch[0].shape[2]}x{batch[0].shape[1]} at a time is too small for batch norm: raise "
                "train.batch or search.crops, or lower train.parts (params.yaml)"
            ) from None
        training.parts = min(2 * training.parts, len(batch[0]))
        training.ema.restore_buffers(training.net)  # batch norm has counted what the failed try saw
        if training.device.type == "cuda":
            torch.cuda.empty_cache()
    try:
        with memory.recognised():
            norm = _update(training)
    except torch.OutOfMemoryError:
        raise StageFailure(
            f"out of memory on {training.device} in the optimizer's step: take a lighter network (search.networks, "
            "params.yaml), or free the device of other work"
        ) from None
    loss, gradient = torch.stack([distributed.averaged(value), norm]).tolist()  # on a GPU this waits for the whole step
    return loss, gradient


def _update(training: Training) -> Tensor:
    """Moves the weights by their gradient, and the averaged ones after them. Its norm; with a gradient scaler, which
    leaves out steps whose gradient is not finite, 0, or infinity where it has left out all of the last ones."""
    if training.clip:
        training.scaler.unscale_(training.optimizer)
    weights = list(training.net.parameters())
    norm = nn.utils.get_total_norm([one.grad for one in weights if one.grad is not None])
    if training.clip:
        nn.utils.clip_grads_with_norm_(weights, training.clip, norm)
    training.scaler.step(training.optimizer)
    training.scaler.update()
    training.ema.update(training.net, training.step)
    if training.scaler.is_enabled():
        return norm.new_tensor(0.0 if training.scaler.get_scale() > LEAST_SCALE else math.inf)
    return norm


def _seed(training: Training) -> int:
    """Of dropout: another in each process, since each sees other crops."""
    key = training.seed, training.step, distributed.rank()
    return int(np.random.SeedSequence(key).generate_state(1)[0])


class _View(NamedTuple):
    """A part of a batch, or one of the two that mixup mixes."""

    weight: float
    images: Tensor
    """uint8 BHWC."""
    labels: Tensor
    """uint8 BHW."""
    share: float
    """Of the whole batch's labelled pixels."""


def _backward(training: Training, images: Tensor, labels: Tensor) -> Tensor:
    """Adds the batch's gradients, part after part; the loss, float32 scalar without a graph."""
    total = torch.zeros((), device=training.device)
    views = [(1.0, images, labels)]
    if training.mixup:
        own = float(np.random.default_rng((training.seed, training.step)).beta(training.mixup, training.mixup))
        # each with the one before it in all of this process's crops, so that parts change nothing
        views = [(own, images, labels), (1 - own, images.roll(1, 0), labels.roll(1, 0))]
    divided = [[_View(weight, *part) for part in _parts(training, image, label)] for weight, image, label in views]
    parts = list(zip(*divided, strict=True))
    for number, part in enumerate(parts):
        forward = training.forward
        with (
            forward.no_sync() if isinstance(forward, DistributedDataParallel) and parts[number + 1 :] else nullcontext()
        ):
            loss = _loss(training, part)
            training.scaler.scale(loss).backward()
        total += loss.detach()
    return total


def _parts(training: Training, images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Images and labels of each part of a batch, and its share of the labelled pixels, of all processes together."""
    chunks = labels.chunk(training.parts)
    shares = [1.0]
    if len(chunks) > 1:
        counts = torch.stack([(chunk != IGNORE).sum() for chunk in chunks])
        of_all = distributed.total(counts.to(training.device, torch.float64))
        shares = (of_all / of_all.sum().clamp_min(1)).tolist()
    return zip(images.chunk(training.parts), chunks, shares, strict=True)


def _loss(training: Training, views: Sequence[_View]) -> Tensor:
    """The loss of a part."""
    pictures = [normalise(view.images.to(training.device, non_blocking=True)) for view in views]
    image = pictures[0] if len(views) == 1 else views[0].weight * pictures[0] + views[1].weight * pictures[1]
    if not training.channels_last:
        image = image.contiguous()
    with training.autocast():
        outputs = training.forward(image)
    targets = [view.labels.to(training.device, non_blocking=True).long() for view in views]
    loss = torch.zeros((), device=training.device)
    for view, target in zip(views, targets, strict=True):
        loss = loss + view.weight * view.share * _weigh(training.loss, outputs, target, training.aux_weight)
    if training.teacher:
        known = targets[0].where(targets[-1] != IGNORE, IGNORE)  # of mixed images, what neither has as padding
        imitation = _imitate(training, training.teacher, image, outputs, known)
        loss = loss + views[0].share * training.teacher.weight * imitation
    return loss


def _steer(training: Training, rate: float) -> None:
    """Sets the optimizer's learning rate, and momentum where the schedule has one, for the step to come."""
    progress = training.step / training.total_steps
    learning_rate = rate * training.learning_rate * BACK_OFF**training.setbacks * training.schedule(progress)
    for group in training.optimizer.param_groups:
        group["lr"] = learning_rate * group["share"]
        if training.schedule.momentum:
            momentum = training.schedule.momentum(progress)
            group.update({"betas": (momentum, group["betas"][1])} if "betas" in group else {"momentum": momentum})


def _imitate(
    training: Training, teacher: Teacher, images: Tensor, outputs: Tensor | Sequence[Tensor], target: Tensor
) -> Tensor:
    """How far the main output is from the teacher's answer to the same images."""
    with torch.no_grad(), training.autocast():
        answer = teacher.net(images)
    main = outputs if isinstance(outputs, Tensor) else outputs[0]
    return teacher.loss(Pixels(main, target).logits, answer.float(), target)


def _weigh(loss: LossFunction, outputs: Tensor | Sequence[Tensor], target: Tensor, aux_weight: float) -> Tensor:
    """Loss of the main output plus `aux_weight` times that of each auxiliary one.

    The main output is compared at the target's size, as it is deployed; auxiliary ones at their own, with the pixels in
    the middle. An auxiliary head of a single channel, beside a main one of several, predicts boundaries.
    """
    main, *aux = [outputs] if isinstance(outputs, Tensor) else outputs
    total = loss(main, target)
    for logits in aux:
        if logits.shape[1] == 1 < main.shape[1]:
            of_head = boundary(logits, target)
        else:
            of_head = loss(logits, reduced(target, logits.shape[-2:]))
        total = total + aux_weight * of_head
    return total
