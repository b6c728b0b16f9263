"""Memory that a training keeps, by the system's own count of pages it had to hand out, and of how large they are."""

import mmap
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from roadseg.engine.memory import large_pages, recognised

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


LARGE = """
from pathlib import Path
import torch
from roadseg.engine.memory import keep_freed, large_pages

def large():
    count, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0]:
            ours = words[-1] == "[heap]"
        elif ours and words[0] == "AnonHugePages:":
            count += int(words[1])
    return count // 1024

keep_freed()
kept = [torch.ones(25_000_000 // 4) for _ in range(8)]
before = large()
large_pages()
assert all(bool((one == 1).all()) for one in kept)
print(before, large())
"""


def has_large_pages() -> bool:
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    recent = platform.system() == "Linux" and tuple(map(int, platform.release().split("-")[0].split(".")[:2])) >= (6, 1)
    return recent and platform.libc_ver()[0] == "glibc" and setting.exists() and "[never]" not in setting.read_text()


@pytest.mark.skipif(not has_large_pages(), reason="the system has no large pages")
def test_what_is_kept_is_moved_to_large_pages() -> None:
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert after >= before + 100 or before >= 150  # MiB, of 191; a system may always give large ones


@pytest.mark.skipif(platform.system() != "Linux", reason="other systems do not list what is mapped")
def test_a_file_of_any_name_may_be_in_memory_beside_it(tmp_path: Path) -> None:
    with (tmp_path / os.fsdecode(b"f\xfcr")).open("wb+") as file:
        file.write(bytes(4096))
        file.flush()
        with mmap.mmap(file.fileno(), 0):
            assert b"/f\xfcr" in Path("/proc/self/maps").read_bytes()
            large_pages()  # which reads them, too: decoded, they raise UnicodeDecodeError


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
