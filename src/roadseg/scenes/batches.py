"""Which crops make up batch number n of a run: a pure function of (seed, n).

In: a pack whose labels are as large as their images, a plan (roadseg.scenes.plan), a seed. Out: batches (images uint8
BHWC RGB 0-255, labels uint8 BHW train ids, 255 = ignore; where there is a GPU, in pinned memory). Since nothing else
goes in, any number of workers gives the same batches, and a run resumes at any batch.
"""

import threading
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from roadseg.labels import IGNORE
from roadseg.scenes.augment import USUAL, Augmentation, augmenter
from roadseg.scenes.masks import histogram
from roadseg.scenes.pack import Pack
from roadseg.scenes.plan import Plan

Batch = tuple[Tensor, Tensor]

ATTEMPTS = 10
"""How often a crop is drawn until no class has too large a share of it."""


class Batches:
    """`batches[n]` is batch n, n >= 0 without end.

    Crops are numbered through the run, and each pass takes every scene once, in an order of its own. A pass is an epoch
    only where crops are whole scenes. With `draws`, scenes come in these proportions: a pass has as many crops as they
    add up to, rounded, and a scene's number in it is its share of them, rounded up or down (systematic sampling, Madow
    1949). With `augmentation` None, crops are whole scenes as they are, which all must have the crop's size.

    `max_share`: a crop in which one class has a larger share of the labelled
    pixels, or which has none, is drawn anew, nine times at most (class-aware cropping as MMSegmentation's cat_max_ratio
    does it; its usual value is 0.75). `part`: (i, of n): `batches[n]` is the i-th of n equal parts of the batch, where
    several processes train together.
    """

    def __init__(
        self,
        pack: Pack,
        plan: Plan,
        *,
        seed: int,
        draws: Sequence[float] | None = None,
        augmentation: Augmentation | None = USUAL,
        max_share: float = 1.0,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self.pack, self.plan, self.seed, self.augmentation = pack, plan, seed, augmentation
        self.max_share, self.part = max_share, part
        self._until = np.cumsum(np.ones(len(pack)) if draws is None else np.asarray(draws, np.float64))
        if len(self._until) != len(pack):
            raise ValueError(f"`draws` has {len(self._until)} numbers for {len(pack)} scenes")
        if odd := [phase.crops for phase in plan.phases if phase.crops % part[1]]:
            raise ValueError(f"a batch of {odd[0]} crops does not divide into {part[1]} equal parts")
        self._of_thread = threading.local()  # an augmenter serves one thread at a time

    def __getitem__(self, number: int) -> Batch:
        phase, first = self.plan.at(number)
        which, of = self.part
        crops = phase.crops // of
        pinned = torch.cuda.is_available()  # a copy of it to a GPU need not be waited for
        images = torch.empty((crops, *phase.crop, 3), dtype=torch.uint8, pin_memory=pinned)
        labels = torch.empty((crops, *phase.crop), dtype=torch.uint8, pin_memory=pinned)
        for place in range(crops):
            crop = self._draw(first + which * crops + place, phase.crop, phase.scale)
            images.numpy()[place], labels.numpy()[place] = crop
        return images, labels

    def names(self, number: int) -> list[str]:
        """The scenes of batch `number`, whole, by their images' paths."""
        phase, first = self.plan.at(number)
        return sorted({self.pack.names[self.scene(crop)] for crop in range(first, first + phase.crops)})

    def scene(self, i: int) -> int:
        """The scene that crop i of the run is drawn from."""
        total = float(self._until[-1])
        length = max(1, round(total))
        which_pass, place = divmod(i, length)
        random = np.random.default_rng((self.seed, which_pass))
        ticket = random.permutation(length)[place]
        at = (ticket + random.random()) * total / length
        return min(int(np.searchsorted(self._until, at, side="right")), len(self.pack) - 1)

    def _draw(self, i: int, crop: tuple[int, int], scale: float) -> tuple[np.ndarray, np.ndarray]:
        """Crop i of the run."""
        image, label = self.pack[self.scene(i)]
        if self.augmentation is None:
            return image, label
        if getattr(self._of_thread, "sees", None) != (crop, scale):
            self._of_thread.augment = augmenter(crop, self.augmentation, scale)
            self._of_thread.sees = crop, scale
        for attempt in range(ATTEMPTS):
            seed = int(np.random.SeedSequence((self.seed, i, attempt)).generate_state(1)[0])
            image_crop, label_crop = self._of_thread.augment(image, label, seed)
            if self.max_share >= 1 or largest_share(label_crop) <= self.max_share:
                break
        return image_crop, label_crop


def largest_share(label: np.ndarray) -> float:
    """The largest share that one class has of a mask's labelled pixels (uint8 HW, 255 = ignore); 1 where none is."""
    counts = histogram(label)[:IGNORE]
    return int(counts.max()) / int(counts.sum()) if counts.any() else 1.0


def prefetch(batches: Batches, first: int, last: int, *, workers: int = 1) -> Generator[Batch, None, None]:
    """Batches first .. last - 1 in order, drawn by `workers` threads while the caller trains.

    At most workers + 1 batches wait. 0 workers draw in the caller's own thread.
    """
    if workers == 0:
        yield from (batches[number] for number in range(first, last))
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="batches")
    tickets = (pool.submit(batches.__getitem__, number) for number in range(first, last))
    waiting = deque(islice(tickets, workers + 1))
    try:
        while waiting:
            batch = waiting.popleft().result()
            waiting.extend(islice(tickets, 1))
            yield batch
    finally:
        pool.shutdown(cancel_futures=True)
