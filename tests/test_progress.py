"""The live line of a training."""

from dataclasses import replace

import pytest

from roadseg import bar
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


def in_a_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *steps_at: tuple[int, float]
) -> list[str]:
    """The lines but for the first, where a report of each step comes at so many seconds."""
    now = 0.0
    monkeypatch.setattr(bar.time, "monotonic", lambda: now)
    with live("enet-dice", epochs=4, scenes=300) as show:
        for step, seconds in steps_at:
            now = seconds
            show(replace(REPORT, step=step, epoch=step / 100), None)
    name, *lines = capsys.readouterr().out.splitlines()
    assert name == "enet-dice" and max(map(len, lines)) <= 80
    return lines


def test_a_log_has_a_line_a_minute(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [(1, 0.0), (15, 30.0), (29, 59.0), (30, 60.0), (45, 90.0), (60, 119.0), (62, 125.0), (91, 184.0)]
    lines = in_a_log(capsys, monkeypatch, *steps)
    assert [line.split("epoch ")[1].split("/")[0] for line in lines] == ["0.3", "0.6", "0.9"]  # the last at the end


@pytest.mark.parametrize("step", [66, 100])
def test_the_last_line_comes_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Of a training that was stopped, and of one at its end."""
    assert len(in_a_log(capsys, monkeypatch, (1, 1.0), (step, 500.0))) == 1


def test_what_goes_in_more_parts_than_asked_for_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    divided = [replace(REPORT, step=step, parts=parts) for step, parts in ((1, 2), (2, 2), (3, 4), (4, 4), (5, 4))]
    said = [line for line in shown(capsys, *divided) if "out of memory" in line]
    assert ["in 2 parts" in said[0], "in 4 parts" in said[1], len(said)] == [True, True, 2]
    assert not any("out of memory" in line for line in shown(capsys, *divided[:2], parts=2))


def test_setbacks_are_said_once_each_and_a_long_line_still_fits(capsys: pytest.CaptureFixture[str]) -> None:
    long = replace(REPORT, step=60, epoch=123.4, loss=12.345, parts=8, setbacks=1)
    reports = [REPORT, long, replace(long, step=61), replace(long, step=62, setbacks=2)]
    lines = shown(capsys, *reports, parts=8)
    assert [line for line in lines if "setbacks" in line] == [
        "no number: by step 60 training went back 1 times in all (train.setbacks)",
        "no number: by step 62 training went back 2 times in all (train.setbacks)",
    ]
    assert "epoch 123.4/4" in lines[-1] and " GB" in lines[-1], "rich cuts what is beyond 80 columns"
    assert max(map(len, lines)) <= 80
