"""How much memory a process needs that runs a deployed model: measured in one of its own."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from roadseg.deploy import run
from roadseg.deploy.run import Form
from roadseg.errors import StageFailure

CALLS = 3
PROGRAM = f"""
import json, sys
import numpy as np
import run
given = json.loads(sys.argv[1])
session = run.Session(run.Path(given["model"]), run.Form(**given["form"]))
image = np.zeros((*session.size, 3), np.uint8)
for _ in range({CALLS}):
    session.run(image)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
"""What the process runs: the bundle's own run.py, so Python, NumPy, Pillow and the engine are in the number.

The peak is the kernel's VmHWM: a child's ru_maxrss begins with that of the process that started it.
"""


def peak_mb(model: Path, form: Form) -> float:
    """Peak resident memory, MB (1024 KB, Linux), of a process that opens the model in this form and runs it.

    Raises:
        StageFailure: the process failed.
    """
    given = json.dumps({"model": str(model.resolve()), "form": asdict(form)})
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, given], cwd=Path(run.__file__).parent, capture_output=True, text=True
    )
    if done.returncode:
        raise StageFailure(f"{model} cannot run as {form}: {' '.join(done.stderr.split())[-300:]}")
    return round(int(done.stdout.split()[-1]) / 1024, 1)
