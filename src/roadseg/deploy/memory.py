"""How much of the host's memory a process needs that runs a deployed model: measured in one of its own.

A GPU's memory is not in it.
"""

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
import importlib.util, json, sys
import numpy as np
given = json.loads(sys.argv[1])
spec = importlib.util.spec_from_file_location("run", given["run"])
run = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run)
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
    """Peak resident memory on the host, MB (1024 KB, Linux), of a process that opens the model in this form and runs
    it.

    Raises:
        StageFailure: the process failed.
    """
    given = json.dumps({"run": run.__file__, "model": str(model.resolve()), "form": asdict(form)})
    # -P: neither this folder nor the caller's is searched for modules, such as an export.py that hides another.
    done = subprocess.run([sys.executable, "-P", "-c", PROGRAM, given], capture_output=True, text=True)
    if done.returncode:
        raise StageFailure(f"{model} cannot run as {form}: {' '.join(done.stderr.split())[-300:]}")
    return round(int(done.stdout.split()[-1]) / 1024, 1)
