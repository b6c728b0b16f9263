"""Memory that a training keeps, by the system's own count of pages it had to hand out."""

import platform
import subprocess
import sys

import pytest
import torch

from roadseg.engine.memory import recognised

PAGES = """
import resource, sys
import torch
from roadseg.engine.memory import keep_freed
if sys.argv[1] == "kept":
    keep_freed()
torch.ones(50_000_000 // 4)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(50_000_000 // 4)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def handed_out(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PAGES, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_a_freed_tensor_is_taken_again_without_new_pages() -> None:
    assert handed_out("kept") < handed_out("given back") / 5


@pytest.mark.parametrize(
    "said",
    [
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried",
        "could not create a primitive",
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_memory_that_runs_out_is_known_by_what_torch_says(said: str) -> None:
    with pytest.raises(torch.OutOfMemoryError), recognised():
        raise RuntimeError(said)


@pytest.mark.parametrize("said", ["shape '[2]' is invalid", "could not create a primitive descriptor for a matmul"])
def test_another_error_stays_what_it_is(said: str) -> None:
    with pytest.raises(RuntimeError, match=said[:5]) as caught, recognised():
        raise RuntimeError(said)
    assert not isinstance(caught.value, torch.OutOfMemoryError)
