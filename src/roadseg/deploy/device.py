"""Which machine this is, as far as a latency is concerned. A certificate from another device is never used.

`fingerprint` and `device_id` are the bundle's own (run.py), so a deployer compares with the same code.
"""

import importlib.metadata
import platform

from roadseg.deploy import run
from roadseg.deploy.run import device_id, fingerprint

__all__ = ["device_id", "fingerprint", "versions"]


def versions() -> dict[str, str]:
    """Versions of what a timing depends on. They stand beside the fingerprint: an update does not change the device."""
    found = {engine: run.version(engine) for engine in run.PACKAGES}
    found |= {package: importlib.metadata.version(package) for package in ("numpy", "pillow")}
    return {"python": platform.python_version(), **{name: text for name, text in found.items() if text}}
