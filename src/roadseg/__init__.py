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

# A proxy is for the world: this machine's own servers are asked directly.
_direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
if _direct != "*" and "127.0.0.1" not in _direct:
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join([*filter(None, [_direct]), "127.0.0.1", "localhost"])

# OpenVINO has no switch: each import would report to its makers, where it finds this package.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
