"""No dependency reports to its makers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from roadseg.deploy import run


def _spoken(home: Path, code: str) -> list[str]:
    """Files that a fresh Python leaves in an empty home after `code`: OpenVINO's telemetry keeps a client id there."""
    environment = os.environ | {"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, cwd=home)
    return [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()]


def test_openvino_says_nothing_under_roadseg(tmp_path: Path) -> None:
    assert _spoken(tmp_path, "import roadseg, openvino; openvino.Core()") == []


def test_openvino_says_nothing_under_a_deployers_script(tmp_path: Path) -> None:
    shutil.copy(run.__file__, tmp_path / "run.py")
    code = (
        "import run\ntry:\n    run._openvino(run.Path('none'), run.Form('openvino', 'float32', 1, 'cpu'))\n"
        "except Exception:\n    import sys; assert 'openvino' in sys.modules"
    )
    assert _spoken(tmp_path, code) == ["run.py"]


@pytest.mark.parametrize("switch", ["DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY", "DVC_NO_ANALYTICS"])
def test_switches_are_set_on_import(switch: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != switch}
    code = f"import roadseg, os; print(os.environ[{switch!r}])"
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.strip() in ("true", "1")
