"""A network's confusion on each scene of a pack.

In: a network (its EMA weights, for what is reported) and labelled scenes. Out: int64 [scenes, classes, classes], rows =
label, columns = prediction; roadseg.metrics makes scores and intervals of it.
"""

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

from roadseg.metrics import confusion
from roadseg.scenes.augment import normalise
from roadseg.scenes.pack import Pack

AT_ONCE = 1 << 28
"""Logits that are brought to a label's size at once: 1 GiB. Mapillary's 66 classes at 20 megapixels would take 5."""


@torch.inference_mode()
def evaluate(
    net: nn.Module, pack: Pack, *, classes: int, device: torch.device | str = "cpu", progress: str | None = None
) -> np.ndarray:
    """Per-scene confusion int64 [S, C, C] in the pack's order, ignored pixels dropped.

    Whole scenes, batch 1, float32, eval mode; logits are brought to the label's own size (bilinear) before argmax. The
    network's mode is put back at the end. `progress` names a progress bar; None shows none.
    """
    matrices = np.zeros((len(pack), classes, classes), dtype=np.int64)
    was_training = net.training
    net.eval()
    try:
        for scene in track(range(len(pack)), description=progress or "", disable=progress is None, transient=True):
            image, label = pack[scene]
            logits = net(normalise(torch.tensor(image[None]).to(device)))
            prediction = ids_at(logits, label.shape).cpu().numpy()
            matrices[scene] = confusion(prediction, label, classes)
    finally:
        net.train(was_training)
    return matrices


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
