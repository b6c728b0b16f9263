"""Whether this machine could compile the kernels: their tests are skipped where it has no compiler, and only there."""

import os
import shlex
import shutil

import pytest

COMPILER = shutil.which(shlex.split(os.environ.get("CXX") or "c++")[0])
needs_compiler = pytest.mark.skipif(not COMPILER, reason="no C++ compiler")
