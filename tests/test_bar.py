"""How far long work is, in a terminal and in a log."""

import io

import pytest
from rich.console import Console

from roadseg import bar


def test_a_log_has_a_line_a_minute_and_none_of_short_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(bar.time, "monotonic", lambda: now)
    seen = []
    for item in bar.track([10, 20, 30, 40, 50], "Judging [a]", transient=True):
        seen.append(item)
        now += 25.0
    assert seen == [10, 20, 30, 40, 50]
    assert capsys.readouterr().out == "Judging [a]: 3 of 5\n"
    for _ in bar.track(iter("ab"), "Drawing", 2):
        now += 60.0
    assert capsys.readouterr().out == "Drawing: 1 of 2\n"
    assert list(bar.track("abc", "Reading")) == ["a", "b", "c"]
    assert capsys.readouterr().out == ""


def test_a_terminal_has_a_bar() -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, force_interactive=True, width=80, _environ={})
    assert list(bar.track([1, 2], "Segmenting", console=screen)) == [1, 2]
    shown = screen.file.getvalue()
    assert "Segmenting" in shown and "100%" in shown
