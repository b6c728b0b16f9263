"""A network's confusion on each scene of a pack.

In: a network (its EMA weights, for what is reported) and labelled scenes. Out: int64 [scenes, classes, classes], rows =
label, columns = prediction; roadseg.metrics makes scores and intervals of it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roadseg import distributed
from roadseg.bar import track
from roadseg.engine import memory
from roadseg.errors import StageFailure
from roadseg.metrics import confusion
from roadseg.scenes.augment import normalise
from roadseg.scenes.pack import Pack

AT_ONCE = 1 << 28
"""Logits that are brought to a label's size at once: 1 GiB. Mapillary's 66 classes at 20 megapixels would take 5."""
LEAST = 32
"""Pixels of a view's side: the deepest stride of most networks, and of Mix Transformers what attention looks at."""
OVERLAP = 1 / 3
"""Share of a window that the next one covers again, at least."""


@dataclass(frozen=True)
class Views:
    """What a network is asked for each scene; by default the scene once, as it is. More is slower and scores higher,
    so published scores say which they are; a deployed model is asked once."""

    scales: tuple[float, ...] = (1.0,)
    """Sizes at which the scene is seen, against its own; the softmax scores are averaged (Chen 2017, section 4.1)."""
    flip: bool = False
    """Whether the mirrored scene is seen as well."""
    window: tuple[int, int] | None = None
    """(height, width), pixels, of a window that slides over a scene that is larger: what does not fit into memory."""


PLAIN = Views()


@torch.inference_mode()
def evaluate(
    net: nn.Module,
    pack: Pack,
    *,
    classes: int,
    device: torch.device | str = "cpu",
    progress: str | None = None,
    views: Views = PLAIN,
) -> np.ndarray:
    """Per-scene confusion int64 [S, C, C] in the pack's order, ignored pixels dropped.

    Batch 1, float32, eval mode; what the network says is brought to the label's own size (bilinear) before argmax. The
    network's mode is put back at the end. Processes that train together share the scenes. `progress` names a
    progress bar; None shows none. Raises StageFailure where a scene does not fit into the device's memory.
    """
    matrices = np.zeros((len(pack), classes, classes), dtype=np.int64)
    was_training = net.training
    net.eval()

    def asked(view: Tensor) -> Tensor:
        answer: Tensor = net(view.to(device))
        return answer.to(view.device)

    try:
        own = range(distributed.rank(), len(pack), distributed.size())
        for scene in own if progress is None else track(own, progress, transient=True):
            image, label = pack[scene]
            try:
                with memory.recognised():
                    where = device if views.window is None else "cpu"  # of what does not fit, a window at a time
                    answer = said(asked, normalise(torch.tensor(image[None]).to(where)), views)
                    prediction = ids_at(answer, label.shape).cpu().numpy()
            except torch.OutOfMemoryError:
                height, width = image.shape[:2]
                raise StageFailure(
                    f"out of memory on {device} with a scene of {width}x{height}, {pack.names[scene]}: "
                    f"lower {'train.long_side (params.yaml)' if views.window is None else '--window'}"
                ) from None
            matrices[scene] = confusion(prediction, label, classes)
    finally:
        net.train(was_training)
    return distributed.added(matrices)


def said(net: Callable[[Tensor], Tensor], image: Tensor, views: Views = PLAIN) -> Tensor:
    """What a network in eval mode says of image float32 13HW, normalised: logits 1CHW, or with several views the mean
    of their softmax scores."""
    if views.scales == (1.0,) and not views.flip:
        return _slid(net, image, views)
    height, width = image.shape[-2:]
    total = torch.zeros(())
    for scale in views.scales:
        size = max(LEAST, round(height * scale)), max(LEAST, round(width * scale))
        view = image if scale == 1 else F.interpolate(image, size=size, mode="bilinear", antialias=scale < 1)
        for flipped in (False, True)[: 1 + views.flip]:
            logits = _slid(net, view.flip(3) if flipped else view, views)
            logits = logits.flip(3) if flipped else logits
            scores = F.interpolate(logits, size=(height, width), mode="bilinear").softmax(dim=1)
            total = total.to(scores.device) + scores
    return total / (len(views.scales) * (1 + views.flip))


def _slid(net: Callable[[Tensor], Tensor], image: Tensor, views: Views) -> Tensor:
    """Logits 1CHW of the image, seen through windows where it is larger than one: the mean where they overlap."""
    height, width = image.shape[-2:]
    if views.window is None or (height <= views.window[0] and width <= views.window[1]):
        return net(image)
    tops, lefts = (places(side, window, OVERLAP) for side, window in zip((height, width), views.window, strict=True))
    total, seen = None, torch.zeros(1, 1, height, width, device=image.device)
    for top, left in product(tops, lefts):
        rows, columns = slice(top, top + views.window[0]), slice(left, left + views.window[1])
        part = net(image[:, :, rows, columns].contiguous())
        total = torch.zeros(1, part.shape[1], height, width, device=image.device) if total is None else total
        total[:, :, rows, columns] += part
        seen[:, :, rows, columns] += 1
    assert total is not None
    return total / seen


def places(side: int, window: int, overlap: float) -> list[int]:
    """Where windows of `window` pixels begin on a side of `side`, so that they cover it evenly and overlap by at least
    a share `overlap` of a window."""
    if side <= window:
        return [0]
    count = 1 + math.ceil((side - window) / (window * (1 - overlap)))
    return [round(place * (side - window) / (count - 1)) for place in range(count)]


def ids_at(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 HW: the arg max over classes of logits 1CHW, brought to `size` (height, width) by bilinear interpolation.

    A few classes at a time where all of them would not fit; of equal logits the first class, either way.
    """
    if logits.shape[-2:] == size:
        return logits.argmax(dim=1)[0].to(torch.uint8)
    best = torch.full(size, -torch.inf, device=logits.device)
    ids = torch.zeros(size, dtype=torch.uint8, device=logits.device)
    few = max(1, AT_ONCE // (size[0] * size[1]))
    for first in range(0, logits.shape[1], few):
        part = F.interpolate(logits[:, first : first + few], size=size, mode="bilinear", align_corners=False)
        value, place = part[0].max(dim=0)
        better = value > best
        best = torch.where(better, value, best)
        ids = torch.where(better, (place + first).to(torch.uint8), ids)
    return ids
