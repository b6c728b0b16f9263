"""Where a training step computes, and in which number format, from what the device really has.

In: the wish of params.yaml ("auto", "float32", "bfloat16" ...) and a device. Out: a torch dtype for autocast. Emulated
bfloat16 is slower than float32, so "auto" takes it only where the hardware multiplies in it.
"""

import torch

from roadseg.errors import UserError

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Names for `resolve`, beside "auto"."""


def default_device() -> str:
    """ "cuda" where there is a GPU, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def native_bf16(device: torch.device | str) -> bool:
    """Whether the device multiplies bfloat16 in hardware: AMX-BF16 or AVX512-BF16 on a CPU, Ampere or later of CUDA."""
    kind = torch.device(device).type
    if kind == "cpu":
        has = torch.cpu.get_capabilities()
        return bool(has.get("amx_bf16") or has.get("avx512_bf16"))
    return kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def resolve(precision: str, device: torch.device | str) -> torch.dtype:
    """The dtype of autocast; float32 means no autocast.

    "auto" is bfloat16 where it is native, else float16 on a GPU (with a gradient scaler) and float32 on a CPU. A named
    precision, one of `PRECISIONS`, is taken at its word: a CPU that has to emulate it takes several times as long.
    """
    kind = torch.device(device).type
    if precision == "auto":
        if native_bf16(device):
            return torch.bfloat16
        return torch.float16 if kind == "cuda" else torch.float32
    return PRECISIONS[precision]


def check_compiled(dtype: torch.dtype, device: torch.device | str) -> None:
    """Raises UserError where torch.compile cannot be trusted with a training: on a CPU in less than float32.

    torch 2.13's Inductor leaves out what enlarging gives back for some sizes (Fast-SCNN and DDRNet-23-slim at 64x96, 11
    classes, bfloat16): everything before it gets a gradient of exactly 0, while loss and norm stay numbers.
    """
    if torch.device(device).type == "cpu" and dtype != torch.float32:
        raise UserError(
            f"train.compile (params.yaml) is true in {str(dtype).removeprefix('torch.')} on a CPU, where torch.compile "
            "loses gradients: set it to false, which is about as fast there, or train.precision to float32"
        )
