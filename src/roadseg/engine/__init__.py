"""Training, a generator, and evaluation, a function: no files, no callbacks, no tool but a progress bar."""

from roadseg.engine.evaluate import Views, evaluate
from roadseg.engine.fit import Diverged, Report, fit
from roadseg.engine.precision import default_device
from roadseg.engine.training import Teacher, Training, start

__all__ = [
    "Diverged",
    "Report",
    "Teacher",
    "Training",
    "Views",
    "default_device",
    "evaluate",
    "fit",
    "start",
]
