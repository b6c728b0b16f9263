"""The live line of a training."""

from dataclasses import replace

import pytest

from roadseg.engine import Report
from roadseg.stages.progress import live

REPORT = Report(
    step=1,
    total_steps=100,
    epoch=0.5,
    loss=1.23456,
    learning_rate=0.1,
    seconds=10.0,
    parts=1,
    setbacks=0,
)


def shown(capsys: pytest.CaptureFixture[str], *reports: Report, parts: int = 1) -> list[str]:
    """The lines that are left where there is no terminal."""
    with live("enet-dice", epochs=4, scenes=300, parts=parts) as show:
        for number, report in enumerate(reports):
            show(report, 0.4567 if number else None)
    return capsys.readouterr().out.splitlines()


def test_it_says_how_far_how_well_how_fast_and_in_how_much_memory(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # rich would cut it
    name, line = shown(capsys, REPORT, replace(REPORT, step=50, epoch=2.5, seconds=40.0, loss=0.5))
    assert name == "enet-dice"
    for part in ("epoch 2.5/4", "loss 0.500", "mIoU 45.7%", "20.0 images/s", " GB", "0:00:"):  # 2 epochs in 30 s
        assert part in line
    assert len(line.rstrip()) <= 80
    assert "parts" not in line and "setbacks" not in line


def test_what_goes_in_more_parts_than_asked_for_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    divided = [replace(REPORT, step=step, parts=parts) for step, parts in ((1, 2), (2, 2), (3, 4), (4, 4), (5, 4))]
    said = [line for line in shown(capsys, *divided) if "out of memory" in line]
    assert ["in 2 parts" in said[0], "in 4 parts" in said[1], len(said)] == [True, True, 2]
    assert not any("out of memory" in line for line in shown(capsys, *divided[:2], parts=2))
