"""The latency table: every network of a search space in every form, timed with random weights before the search.

Latency depends on network, size, engine and precision, not on what was learnt: what cannot meet the budget is never
trained. Rows are kept in .state/latency/.
"""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from roadseg import closure, nets, paths
from roadseg.bar import track
from roadseg.deploy import device, engines, export, latency, memory
from roadseg.deploy.engines import Form

AGAIN = 2
"""Times that an unstable row over the budget is timed anew: one busy moment must not keep a network out."""
HOPELESS = 2.0
"""Times the budget, of a median: such a row is tried once a call, since the slowest would take the longest."""

COLUMNS = ("p50_ms", "p95_ms", "p99_ms", "p95_low_ms", "p95_high_ms", "stable", "n", "device_id")


def table(
    networks: Sequence[str],
    classes: int,
    height: int,
    width: int,
    forms: Sequence[Form],
    *,
    budget_ms: float = float("inf"),
    image: tuple[int, int] | None = None,
) -> list[dict[str, Any]]:
    """One row a network and form, timed once on an image of size `image` = (height, width), pixels (None: the input's
    own); again where that was unstable and over `budget_ms`.

    Each row: network, engine, precision, threads, device, height, width, then p50_ms, p95_ms, p99_ms, p95_low_ms,
    p95_high_ms, stable, n, device_id, and peak_mb, the host's memory (see roadseg.deploy.memory). Rows are kept in
    .state/latency/, named by a hash of the network's code, the classes, both sizes, the form, the machine and the
    versions.
    """
    nets.known(networks)
    image = image or (height, width)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        combinations = [(network, form) for network in networks for form in forms]
        # A bar that redraws itself would do so in the middle of a call that is being timed.
        for network, form in track(combinations, description="Timing networks", auto_refresh=False, transient=True):
            path = paths.state("latency", f"{_key(network, classes, (height, width), image, form)}.json")
            model = Path(folder, f"{network}.onnx")
            for tried in range(1 + AGAIN):
                if path.exists() and _settled(_read(path), budget_ms, tried):
                    break
                if not model.exists():
                    random_model(network, classes, height, width, model)
                timed = _timed(model, form, image)
                if not path.exists() or timed["p95_ms"] < _read(path)["p95_ms"]:
                    _write(path, timed)
            kept = _read(path)
            rows.append({"network": network, **asdict(form), "height": height, "width": width, **kept})
    return rows


def _key(network: str, classes: int, size: tuple[int, int], image: tuple[int, int], form: Form) -> str:
    """Names a timing by everything that it depends on, as 16 hex digits."""
    # The network's own file and those that it builds on, but not its sisters, which the package imports for the list.
    code = closure.closure(nets.module_of(network), without=nets.__name__)
    ours = [__name__, latency.__name__, memory.__name__, export.__name__, "roadseg.deploy.run"]
    parts = [
        closure.digest([*code, *ours], imports=False),
        network,
        repr(getattr(nets.NETS[network], "keywords", {})),
        classes,
        size,
        image,
        asdict(form),
    ]
    parts += [device.fingerprint(form.device), device.versions(), torch.__version__]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def random_model(network: str, classes: int, height: int, width: int, path: Path) -> None:
    """Exports `network` as it is before training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nets.build(network, classes)
    export.to_onnx(net, height=height, width=width, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), path=path)


def _timed(model: Path, form: Form, size: tuple[int, int]) -> dict[str, Any]:
    session = engines.open_session(model, form.engine, form.precision, form.threads, form.device)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    certificate = latency.certify(session, image).as_dict()
    return {key: certificate[key] for key in COLUMNS} | {"peak_mb": memory.peak_mb(model, form)}


def _settled(row: dict[str, Any], budget_ms: float, tried: int) -> bool:
    """Whether another try, after so many in this call, is worth nothing."""
    far_over = tried > 0 and row["p50_ms"] >= HOPELESS * budget_ms
    return row["stable"] or row["p95_ms"] <= budget_ms or far_over


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _write(path: Path, row: dict[str, Any]) -> None:
    aside = path.with_suffix(".aside")
    aside.write_text(json.dumps(row) + "\n", encoding="utf-8")
    aside.replace(path)
