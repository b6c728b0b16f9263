"""The engines that can run an exported model, and the forms that they offer on this machine."""

from collections.abc import Callable, Sequence
from pathlib import Path

from roadseg.deploy.run import Form, Problem, Session
from roadseg.errors import UserError

__all__ = ["ENGINES", "REFERENCE", "Form", "Session", "forms", "open_session"]


def _onnxruntime(device: str) -> list[str]:
    import onnxruntime

    if device == "cpu":
        return ["float32"]
    return ["float32", "tf32"] if "CUDAExecutionProvider" in onnxruntime.get_available_providers() else []


def _openvino(device: str) -> list[str]:
    import openvino

    if device != "cpu":
        return []
    # Asked for bfloat16, a CPU without it computes in float32 and says nothing: ask the CPU, not the compiler.
    capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ["float32", "bfloat16"] if "BF16" in capabilities else ["float32"]


ENGINES: dict[str, Callable[[str], list[str]]] = {"onnxruntime": _onnxruntime, "openvino": _openvino}
"""Engine -> the precisions that it offers on a device ("cpu" or "cuda") of this machine."""

REFERENCE = Form("onnxruntime", "float32", 1, "cpu")
"""What every other form's ids are held against (threads do not change ids)."""


def forms(engines: Sequence[str], device: str, threads: int) -> list[Form]:
    """Every form that this machine can deploy a model in, in the order of `engines`.

    Raises:
        UserError: an engine has another name, or none of them runs on `device` here.
    """
    for engine in engines:
        if engine not in ENGINES:
            raise UserError(f"target.engines: {engine!r} is not an engine: use some of {', '.join(ENGINES)}")
    found = [Form(engine, precision, threads, device) for engine in engines for precision in ENGINES[engine](device)]
    if not found:
        raise UserError(
            f"target.device: none of {', '.join(engines)} can run on {device!r} here: install an engine that can "
            "(onnxruntime-gpu for cuda) or set target.device: cpu"
        )
    return found


def open_session(model: Path, engine: str, precision: str, threads: int, device: str = "cpu") -> Session:
    """Opens an exported model in one form.

    Raises:
        UserError: this machine does not have the form, or the engine fell back from it.
    """
    try:
        return Session(model, Form(engine, precision, threads, device))
    except Problem as problem:
        raise UserError(f"{model}: {problem}") from None
