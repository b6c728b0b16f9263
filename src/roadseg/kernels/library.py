"""The kernels' C++, compiled for the very machine when they are first asked for, and called.

It takes about two seconds, by the compiler that CXX names, else `c++`. The result is kept beside Python's own compiled
files.
"""

import ctypes
import functools
import hashlib
import os
import platform
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

FOLDER = Path(__file__).parent
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")


def usable(*tensors: Tensor) -> bool:
    """Whether kernels may compute with these: on a CPU, and not where torch.compile or an export traces what is done;
    False wherever this machine cannot compile them."""
    on_cpu = all(tensor.device.type == "cpu" for tensor in tensors)
    return on_cpu and not torch.compiler.is_compiling() and compiled() is not None


def run(name: str, *given: Tensor | int | float) -> None:
    """Calls the kernel of that name. Tensors go by their addresses: types, layouts and sizes must be what it takes."""
    _function(name)(*(_passed(one) for one in given))


def _passed(given: Tensor | int | float) -> ctypes.c_void_p | ctypes.c_long | ctypes.c_float:
    if isinstance(given, Tensor):
        return ctypes.c_void_p(given.data_ptr())
    return ctypes.c_long(given) if isinstance(given, int) else ctypes.c_float(given)


@functools.cache
def _function(name: str) -> Callable[..., None]:
    address = ctypes.c_void_p.in_dll(compiled() or build(), name).value  # what C++ exports is a pointer to it
    assert address
    return ctypes.CFUNCTYPE(None)(address)


@functools.cache
def compiled() -> ctypes.CDLL | None:
    """All kernels; None where they cannot be had."""
    try:
        return build()
    except OSError:
        return None


def build() -> ctypes.CDLL:
    """All kernels, compiled unless they are there already.

    Raises OSError where there is no compiler, where it refuses, or where the package's folder cannot be written to.
    """
    compiler, sources = os.environ.get("CXX", "c++"), sorted([*FOLDER.glob("*.cpp"), *FOLDER.glob("*.h")])
    texts = [compiler, *FLAGS, _machine(), *(file.read_text(encoding="utf-8") for file in sources)]
    key = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
    kept = FOLDER / "__pycache__" / f"kernels.{key}.so"
    if not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            made = Path(folder, kept.name)
            units = [str(file) for file in sources if file.suffix == ".cpp"]
            command = [compiler, *FLAGS, *units, "-o", str(made)]
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            if done.returncode:
                raise OSError(f"{compiler} ended with {done.returncode}: {done.stderr.strip()}")
            made.replace(kept)
    return ctypes.CDLL(str(kept))


def _machine() -> str:
    """What -march=native depends on."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.platform() + platform.processor()
    lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())
