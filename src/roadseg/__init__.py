"""roadseg: from driving-scene datasets to a registered, deployable, real-time segmentation model."""

import os
import sys

__version__ = "0.1.0"

# Telemetry is off for every dependency that has any, before one of them can be imported. MLflow takes only the word
# "true" for DO_NOT_TRACK; Prefect's server looks at its own switch alone.
for _name, _value in {
    "DO_NOT_TRACK": "true",
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_OFFLINE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}.items():
    os.environ.setdefault(_name, _value)

# OpenVINO has no switch: each import would report to its makers, where it finds this package.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
