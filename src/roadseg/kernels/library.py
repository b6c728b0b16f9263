"""The kernels' C++, compiled for the very machine when they are first asked for, and called.

It takes about two seconds, by the compiler that CXX names, else `c++`. The result is kept beside Python's own compiled
files, one for each set of sources, command and processor; old ones stay, since other machines may share the folder.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

FOLDER = Path(__file__).parent
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")


def usable(*tensors: Tensor) -> bool:
    """Whether kernels may compute with these: on a CPU, not while something traces what is done, and not where this
    machine cannot compile them."""
    plain = all(type(one) in (Tensor, nn.Parameter) and one.device.type == "cpu" for one in tensors)
    return plain and not torch.compiler.is_compiling() and not torch.jit.is_tracing() and compiled() is not None


def run(name: str, *given: Tensor | int | float) -> None:
    """Calls the kernel of that name. What is given must be of the types, layouts and sizes that it takes, in its order:
    a Tensor for a pointer, an int for a long, a float for a float."""
    _function(name)(*(PASSED[type(one)](one) for one in given))


def _address(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


PASSED: dict[type, Callable[..., object]] = {
    Tensor: _address,
    nn.Parameter: _address,
    int: ctypes.c_long,
    float: ctypes.c_float,
}


@functools.cache
def _function(name: str) -> Callable[..., None]:
    library = compiled()
    assert library
    address = ctypes.c_void_p.in_dll(library, name).value  # what C++ exports is a pointer to it
    assert address
    return ctypes.CFUNCTYPE(None)(address)


@functools.cache
def compiled() -> ctypes.CDLL | None:
    """All kernels; None where they cannot be had, for which `build` gives the reason."""
    try:
        return build()
    except OSError:
        return None


def build() -> ctypes.CDLL:
    """All kernels, compiled unless they are there already.

    Raises OSError where there is no compiler, where it refuses, or where the package's folder cannot be written to.
    """
    try:
        compiler = shlex.split(os.environ.get("CXX") or "c++")
    except ValueError as error:
        raise OSError(f"CXX={os.environ['CXX']}: {error}") from None
    sources = sorted([*FOLDER.glob("*.cpp"), *FOLDER.glob("*.h")])
    texts = [*compiler, *FLAGS, _machine(), *(file.read_text(encoding="utf-8") for file in sources)]
    key = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
    kept = FOLDER / "__pycache__" / f"kernels.{key}.so"
    try:
        return ctypes.CDLL(str(kept))
    except OSError:  # it is not there, was cut short, or is another system's
        kept.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        made = Path(folder, kept.name)
        units = [str(file) for file in sources if file.suffix == ".cpp"]
        done = subprocess.run([*compiler, *FLAGS, *units, "-o", str(made)], check=False, capture_output=True, text=True)
        if done.returncode:
            raise OSError(f"{compiler[0]} ended with {done.returncode}: {done.stderr.strip()}")
        made.replace(kept)
    return ctypes.CDLL(str(kept))


def _machine() -> str:
    """What -march=native depends on."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.platform() + platform.processor()
    lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())
