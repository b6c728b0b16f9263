"""A network's confusion on each scene of a pack.

In: a network (its EMA weights, for what is reported) and labelled scenes. Out: int64 [scenes, classes, classes], rows =
label, columns = prediction; roadseg.metrics makes scores and intervals of it.
"""

import numpy as np
import torch
from rich.progress import track
from torch import nn
from torch.nn import functional as F

from roadseg.metrics import confusion
from roadseg.scenes.augment import normalise
from roadseg.scenes.pack import Pack


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
            if logits.shape[-2:] != label.shape:
                logits = F.interpolate(logits, size=label.shape, mode="bilinear", align_corners=False)
            prediction = logits.argmax(dim=1)[0].to(torch.uint8).cpu().numpy()
            matrices[scene] = confusion(prediction, label, classes)
    finally:
        net.train(was_training)
    return matrices
