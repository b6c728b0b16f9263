"""The range test and the drawn schedules, on a few drawn scenes."""

import math
from pathlib import Path

import pandas as pd
import pytest
import yaml

from roadseg import config, figures
from roadseg.errors import StageFailure, UserError
from roadseg.stages import profile, rates
from roadseg.stages.training import Course
from tests.test_overfit import STREETS, prepared


def test_schedules_are_drawn(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rates.draw(config.read(), ["poly(restarts=2)", "one_cycle"], Path("deep/schedule.png"))
    assert Path("deep/schedule.png").read_bytes().startswith(b"\x89PNG")
    assert "deep/schedule.png" in capsys.readouterr().out
    assert [len(figures.schedules({"a": [1, 0]}, momenta).axes) for momenta in ({}, {"a": [0.9, 0.8]})] == [1, 2]
    rates.draw(config.read(), ["one_cycle(low_momentum=0.85, high_momentum=0.95)"], Path("deep/schedule.png"))
    for out in ("deep", "deep/schedule", "deep/schedule.txt"):
        with pytest.raises(UserError, match=rf"--out {out}: a picture's name must end in \.png, \.pdf or \.svg"):
            rates.draw(config.read(), [], Path(out))
    with pytest.raises(UserError, match="there is no schedule 'linear'"):
        rates.draw(config.read(), ["linear"], Path("schedule.png"))


def test_phases_multiply_what_is_drawn(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 0.4 of the crops by twice the batch, and 0.6, the first makes a quarter of the steps."""
    drawn: dict[str, list[float]] = {}
    draw = figures.schedules
    monkeypatch.setattr(figures, "schedules", lambda curves, momenta: drawn.update(curves) or draw(curves, momenta))
    phases = [{"share": 0.4, "batch": 2.0}, {"share": 0.6, "rate": 0.5}]
    params = yaml.safe_load(Path("params.yaml").read_text())
    Path("params.yaml").write_text(yaml.safe_dump(config.replaced(params, {"train.phases": phases})))
    given = config.read()
    rates.draw(given, ["constant(warm_up=0)"], Path("schedule.png"))
    peak = given.search.learning_rate.middle
    assert drawn["constant(warm_up=0)"] == pytest.approx([peak] * 125 + [peak / 2] * 376)


def test_the_range_test_finds_a_rate_between_too_low_and_too_high(workspace: Path) -> None:
    given = prepared(sources=STREETS, train={"batch": 2})
    profile.run(given)
    best = rates.run(given, "fastscnn", steps=40, low=1e-5, high=1e4, out=Path("models/rate"))
    frame = pd.read_csv("models/rate/rate.csv")
    assert frame["learning_rate"].is_monotonic_increasing
    assert frame["learning_rate"].iloc[0] == pytest.approx(1e-5, rel=0.01)
    assert len(frame) < 40, "it ends where the loss bursts"
    assert 1e-4 < best < frame["learning_rate"].iloc[-1]
    assert Path("models/rate/rate.png").is_file()
    course = Course.open(given)
    tried = rates.tried(course, "fastscnn", steps=10, low=1e-6, high=1e-5)
    assert tried["learning_rate"].iloc[[0, 9]].tolist() == pytest.approx([1e-6, 1e-5])
    for high in (0.1, math.inf):
        with pytest.raises(UserError, match=rf"--low 1 must be below --high {high:g}"):
            rates.run(given, None, steps=20, low=1, high=high, out=Path("models/rate"))
    with pytest.raises(
        StageFailure, match="fastscnn's loss does not fall between 1e-09 and 1e-08: give a higher --high"
    ):
        rates.run(given, "fastscnn", steps=20, low=1e-9, high=1e-8, out=Path("models/rate"))
    with pytest.raises(StageFailure, match="fastscnn's loss bursts before it falls: give a lower --low than 1000"):
        rates.run(given, "fastscnn", steps=40, low=1e3, high=1e6, out=Path("models/rate"))
    with pytest.raises(UserError, match=r"^params\.yaml cannot be made a folder \(File exists\): name another"):
        rates.run(given, None, steps=20, low=1e-5, high=1, out=Path("params.yaml"))
    with pytest.raises(UserError, match=r"^there is no network 'net'"):
        rates.run(given, "net", steps=20, low=1e-5, high=1, out=Path("models/rate"))
    Path("data/profile/weights.json").unlink()
    with pytest.raises(UserError, match=r"^data/profile/weights\.json is missing: run the profile stage first$"):
        rates.run(given, None, steps=20, low=1e-5, high=1, out=Path("models/rate"))
