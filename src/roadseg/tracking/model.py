"""The code that MLflow loads a registered model with (models-from-code: MLflow keeps this file, nothing is pickled).

It goes where roadseg is not installed: it needs mlflow and what the bundle's own run.py needs, and opens the bundle
with that run.py, so that MLflow's users get the ids that every deployer gets.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class Segmenter(PythonModel):
    """predict: uint8 [N, H, W, 3], RGB 0-255, of any size -> uint8 [N, H, W] class ids."""

    def load_context(self, context: Any) -> None:
        """Verify the bundle's checksums and open its model, in the certified form where this machine has it."""
        folder = Path(context.artifacts["bundle"])
        self.session, self.bundle, self.note = _script(folder / "run.py").open_bundle(folder)

    def predict(self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray:
        return np.stack([self.session.run(image) for image in model_input])


def _script(path: Path) -> ModuleType:
    """The bundle's run.py as a module. Its dataclasses look themselves up in sys.modules."""
    spec = importlib.util.spec_from_file_location("roadseg_bundle_run", path)
    assert spec and spec.loader, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


set_model(Segmenter())
