"""Memory that a training keeps, by the system's own count of pages it had to hand out."""

import platform
import subprocess
import sys

import pytest

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
