"""Training and evaluation as generators and plain functions: no files, no callbacks, no settings, no tools."""

from roadseg.engine.evaluate import evaluate
from roadseg.engine.fit import Diverged, Report, Teacher, Training, crops_per_batch, fit, start, total_steps

__all__ = [
    "Diverged",
    "Report",
    "Teacher",
    "Training",
    "crops_per_batch",
    "evaluate",
    "fit",
    "start",
    "total_steps",
]
