"""What kernels that go over maps take of them: float32 or bfloat16 BCHW, channels last in memory."""

import torch
from torch import Tensor

NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


def fit(features: Tensor, *parameters: Tensor) -> bool:
    """Whether such kernels take these features, and these parameters of each channel, which are float32."""
    dense = features.dtype in NAMES and features.is_contiguous(memory_format=torch.channels_last)
    return dense and all(
        one.dtype == torch.float32 and one.shape == features.shape[1:2] and one.is_contiguous() for one in parameters
    )


def sizes(features: Tensor) -> tuple[int, int, int]:
    """Pixels, channels, and threads to take."""
    return features.numel() // features.shape[1], features.shape[1], torch.get_num_threads()
